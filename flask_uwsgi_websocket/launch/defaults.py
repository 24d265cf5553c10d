"""The options that ``app.run`` adds to those of the caller, each replaced by giving it.

=========================  ========================================================================
``http``                   ``host:port``. When another front is given (``https``, ``http_socket``,
                           ``socket``, ...) and ``host`` and ``port`` are left at their defaults,
                           only that one is served; name a host or port to have both.
``http_websockets``        uWSGI's HTTP router passes WebSockets on.
``http_buffer_size``       32768: the router's own 4,096 bytes bring messages above that size
                           down to some ten a second. Never 65535 or more, with which it loses
                           uploads.
``master``                 restarts workers that die, stops and reloads them cleanly.
``enable_threads``         our heartbeats run in a thread.
``threads``                32 when neither an engine (``gevent``, ``asyncio``, ``async``) nor
                           ``threads`` is given: each open WebSocket holds one, and with uWSGI's
                           single one a second browser tab would wait for the first to close.
``greenlet``               with ``asyncio`` and ``async``, which need it.
``die_on_term``            SIGTERM stops uWSGI, as ``kill``, systemd and Docker expect; without it
                           uWSGI reloads.
``need_app``               an app that does not load stops uWSGI instead of answering each request
                           with an error; not in debug mode, which waits for you to mend it.
``lazy``                   in debug mode: the worker loads the app, so that new code takes another
                           worker, and not another uWSGI; meanwhile the router waits.
``python_autoreload``      1 in debug mode: seconds between two looks for changed code, which with
                           ``lazy`` are our own; and ``worker_reload_mercy`` 5 seconds: an open
                           WebSocket must not hold the reload for uWSGI's minute.
``metric``                 ours, for each worker and for all, with ``enable_metrics`` or another
                           option by which uWSGI has metrics; and ``metrics_no_cores``, since
                           those of thousands of cores slow all of them down.
``virtualenv``             the one that this interpreter runs in.
=========================  ========================================================================
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from typing import Any

from ..exceptions import EngineError
from ..helpers.engines import CORES
from ..inspection.binaries import is_plain
from ..inspection.options import FASTCGI_SOCKETS, FILES, ROUTERS, SOCKETS, TLS_SOCKETS, spellings
from ..inspection.socket_rules import ROUTER_BUFFER
from . import metrics, watch
from .keywords import Options, check_taken_literally, number, settled, spelling, values

DEFAULT_HOST = "localhost"
DEFAULT_PORT = 5000

_THREADS = 32

# Seconds that a reload waits for handlers which do not end; uWSGI's 60 are long for a developer.
_DEBUG_MERCY = 5

# Options that open the HTTP router on an address.
_ROUTERS = spellings(*ROUTERS, "http-to-https")

# Options that open a listening socket of the workers.
_SOCKETS = spellings(*SOCKETS, *TLS_SOCKETS, *FASTCGI_SOCKETS, "raw-socket")

# Files that bring options which we do not read. A uWSGI that was built with a library for JSON has
# a short option for it.
CONFIGURATIONS = spellings(*FILES, "emperor") | {"j"}

_WORKERS = spellings("processes")

# uWSGI's reloader.
_RELOADERS = spellings("py-autoreload")


def complete(
    uwsgi_options: Mapping[str, Any],
    debug: bool = False,
    host: str | None = DEFAULT_HOST,
    port: int | str | None = DEFAULT_PORT,
) -> Options:
    """Return the options in uWSGI's spelling, with our defaults where the caller says nothing.

    :returns: names to values that are neither ``None`` nor ``False``.
    """
    names = {spelling(keyword): value for keyword, value in uwsgi_options.items()}
    given = {name: settled(name, value) for name, value in names.items()}
    if debug:
        given = {n: v for n, v in given.items() if n not in _WORKERS and "cheaper" not in n}
    options = _front(given, host or DEFAULT_HOST, port or DEFAULT_PORT)
    options |= {"master": True, "enable-threads": True, "die-on-term": True, "need-app": not debug}
    if debug:
        options |= {"lazy": True, "python-autoreload": 1, "worker-reload-mercy": _DEBUG_MERCY}
        # By its file, so that it does not import Flask before the app does, if uWSGI can.
        options["import"] = watch.__file__ if is_plain(watch.__file__) else watch.__name__
    if leaves_open(given, (*CORES, "ugreen")):
        options["threads"] = _THREADS
    if (given.get("asyncio") or given.get("async")) and not given.get("ugreen"):
        options["greenlet"] = True
    if any(given.get(name) for name in metrics.ENABLING):
        workers = max([1, *(number(given[name]) for name in given.keys() & _WORKERS)])
        options |= {"metric": metrics.declarations(workers), "metrics-no-cores": True}
    for name in ("http", "import", "metric"):
        if options.get(name) and given.get(name):  # these stand beside ours
            options[name] = [*values(options[name]), *values(given.pop(name))]
    options |= given
    return {n: v for n, v in options.items() if v is not None and v is not False}


def _front(given: Options, host: str, port: int | str) -> Options:
    """Return what opens the address, unless the caller opens others, and what the router wants."""
    options: Options = {}
    if (host, str(port)) != (DEFAULT_HOST, str(DEFAULT_PORT)) or not given.keys() & (
        _ROUTERS | _SOCKETS
    ):
        options["http"] = _address(host, port)
    if any((options | given).get(name) for name in _ROUTERS):
        options |= {"http-websockets": True, "http-buffer-size": ROUTER_BUFFER}
    return options


def leaves_open(uwsgi_options: Iterable[str], names: Iterable[str]) -> bool:
    """Return whether the options are none of ``names``, and no file that may have them in it."""
    return not {spelling(name) for name in uwsgi_options} & {*names, *CONFIGURATIONS}


def take_over_reloading(options: Options) -> int | None:
    """Take uWSGI's reloader out of the options where :mod:`.watch` does better, with ``lazy``.

    :returns: seconds between two looks; ``None`` where it is left to uWSGI, or not wanted.
    """
    if "lazy" not in options:
        return None
    # In the order in which they were given, of which the last one counts.
    intervals = [options.pop(name) for name in tuple(options) if name in _RELOADERS]
    return max(number(intervals[-1]), 1) if intervals else None


def _address(host: str, port: int | str) -> str:
    """Return the address; EngineError for one that uWSGI would take for another, without a word."""
    check_taken_literally(f"{host}:{port}", "the address to listen on")
    if not str(port).isdecimal() or int(port) > 65535:
        raise EngineError(f"port is {port!r}: it must be a whole number, 65535 at most")
    try:
        if host == "localhost":
            host = _localhost()
        elif host != "*":
            socket.getaddrinfo(host.strip("[]"), None)
    except (OSError, UnicodeError) as error:
        raise EngineError(f"host is {host!r}, which leads to no address: {error}") from error
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def _localhost() -> str:
    """Return the name; or its address on a machine without /etc/hosts, such as a new container."""
    try:
        socket.gethostbyname("localhost")  # as uWSGI does, which takes 255.255.255.255 if it fails
    except OSError:
        return "127.0.0.1"
    return "localhost"
