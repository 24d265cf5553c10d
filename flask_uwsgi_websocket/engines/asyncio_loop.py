"""The loop of a worker under asyncio: how it is made, ends in a child process, and is found."""

from __future__ import annotations

import asyncio
import gc
import os
import select
from collections import deque
from contextlib import suppress

import greenlet

from ..helpers.checks import is_on
from ..helpers.log import logger


def make_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed and not refused, else that of asyncio's policy."""
    if is_on("FLASK_UWSGI_UVLOOP", default=True):
        with suppress(ImportError):
            from ._uvloop import Loop

            return Loop()
    return asyncio.new_event_loop()


def end_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Have a child process do nothing for its parent's loop, as :func:`.gevent_worker.end_hub`."""
    # What is to run next; uvloop's is to be seen in this way only.
    for queue in [getattr(loop, "_ready", None), *gc.get_referents(loop)]:
        if isinstance(queue, deque):
            queue.clear()
    loop.call_soon(_end_child)
    # An epoll of its own, in place of the one that it shares.
    if not hasattr(select, "epoll"):  # a kqueue is not inherited
        return
    backend = getattr(loop, "_get_backend_id", None)  # uvloop's
    shared = backend() if backend is not None else loop._selector.fileno()  # type: ignore[attr-defined]
    with select.epoll() as own:
        os.dup2(own.fileno(), shared, inheritable=False)


def _end_child() -> None:
    logger.error("a child process that was forked in a coroutine ends: it cannot await")
    os._exit(1)


def in_task() -> bool:
    """Return whether a Task of the loop, which may await, is running here."""
    try:
        return asyncio.current_task() is not None
    except RuntimeError:  # no loop runs in this thread
        return False


def in_request() -> bool:
    """Return whether a request's greenlet, which may be parked, is running here."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return not in_task() and greenlet.getcurrent().parent is not None
