"""The futures by which a backplane's loop tells those who wait in other threads."""

from __future__ import annotations

import asyncio
import threading
from _thread import RLock
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from ..exceptions import BackplaneUnavailable, RoomError
from ..helpers.waiting import within

T = TypeVar("T")


def uncancellable() -> Future[Any]:
    """Make a future that nobody can cancel: what it is for goes on, whoever waits."""
    future: Future[Any] = Future()
    # Its own may have a lock of gevent's, for which the loop would wait for a hub.
    future._condition = threading.Condition(RLock())
    future.set_running_or_notify_cancel()
    return future


def settle(future: Future[Any] | None, error: BaseException | None) -> None:
    """Tell whoever waits, if anybody, that it is done; or why it is not."""
    if future is None:
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(unavailable(error))


def all_done(futures: Sequence[Future[T]], told: Future[T | None]) -> None:
    """Tell a future once others are done: the result of one, None for several, or an error."""
    lock = RLock()
    left = len(futures)

    def count_one(_: Future[T]) -> None:
        nonlocal left
        with lock:
            left -= 1
            is_last = not left
        if not is_last:
            return
        error = next(filter(None, (future.exception() for future in futures)), None)
        if error is not None:
            told.set_exception(error)
        else:
            told.set_result(futures[0].result() if len(futures) == 1 else None)

    for future in futures:
        future.add_done_callback(count_one)


async def bounded(future: Future[T], seconds: float) -> T:
    """Wait for what a future tells; :exc:`.BackplaneUnavailable` where that takes too long."""
    try:
        return await within(seconds, asyncio.wrap_future(future))
    except asyncio.TimeoutError as error:
        raise unavailable(error) from None


def unavailable(error: BaseException) -> BaseException:
    """Make what callers catch of whatever a backplane raised."""
    if isinstance(error, RoomError):
        return error
    is_late = isinstance(error, (TimeoutError, asyncio.TimeoutError))  # one, from 3.11 on
    reason = "it does not answer in time" if is_late else error
    made = BackplaneUnavailable(f"the backplane is not available: {reason}")
    made.__cause__ = error
    return made
