"""A coroutine that runs on a loop for a caller who waits elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from contextvars import Context
from typing import Any, Generic, TypeVar

from ..helpers.waiting import within

T = TypeVar("T")


class AsyncCall(Generic[T]):
    """A coroutine as a Task on a loop of another thread, in no context of the caller's.

    :param notify: called on the loop when the Task has ended, unless it was abandoned.
    """

    __slots__ = ("_abandoned", "_coroutine", "_loop", "_notify", "_task")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, T],
        loop: asyncio.AbstractEventLoop,
        notify: Callable[[], object],
    ) -> None:
        self._coroutine = coroutine
        self._loop = loop
        self._notify = notify
        self._task: asyncio.Task[T] | None = None
        self._abandoned = False
        # What the coroutine starts may outlive a request, and would keep its context.
        loop.call_soon_threadsafe(self._start, context=Context())

    def _start(self) -> None:
        if self._abandoned:
            self._coroutine.close()
            return
        self._task = self._loop.create_task(self._coroutine)
        self._task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[T]) -> None:
        if self._abandoned:
            _forget_exception(task)
        else:
            self._notify()

    def is_over(self) -> bool:
        """Return whether there is a result."""
        return self._task is not None and self._task.done()

    def abandon(self) -> None:
        """Cancel the coroutine: nobody waits for it any more."""
        self._abandoned = True
        self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None and not self._task.cancel():
            _forget_exception(self._task)

    def result(self) -> T:
        """Return what the coroutine has returned, or raise what it has raised.

        :raises concurrent.futures.CancelledError: where it was cancelled.
        """
        task, self._task = self._task, None  # or its exception would lead back to itself
        assert task is not None
        try:
            return task.result()
        except asyncio.CancelledError:
            raise CancelledError from None
        finally:
            del task


def _forget_exception(task: asyncio.Task[Any]) -> None:
    """Say that nobody asks for it: the caller has had another one."""
    if not task.cancelled():
        task.exception()


def runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether a loop runs in this thread."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


async def finish_within(timeout: float | None, coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine for some seconds; TimeoutError after them."""
    try:
        return await within(timeout, coroutine)
    except asyncio.TimeoutError as error:  # another class than ours before Python 3.11
        raise TimeoutError(*error.args) from error.__cause__
