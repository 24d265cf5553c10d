"""Threads, and the greenlets and Tasks in them: which one runs, and how one waits."""

from __future__ import annotations

import math
import sys
import time
from _thread import get_ident
from collections.abc import Callable, Iterator
from importlib import import_module
from types import FrameType
from typing import Any

#: Seconds between two looks.
_PAUSE = 0.01


def caller() -> list[Any]:
    """Return the thread, and the greenlet and the Task where there are any, that call this.

    Whoever compares two of them has to do so while the first one lives. It is no tuple: of one that
    refers to a greenlet which runs, the garbage collector believes that it refers to nothing, and
    from then on never frees a greenlet that refers back to it.
    """
    greenlet, asyncio = sys.modules.get("greenlet"), sys.modules.get("asyncio")
    loop = asyncio._get_running_loop() if asyncio is not None else None
    return [
        get_ident(),
        greenlet.getcurrent() if greenlet is not None else None,
        asyncio.current_task(loop) if asyncio is not None and loop is not None else None,
    ]


def is_of_module(frame: FrameType) -> bool:
    """Return whether a frame is a module's, and the first one of its thread.

    That of the script which has called ``pyuwsgi.run()`` stays there for as long as uWSGI runs.
    """
    return frame.f_back is None and frame.f_code.co_name == "<module>"


def looks(is_over: Callable[[], object], seconds: float = math.inf) -> Iterator[float]:
    """Give the pause until the next look at what wakes nobody, until it is over or the time is."""
    deadline = time.monotonic() + seconds
    while not is_over() and time.monotonic() < deadline:
        yield _PAUSE


def wait_until(
    is_over: Callable[[], object],
    seconds: float = math.inf,
    sleep: Callable[[float], object] | None = None,
) -> None:
    """Wait for what wakes nobody: look every 10 ms, for some seconds at most.

    :param sleep: ``time.sleep`` unless given: gevent's, if its patch was applied.
    """
    for pause in looks(is_over, seconds):
        (sleep or time.sleep)(pause)


def threads_are_greenlets() -> bool:
    """Return whether gevent has replaced the threads of this process."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def is_patched() -> bool:
    """Return whether gevent or eventlet has replaced threads, so that who waits lets others run."""
    patcher = sys.modules.get("eventlet.patcher")
    return threads_are_greenlets() or (
        patcher is not None and bool(patcher.is_monkey_patched("thread"))
    )


def unpatched(module: str, name: str) -> Any:
    """Return a function as it was before the patch of gevent: for real threads, or to block all.

    Or that of eventlet, with which there may be publishers, but no servers.
    """
    if (patcher := sys.modules.get("eventlet.patcher")) is not None:
        return getattr(patcher.original(module), name)
    if (monkey := sys.modules.get("gevent.monkey")) is not None:
        return monkey.get_original(module, name)
    return getattr(import_module(module), name)
