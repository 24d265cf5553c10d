"""asyncio: a reader callback on the loop for each connection; tasks wait for futures."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import threading
import time
from asyncio import current_task
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import coroutine
from typing import Any, TypeVar, cast

import greenlet

from ..connection.base import Message
from ..connection.detached import Application, Body
from ..connection.receiving import ENDS_TOLD
from ..connection.states import LOST
from ..connection.worker import leave_alone, run_last
from ..helpers.log import log_exception
from ..process.server_process import ServerProcess
from ._driver import PARKED, Driver
from .async_call import finish_within, runs_here
from .asyncio_detached import AsyncioDetachedRequest
from .asyncio_loop import end_loop, in_request, in_task, make_loop
from .asyncio_worker import AsyncioWorker
from .base import Engine
from .loop import LoopConnection

T = TypeVar("T")


class AsyncioConnection(LoopConnection):
    """A connection whose waiting awaits a future."""

    worker: AsyncioWorker

    __slots__ = ("_loop",)

    def __init__(self, *opened: Any) -> None:
        super().__init__(*opened)
        self._loop = self.worker.loop

    @coroutine
    def next_message(
        self, deadline: float | None = None
    ) -> Generator[Any, Message | None, Message]:
        """Return the next message, for an ``__anext__``.

        All in one frame: a handler's send and each of its waits go through every frame that
        awaits this one.

        :raises StopAsyncIteration: once the connection has ended.
        :raises TimeoutError: when none has come at ``deadline``.
        """
        waited = False
        while not self._messages and self._wants_more():
            waited = True
            driver = None
            if self._waiter is None and deadline is None:
                driver = self.worker.drivers.get(current_task(self._loop))
            if driver is None:
                yield from self._wait_input(self._receivable, deadline)
                continue
            self._waiter = driver
            try:
                message = yield PARKED
            finally:
                self._waiter = None
            if message is not None:
                self._replying = True
                return message
        message = self.take()
        if message is None:
            yield from self._tell_end(waited)
            raise StopAsyncIteration
        return message

    async def receive(self, timeout: float | None = None) -> Message | None:
        """Return the next message, or None at the end, as ``receive_blocking`` does elsewhere."""
        deadline = None
        if timeout is not None:
            deadline = time.monotonic() + timeout
            if timeout <= 0:
                await self._pause(0)  # somebody who polls in a loop must let others run
        try:
            return await self.next_message(deadline)
        except StopAsyncIteration:
            return None

    @coroutine
    def _wait_input(
        self, ready: Callable[[], bool], deadline: float | None
    ) -> Generator[Any, None, None]:
        while not ready():
            future = self._loop.create_future()
            timer = None
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    self._give_up(ready)
                    return
                timer = self._loop.call_later(left, _wake_one, future)
            self._waiting.append(future)
            try:
                yield from future
            finally:
                self._waiting.remove(future)
                if timer is not None:
                    timer.cancel()

    _wait_output = _wait_input

    def receive_nowait(self) -> Message | None:
        message = self._take_or_read()
        if message is not None or not self.ended:
            return "" if message is None else message
        # No pause: plain functions cannot wait for the loop.
        self._ends_told += 1
        if self._ends_told > ENDS_TOLD:
            raise self.closed_error()
        return None

    def _pause(self, seconds: float) -> Awaitable[None]:
        return asyncio.sleep(seconds)

    def _arrived(self) -> None:
        if self._waiter is not None:
            self._waiter.switch()
        for future in self._waiting:
            _wake_one(future)

    def _wake(self) -> None:
        waiter = self._waiter
        if not self._waiting and waiter is None:
            return
        if not self.worker.on_loop():
            self.worker.call_soon(self._wake)
            return
        for future in self._waiting:
            _wake_one(future)
        if waiter is not None:
            cast("Driver[Any]", waiter).wake()

    def tick(self, now: float) -> None:
        has_read = self._saw_traffic
        super().tick(now)
        # When a reset follows close on some data, uvloop calls read once for both and never again
        # (libuv stops watching a descriptor that has an error): nobody else sees the reset.
        if has_read and not self._read_pausing and self.state < LOST:
            self.read()


def _wake_one(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _report_late(task: asyncio.Task[Any]) -> None:
    """Log the exception of a task for which no view waits any more."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log_exception("Exception in a coroutine that was abandoned", error=error)


class _Wake:
    """Resumes a request once its Task has ended; a class, since a function weighs more."""

    __slots__ = ("_resume", "came")

    def __init__(self, resume: Callable[[], Any]) -> None:
        self._resume = resume
        self.came = False

    def __call__(self, task: asyncio.Task[Any]) -> None:
        self.came = True
        self._resume()


