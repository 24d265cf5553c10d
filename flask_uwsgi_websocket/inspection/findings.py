"""Findings about uWSGI's options, and the facts beside these that a rule may ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial

from ..helpers.engines import WEBSOCKETS
from .options import Options


class Severity(Enum):
    """The severity of a finding: how much it hurts."""

    #: WebSockets do not work, or everybody is thrown out.
    ERROR = "error"
    #: They work, until something ordinary happens.
    WARNING = "warning"
    #: Worth knowing; it may be what was wanted.
    HINT = "hint"


@dataclass(frozen=True)
class Finding:
    """Something in the options, what it does to WebSockets, and what to do about it.

    :param found: the options, as uWSGI spells them.
    :param why: what WebSockets suffer.
    :param remedy: an instruction.
    :param blocks: whether no WebSocket can work; handshakes are then answered with 501.
    :param logged: whether the start of the log tells it; hints are not told there.
    :param rule: the name of the rule that found it.
    """

    severity: Severity
    found: str
    why: str
    remedy: str
    blocks: bool = False
    logged: bool = True
    rule: str = ""

    def __str__(self) -> str:
        return f"{self.found}: {self.why}; {self.remedy}"


error = partial(Finding, Severity.ERROR)
warning = partial(Finding, Severity.WARNING)
hint = partial(Finding, Severity.HINT)


@dataclass(frozen=True)
class Surroundings:
    """Facts beside the options; None where one is not known.

    :param engine: the engine that the app's class needs, a key of :data:`~.engines.ENGINES`.
    :param timeout: the extension's ``timeout`` in seconds.
    :param ping_interval: ``UWSGI_WEBSOCKET_PING_INTERVAL``.
    :param descriptors: how many a process may open (``RLIMIT_NOFILE``).
    :param version: uWSGI's.
    :param features: names of the options that the binary has.
    :param vassal: whether an emperor starts and stops it.
    :param backplane: the URL of what connects the app's workers.
    :param classes: what the class for each engine is called.
    """

    engine: str | None = None
    timeout: float = 5
    ping_interval: float = 25
    descriptors: int | None = None
    version: tuple[int, ...] | None = None
    features: frozenset[str] | None = None
    vassal: bool = False
    backplane: str | None = None
    classes: Mapping[str, str] = field(default_factory=lambda: WEBSOCKETS)


class Rule:
    """A function that yields what it finds in the options; its name is that of the findings."""

    def __init__(self, find: Callable[[Options, Surroundings], Iterator[Finding]]) -> None:
        self._find = find
        self._name = find.__name__.replace("_", "-")

    def __call__(self, options: Options, around: Surroundings) -> list[Finding]:
        return [replace(finding, rule=self._name) for finding in self._find(options, around)]
