"""The instance of uWSGI that we are part of; the only importer of its ``uwsgi`` module."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from ...inspection.effects import engine_of, version_of
from ...inspection.options import Options

try:
    import uwsgi as uwsgi  # for the modules beside this one
except ImportError:
    uwsgi = None

#: The C library's functions, and uWSGI's where it exports them.
C: Any = ctypes.CDLL(None) if uwsgi is not None else None


def inside() -> bool:
    """Return whether this process is uWSGI."""
    return uwsgi is not None


def has_master() -> bool:
    """Return whether a master forks the workers, and replaces those that end."""
    return bool(uwsgi.masterpid())


def worker_id() -> int:
    """Return the number of this worker, from 1 on; 0 in the master, in mules and spoolers."""
    number: int = uwsgi.worker_id()
    return number


def is_only_worker() -> bool:
    """Return whether this process is the one worker of its instance, which has never more."""
    return worker_id() > 0 and int(uwsgi.numproc) == 1


def most_workers() -> int:
    """Return how many workers this instance has, or with ``--cheaper`` may have; 0 outside."""
    return int(uwsgi.numproc) if uwsgi is not None else 0


def is_dismissed() -> bool:
    """Return whether uWSGI, by ``--cheaper``, wants this worker to end, and nobody in its place."""
    return uwsgi is not None and worker_state()["status"] == b"cheap"


def worker_state() -> dict[str, Any]:
    """Return what uWSGI knows of this worker."""
    state: dict[str, Any] = uwsgi.workers()[uwsgi.worker_id() - 1]
    return state


def running_workers() -> dict[int, tuple[int, float]]:
    """Return the id of each worker's process, and when it was started, by the worker's number."""
    return {
        worker["id"]: (worker["pid"], worker["last_spawn"])
        for worker in uwsgi.workers()
        if worker["pid"] > 0 and worker["status"] != b"cheap"
    }


def version() -> tuple[int, ...]:
    """Return uWSGI's version."""
    return version_of(uwsgi.version.decode())


def running_loop() -> str:
    """Return the name of uWSGI's loop, empty for its own."""
    return uwsgi.loop.decode() if uwsgi.loop else ""


def running_engine() -> str:
    """Return which of our engines uWSGI's flags have started; ``""`` where none of ours fits."""
    return engine_of(options(), running_loop())


@cache
def options() -> Options:
    """Return uWSGI's options, in one form whatever way they were given."""
    return Options.of_process(uwsgi.opt, _first_value)


def _first_value(option: str) -> bytes | None:
    """Return the first value of an option: with Python 3, ``uwsgi.opt`` has the last one alone.

    Those between the two nothing tells, nor does a uWSGI that is a shared library tell the first.
    """
    if not hasattr(C, "uwsgi_get_exported_opt"):
        return None
    look_up = C.uwsgi_get_exported_opt  # core/config.c
    look_up.restype, look_up.argtypes = ctypes.c_char_p, (ctypes.c_char_p,)
    value: bytes | None = look_up(option.encode())
    return value


def number(name: str, default: int = 0) -> int:
    """Return the value of an option that is a number."""
    return options().number(name, default) or 0


def after_fork(callback: Callable[[], None]) -> None:
    """Call ``callback`` in each worker, before it serves anything."""
    if worker_id():  # --lazy-apps: we are in the worker, and past its hooks
        callback()
        return

    def call() -> None:
        if worker_id():  # not in a mule or a spooler
            callback()

    try:
        # It owns the hook from its import on, which may come after ours.
        from uwsgidecorators import postfork_chain
    except Exception:  # it refuses to be imported without a master
        previous = getattr(uwsgi, "post_fork_hook", None)

        def hook() -> None:
            if previous is not None:
                previous()
            call()

        uwsgi.post_fork_hook = hook
    else:
        postfork_chain.append(call)


def has_metric(name: str) -> bool:
    """Return whether uWSGI has a metric that workers may set; from any thread."""
    return _change_metric("uwsgi_metric_inc", name, 0)


def set_metric(name: str, value: int) -> None:
    """Set one of uWSGI's metrics, if there is such; from any thread."""
    _change_metric("uwsgi_metric_set", name, value)


def _change_metric(function: str, name: str, value: int) -> bool:
    # Not by the functions for Python: except with uWSGI's own loop they let go of the GIL by
    # PyGILState_Release (plugins/greenlet, gevent, asyncio), which in a thread that is not uWSGI's
    # ends the state of that thread.
    change = getattr(_library(), function, None)  # core/metrics.c
    if change is None:
        return False
    change.argtypes = ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int64
    return bool(change(name.encode(), None, value) == 0)


@cache
def _library() -> Any:
    """Return uWSGI's functions for C, also where it is a module of Python's."""
    module = sys.modules.get("pyuwsgi")
    path = getattr(module, "__file__", None)
    return C if path is None else ctypes.CDLL(path)


def shared_area(number: int, position: int) -> bytes:
    """Return what a shared area holds from ``position`` on.

    https://uwsgi-docs.readthedocs.io/en/latest/SharedArea.html
    """
    return bytes(uwsgi.sharedarea_memoryview(number)[position:])


def websocket_api() -> Any:
    """Return uWSGI's own WebSocket functions, for ``UWSGIWebSocketClient``."""
    return uwsgi