class AsyncioEngine(Engine):
    """A Task for each handler; the greenlet of the request is parked meanwhile."""

    name = "asyncio"
    worker_class = AsyncioWorker
    connection_class = AsyncioConnection
    killed = (asyncio.CancelledError,)

    def __init__(self, process: ServerProcess) -> None:
        super().__init__(process)
        self._prepared = 0  # the process that has its loop: a fork must not inherit it
        self._loop: asyncio.AbstractEventLoop | None = None

    def prepare(self) -> None:
        """Give the worker a loop: uWSGI asks for the current one, and there is none by itself."""
        if self._prepared == os.getpid():  # by another extension or app
            return
        self._prepared = os.getpid()
        self._loop = loop = make_loop()
        asyncio.set_event_loop(loop)
        # uWSGI's handler of SIGPIPE, installed later than this, crashes the worker once the
        # loop runs.
        loop.call_soon(signal.signal, signal.SIGPIPE, signal.SIG_IGN)
        # From the start on: without our clock and our handlers uWSGI would never replace this
        # worker, and cut its requests at each reload.
        loop.call_soon(self.worker)

    def leave_to_parent(self) -> None:
        super().leave_to_parent()
        if self._loop is not None:
            end_loop(self._loop)
            asyncio.set_event_loop(None)

    def worker(self) -> AsyncioWorker:
        return cast(AsyncioWorker, super().worker())

    def run_detachable(self, application: Application) -> Body:
        detached = AsyncioDetachedRequest(self, application)
        self.process.bind_request(detached)
        return detached.answer()

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        try:  # noqa: SIM105  # suppress() would be kept for each open connection
            self.wait_for(coroutine)
        except asyncio.CancelledError:  # by somebody who cancels all tasks
            pass

    def wait_for(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Park the request whose greenlet calls this until a Task has run the coroutine."""
        # The Task copies the context of the request, and with it Flask's.
        return self._wait_for_task(asyncio.get_running_loop().create_task(coroutine))

    def _wait_for_task(self, task: asyncio.Task[T]) -> T:
        request = greenlet.getcurrent()
        park: Callable[[], None] = self.process.suspend
        resume: Callable[[], Any] = request.switch
        if isinstance(request, AsyncioDetachedRequest):
            park, resume = request.park, request.wake
        wake = _Wake(resume)
        task.add_done_callback(wake)
        try:
            # Not "until the task is done": wake must have switched here, or a later switch would
            # find the request where uWSGI has parked it, and crash the worker.
            while not wake.came:
                park()
        finally:
            if not wake.came:  # something was thrown into the request's greenlet
                task.remove_done_callback(wake)
                task.add_done_callback(_report_late)
                task.cancel()
        return task.result()

    def async_loop(self) -> asyncio.AbstractEventLoop:
        # A child of the worker has it no more.
        if self._loop is not None and self._prepared == os.getpid():
            return self._loop
        return super().async_loop()

    def run_async(self, coroutine: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        loop = self.async_loop()
        if not runs_here(loop) or in_task() or not in_request():
            return super().run_async(coroutine, timeout)
        # What the coroutine starts may outlive the request, and would keep its context.
        task = contextvars.Context().run(loop.create_task, finish_within(timeout, coroutine))
        return self._wait_for_task(task)

    def at_end(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        if self._prepared == os.getpid():
            self.worker().at_end.append(work)
        else:
            super().at_end(work)

    def call_at_end(self, callback: Callable[[], None]) -> None:
        async def work() -> None:
            run_last(callback)

        if self._prepared == os.getpid():
            self.worker().at_end.append(work)
        else:
            super().call_at_end(callback)

    def when_serving(self, callback: Callable[[], object]) -> None:
        assert self._loop is not None  # prepared
        self._loop.call_soon(callback)

    def call_after(self, wait: Callable[[], None], callback: Callable[[], object]) -> None:
        worker = self.worker()

        def run() -> None:
            wait()
            worker.call_soon(callback)

        threading.Thread(target=run, name="websocket-start", daemon=True).start()

    def start_task(self, work: Callable[[], Any], timeout: float, finish: bool = False) -> Any:
        loop = self.worker().loop if self._loop is None else self._loop
        if not runs_here(loop):
            loop.call_soon_threadsafe(self.start_task, work, timeout, finish)
            return None
        worker = self.worker()
        # In no context: that of a request would end under it.
        task = contextvars.Context().run(loop.create_task, work())
        task.add_done_callback(lambda _: worker.tasks.pop(task, None))
        worker.add_task(task, leave_alone if finish else task.cancel, timeout)
        return task

    def drive(self, awaitable: Awaitable[T]) -> Awaitable[T]:
        if isinstance(awaitable, Coroutine):
            return Driver(awaitable, self.worker().drivers)
        return awaitable

    def interrupter(self) -> Callable[[], object] | None:
        task = asyncio.current_task()
        return None if task is None else task.cancel
