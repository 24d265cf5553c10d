"""Runs the coroutine of a handler without a turn of the loop for each message.

A Task that waits costs a future, a callback through the loop's queue, and what the loop does
between the two: as much as all else that a small message costs. A handler spends its life waiting
for messages, so :class:`Driver` lets the callback that has read one run the handler's coroutine on,
there and then, as its Task would: as the current task, in its context. Once it waits for anything
else, or ends, its Task takes over.

https://docs.python.org/3/library/asyncio-extending.html has the functions that make a Task
current: they are meant for whoever runs coroutines in place of the loop.
"""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import Future, Task, current_task
from asyncio.tasks import _enter_task, _leave_task  # type: ignore[attr-defined, unused-ignore]
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any, Generic, TypeVar

from ..connection.receiving import REFUSED

T = TypeVar("T")

#: Yielded by a coroutine to wait for :meth:`Driver.switch` or :meth:`Driver.wake`.
PARKED = object()


class Driver(Generic[T]):
    """Await it in a Task to run a coroutine; :meth:`switch` runs it in the Task's place.

    :param drivers: where a coroutine finds the driver of its Task, while that runs.
    """

    __slots__ = ("_coroutine", "_drivers", "_left", "_loop", "_run", "_send", "_stand_in", "_task")

    def __init__(
        self, coroutine: Coroutine[Any, Any, T], drivers: dict[Task[Any] | None, Driver[Any]]
    ) -> None:
        self._drivers = drivers
        # One context for both ways to run: a Task's own cannot be had before Python 3.12.
        run: Callable[..., Any] = contextvars.copy_context().run
        self._run = run
        self._coroutine = coroutine
        self._send: Callable[[Any], Any] = partial(run, coroutine.send)
        #: What the Task waits for while the coroutine is parked.
        self._stand_in: Future[None] | None = None
        #: Gives or raises what the coroutine left for its Task in :meth:`switch`.
        self._left: Callable[[], Any] | None = None

    def __await__(self) -> Generator[Any, None, T]:
        self._loop = asyncio.get_running_loop()
        task = current_task()
        assert task is not None
        self._task = task
        self._drivers[task] = self
        resume: Callable[[], Any] | None = None
        try:
            while True:
                awaited = self._send(None) if resume is None else resume()
                try:
                    if awaited is PARKED:
                        self._stand_in = self._loop.create_future()
                        try:
                            yield from self._stand_in
                        finally:
                            self._stand_in = None
                    else:
                        yield awaited
                except BaseException as error:
                    resume = self._interrupted(error)
                else:
                    resume, self._left = self._left, None
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        finally:
            del self._drivers[task]

    def _interrupted(self, error: BaseException) -> Callable[[], Any]:
        """Return how to go on where the Task has been cancelled."""
        left, self._left = self._left, None
        if left is None:
            return partial(self._run, self._coroutine.throw, error)
        # The coroutine did it itself, in switch(): what it awaits since is cancelled, as a Task
        # would do it.
        try:
            awaited = left()
        except StopIteration:
            return partial(_raise, error)
        except BaseException:
            return left
        if awaited is None or not awaited.cancel():
            return partial(self._run, self._coroutine.throw, error)
        return left

    def switch(self, value: Any = None) -> object:
        """Run the coroutine on until it waits again. For a callback of the loop.

        Only while it is parked, and what it waits for has come.

        :param value: what the coroutine gets from its ``yield PARKED``.
        :return: ``REFUSED`` where its Task is about to run it, without the value.
        """
        stand_in = self._stand_in
        if stand_in is None or stand_in.done():
            return REFUSED
        send, loop, task = self._send, self._loop, self._task
        _enter_task(loop, task)
        try:
            awaited = send(value)
            if awaited is PARKED:
                return None
            self._left = lambda: awaited
        except BaseException as error:  # StopIteration is its return
            self._left = partial(_raise, error)
        finally:
            _leave_task(loop, task)
        self.wake()
        return None

    def wake(self) -> None:
        """Let the Task go on with the coroutine, parked or not."""
        stand_in = self._stand_in
        if stand_in is not None and not stand_in.done():
            stand_in.set_result(None)


def _raise(error: BaseException) -> Any:
    raise error
