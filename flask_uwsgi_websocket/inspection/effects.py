"""The effects of uWSGI's options: the engine, its cores, the router, whether requests end early."""

from __future__ import annotations

import re

from ..helpers.engines import CORES, LOOPS
from .options import KEEPING_SOCKETS, LOADERS, ROUTERS, Options

#: Options that make the router serve workers of other instances.
ELSEWHERE = (
    "http-to",
    "http-subscription-server",
    "http-use-cache",
    "http-use-pattern",
    "http-use-base",
    "http-use-code-string",
    "http-zerg",
)

#: Protocols in which uWSGI keeps connections after their requests.
KEEPING_PROTOCOLS = ("http11", "puwsgi")

#: Options under which uWSGI itself acts on a connection whose request has ended, or on a worker
#: that has none: under them a WebSocket holds its request, and so its core, until it is closed.
HOLDING = ("cheaper", "idle", *KEEPING_SOCKETS)


def version_of(text: str) -> tuple[int, ...]:
    """Return uWSGI's version as numbers."""
    return tuple(map(int, re.findall(r"\d+", text)[:4]))


def serves(options: Options) -> bool:
    """Return whether the instance serves an app, and is not only an emperor or a router."""
    return options.has(*LOADERS) or options.lacks("emperor", *ELSEWHERE)


def engine_of(options: Options, running_loop: str | None = None) -> str:
    """Return which of our engines the options start; ``""`` for none of them, or in doubt.

    :param running_loop: the name of uWSGI's loop, empty for its own, where it runs.
    """
    loop = running_loop
    if loop is None:
        loop = next(iter(options.given(*LOOPS)), options.text("loop"))
    if loop == "gevent":
        return "gevent"
    if loop == "asyncio":
        return "asyncio" if options.has("greenlet") else ""
    if (options.number("async", 1) or 0) > 1:
        # Not --ugreen: it switches C stacks under Python, which keeps Flask's context in the
        # thread and (from 3.11 on) the frames too. Requests that overlap hang.
        return "suspend" if options.has("greenlet") else ""
    certain = running_loop is not None or options.lacks("async", "loop", *LOOPS)
    return "threads" if certain else ""


def keeps_connections(options: Options) -> str:
    """Return what makes uWSGI keep connections after their requests; an empty string if nothing."""
    protocol = options.text("protocol")
    by_protocol = [f"protocol {protocol}"] if protocol in KEEPING_PROTOCOLS else []
    return next(iter((*options.given(*KEEPING_SOCKETS), *by_protocol)), "")


def detaches(options: Options) -> bool:
    """Return whether a WebSocket's request ends with its handshake, and gives its core back."""
    return (
        engine_of(options) in LOOPS and options.lacks(*HOLDING) and not keeps_connections(options)
    )


def has_router(options: Options) -> str:
    """Return the first option that makes uWSGI a router; an empty string without one."""
    return next(iter(options.given(*ROUTERS)), "")


def workers(options: Options) -> int:
    """Return the number of workers, 0 in doubt."""
    number = options.number("processes", 1)
    return max(number, 1) if number is not None else 0


def cores(options: Options) -> int:
    """Return the number of requests that all workers together serve at a time, 0 in doubt."""
    numbers = [options.number(name, 1) for name in CORES]
    known = [max(number, 1) for number in numbers if number is not None]
    return max(known) * workers(options) if len(known) == len(numbers) else 0
