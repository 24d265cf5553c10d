"""The engines in a process of which we know little: of any server but uWSGI."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary, ref

from ..engines.base import Engine
from ..engines.threads import ThreadsEngine
from ..helpers.engines import ENGINES
from ..helpers.threads import wait_until
from ..process.server_process import ServerProcess

#: Seconds for which clients that a stopping process has told to leave are waited for.
LEAVE_TIME = 0.5


class PlainProcess(ServerProcess):
    """A process that we know nothing of, but that it exits some day."""

    def parent_of_workers(self) -> int:
        # gunicorn's arbiter. Other servers are one process.
        return os.getppid() if "gunicorn.arbiter" in sys.modules else os.getpid()

    def _call_at_exit(self, callback: Callable[[], None]) -> None:
        atexit.register(callback)
        # Pools of threads (gunicorn's) are waited for before that, from Python 3.9 on; our handlers
        # in them end when their clients have been told. Twice does no harm.
        with suppress(RuntimeError):  # the process ends already
            getattr(threading, "_register_atexit", atexit.register)(callback)


def plain_engine(name: str, greenlets: bool) -> Engine:
    """Return what runs the handlers of the class made for an engine.

    :param greenlets: whether those that block run in greenlets, not in threads.
    """
    if ENGINES[name].asynchronous:
        return _loop_engine()
    return _gevent_engine() if greenlets else _threads_engine()


def _told_to_leave(engine: Engine) -> Engine:
    """Have an engine tell its clients when the process exits."""
    reference = ref(engine)

    def leave() -> None:
        engine = reference()
        if engine is None:
            return
        worker = engine.worker()
        worker.close_all(1001)
        wait_until(lambda: not worker.connections, LEAVE_TIME)

    engine.process.at_exit(leave)
    return engine


@cache
def _threads_engine() -> Engine:
    return _told_to_leave(ThreadsEngine(PlainProcess()))


@cache
def _loop_engine() -> Engine:
    from ..engines.asyncio_thread import AsyncioThreadEngine

    return _told_to_leave(AsyncioThreadEngine(PlainProcess()))


_gevent_engines: WeakKeyDictionary[Any, Engine] = WeakKeyDictionary()


def _gevent_engine() -> Engine:
    """Return that of this hub, of which there is one in each thread that has greenlets."""
    from gevent import get_hub

    from ..engines.gevent import GeventEngine

    hub = get_hub()
    engine = _gevent_engines.get(hub)
    if engine is None:
        engine = _gevent_engines[hub] = _told_to_leave(GeventEngine(PlainProcess()))
    return engine
