"""Have the loop of the native thread do something outside of a server, and wait for that."""

from __future__ import annotations

import _socket
import asyncio
import socket
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context
from typing import Any, TypeVar, cast

from ..engines.async_call import runs_here
from ..engines.async_thread import process_loop
from ..engines.base import WOULD_STOP_LOOP
from ..helpers.threads import is_patched, unpatched
from .futures import uncancellable

T = TypeVar("T")
_Callback = Callable[[object], None]


#: asyncio itself refers to them weakly.
_tasks: set[asyncio.Task[None]] = set()


def start(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    """Run a coroutine on the loop, which settles what it returns: any thread may wait for that."""
    loop, future = process_loop(), cast("Future[T]", uncancellable())

    async def run() -> None:
        try:
            future.set_result(await coroutine)
        except BaseException as error:
            future.set_exception(error)

    def begin() -> None:
        task = loop.create_task(run())
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)

    # In no context, since the Task would keep that of a request.
    loop.call_soon_threadsafe(begin, context=Context())
    return future


def wait_for(future: Future[T], seconds: float) -> T:
    """Wait for a future as whoever calls waits: a greenlet lets the others run.

    :raises TimeoutError: after so many seconds.
    :raises RuntimeError: on the loop that the future is waiting for.
    """
    if not future.done():
        if runs_here(process_loop()):
            raise RuntimeError(WOULD_STOP_LOOP)
        wait = _wait_in_greenlet if is_patched() else _wait_in_thread
        wait(future.add_done_callback, seconds)
    if not future.done():
        raise TimeoutError(f"nothing happened within {seconds} s")
    return future.result()


def _wait_in_thread(
    call_at_end: Callable[[Callable[[object], None]], None], seconds: float
) -> None:
    # Not by the future's own lock, which may be gevent's.
    lock = unpatched("_thread", "allocate_lock")()
    lock.acquire()
    call_at_end(lambda _: lock.release())
    lock.acquire(timeout=seconds)


def _wait_in_greenlet(call_at_end: Callable[[_Callback], None], seconds: float) -> None:
    """Wait for a byte: every library of greenlets knows how, and whom to let run meanwhile."""
    ours, theirs = _socket.socketpair()
    with socket.socket(fileno=ours.detach()) as reader:
        reader.settimeout(seconds)

        def ring(_: object) -> None:
            with suppress(OSError):  # closed, since nobody waits any more
                theirs.send(b"\0")

        call_at_end(ring)
        with suppress(TimeoutError):
            reader.recv(1)
    theirs.close()
