"""Wait outside of a server for what happens on the loop of a native thread."""

from __future__ import annotations

import _socket
import socket
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

from ..engines.async_call import runs_here
from ..engines.async_thread import process_loop
from ..engines.base import WOULD_STOP_LOOP
from ..helpers.threads import is_patched, unpatched

T = TypeVar("T")
_Callback = Callable[[object], None]


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
