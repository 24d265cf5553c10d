"""All rules that look in uWSGI's options for what hurts WebSockets, with the remedies.

One set of rules, for ``flask websocket doctor``, for the start of the log, for ``app.run``, and for
the answer to a handshake that cannot work. A rule that finds what is not there costs trust: in
doubt it keeps quiet, which :class:`~.options.Options` makes easy, and each has a test with options
that are right.
"""

from __future__ import annotations

from . import socket_rules, worker_rules
from .effects import serves
from .findings import Finding, Rule, Severity, Surroundings
from .options import Options

#: All rules, in the order in which they are told.
RULES = [
    rule
    for module in (socket_rules, worker_rules)
    for rule in vars(module).values()
    if isinstance(rule, Rule)
]

#: What may be said of an instance that serves no app, as a router for others.
ROUTER_RULES = [
    worker_rules.version,
    socket_rules.http_websockets,
    socket_rules.http_buffer_size,
    socket_rules.http_timeout,
]


def judge(options: Options, around: Surroundings | None = None) -> list[Finding]:
    """Return what the rules find, worst first."""
    around = around or Surroundings()
    rules = RULES if serves(options) else ROUTER_RULES
    findings = [finding for each in rules for finding in each(options, around)]
    return sorted(findings, key=lambda finding: list(Severity).index(finding.severity))


def unsupported_reason(options: Options) -> Finding | None:
    """Return why no WebSocket can work with these options; None if one can."""
    return next((finding for finding in judge(options) if finding.blocks), None)
