"""Checks that the WebSockets of a class can work in this instance."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Mapping
from functools import cache

from ...exceptions import EngineError, UWSGINotFound
from ...helpers.engines import CORES, ENGINES, LOOPS, WEBSOCKETS
from ...helpers.log import logger
from ...inspection.effects import detaches as detaches_under
from ...inspection.findings import Surroundings
from ...inspection.rules import unsupported_reason as unsupported_reason_in
from ...inspection.worker_rules import late_patch
from .instance import inside, options, running_engine, running_loop, worker_id


def require_engine(engine: str, classes: Mapping[str, str] = WEBSOCKETS) -> None:
    """Check that uWSGI runs the engine that a class was made for.

    :raises UWSGINotFound: outside of uWSGI.
    :raises EngineError: when uWSGI runs another one.
    """
    wanted = classes[engine]
    if not inside():
        raise UWSGINotFound(
            f"{wanted} accepts WebSockets inside uWSGI only: start the app with uwsgi --http :8080 "
            f"--http-websockets {ENGINES[engine].flags} --wsgi app:app; a Flask app, with app.run()"
        )
    running = running_engine()
    if running != engine:
        other = f", where {classes[running]} works" if running in classes else ""
        raise EngineError(
            f"{wanted} needs uWSGI to be started with {ENGINES[engine].flags}; "
            f"it was started with {_started_with()}{other}"
        )


def _started_with() -> str:
    given = options()
    flags = [
        f"--{name}" if name in ("greenlet", "ugreen") else f"--{name} {given.text(name)}"
        for name in ("loop", *CORES, "greenlet", "ugreen")
        if given.has(name)
    ]
    return " ".join(flags) or "no engine's flags, that is with processes"


def require_main_interpreter() -> None:
    """Check that uWSGI has not loaded the app into an interpreter that its loop cannot serve.

    A worker whose loop serves a request there dies, at the first one (asyncio), or the loop's
    modules cannot be imported (gevent).

    :raises EngineError: with the remedy.
    """
    loop = running_loop() if inside() else ""
    if loop not in LOOPS:
        return
    state = ctypes.pythonapi.PyInterpreterState_Get
    state.restype = ctypes.c_void_p
    number = ctypes.pythonapi.PyInterpreterState_GetID
    number.restype, number.argtypes = ctypes.c_int64, (ctypes.c_void_p,)
    if number(state()):  # the main one is 0
        raise EngineError(
            "uWSGI loads each app (--mount) into an interpreter of its own, and its "
            f"{loop} loop serves those in the first one only: add --single-interpreter"
        )


def check_that_gevent_can_patch() -> None:
    """Check that no thread is at work that gevent's patch would disturb; else EngineError.

    uWSGI's reloader is, with ``--lazy-apps``: the patch then breaks the import of the app.
    """
    if not inside() or options().has("gevent-early-monkey-patch"):
        return
    if worker_id():
        for finding in late_patch(options(), Surroundings()):
            raise EngineError(str(finding))
    check_before_patch()


@cache
def unsupported_reason() -> str | None:
    """Return why WebSockets cannot work as uWSGI was started, and the remedy; None if they can."""
    finding = unsupported_reason_in(options())
    return str(finding) if finding else None


@cache
def detaches(engine: str) -> bool:
    """Return whether a WebSocket's request ends with the handshake, and gives its core back.

    Threads cannot: a core is the thread that runs the handler.
    """
    return inside() and running_engine() == engine and detaches_under(options())


# For threads that an app starts while it is imported, where that is too early: gevent's patch turns
# later ones into greenlets, and those that it finds keep locks and sockets of both kinds.
# A fork keeps the thread that calls it: all others are gone in the worker.
_IMPORTED_IN = os.getpid()
_REMEDY = "start it in a function decorated with @websocket.on_worker_start"


def _started() -> list[threading.Thread]:
    """Return the threads that somebody has started in this process, by Python's own account."""
    return [
        thread
        for thread in threading.enumerate()
        if thread not in (threading.main_thread(), threading.current_thread())
        and not isinstance(thread, threading._DummyThread)  # a server's own, in C
    ]


def check_before_patch() -> None:
    """Check that gevent's patch finds no thread; EngineError names it, and the remedies."""
    threads = _started()
    if threads:
        raise EngineError(
            f"{_names(threads)} was started before GeventWebSocket could call gevent's "
            f"patch_all(), and would share locks with greenlets: {_REMEDY}, or add "
            "--gevent-early-monkey-patch to uWSGI's options"
        )


def warn_of_lost() -> None:
    """Warn, in a new worker, of threads that were started before the fork."""
    lost = [thread for thread in _started() if not _is_here(thread)]
    if lost:
        logger.warning(
            "%s was started while the app was imported, and does not run in the workers, which "
            "uWSGI forks afterwards: %s",
            _names(lost),
            _REMEDY,
        )


def _names(threads: list[threading.Thread]) -> str:
    names = ", ".join(repr(thread.name) for thread in threads)
    return f"the thread {names}" if len(threads) == 1 else f"each of the threads {names}"


def _is_here(thread: threading.Thread) -> bool:
    return os.getpid() == _IMPORTED_IN or os.path.exists(f"/proc/self/task/{thread.native_id}")
