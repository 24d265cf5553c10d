"""Threads that an app starts while it is imported, where that is too early.

gevent's patch turns the threads that come after it into greenlets: those that it finds keep
locks and sockets of both kinds. And a fork keeps the thread that calls it: all others are gone in
the worker.
"""

from __future__ import annotations

import os
import threading

from ..exceptions import EngineError
from ..helpers.log import logger

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
    """Check that gevent's patch finds no thread.

    :raises EngineError: which names the thread and the remedies.
    """
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
