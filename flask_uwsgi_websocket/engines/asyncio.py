"""asyncio: a reader callback on the loop for each connection; tasks wait for futures."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import select
import signal
import threading
import time
from _socket import socket as Socket
from asyncio import current_task
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from types import coroutine
from typing import Any, TypeVar, cast

import greenlet

from ..codec import Protocol
from ..connection.base import Message
from ..connection.detached import Application, Body, end_late, in_context, report_late
from ..connection.limits import Limits
from ..connection.receiving import ENDS_TOLD
from ..connection.states import LOST
from ..connection.worker import INTERRUPT_TIME, Callback, Worker
from ..helpers.environment import is_on
from ..helpers.log import log_exception, logger
from ..process.server_process import ServerProcess
from ..process.signals import RELOAD_SIGNAL, STOP_SIGNALS, action_of, set_action
from ._driver import PARKED, Driver
from .base import Engine
from .loop import LoopConnection

T = TypeVar("T")


class AsyncioWorker(Worker):
    """The connections of this process' loop."""

    def __init__(self, process: ServerProcess) -> None:
        super().__init__(process)
        self._leaving: asyncio.Task[None] | None = None
        self._stopped_by: int = RELOAD_SIGNAL
        self._theirs: dict[int, Any] = {}  # what uWSGI does on the signals that stop a worker
        self.loop = asyncio.get_running_loop()
        self.thread = self.get_ident()
        self.drivers: dict[asyncio.Task[Any] | None, Driver[Any]] = {}

    def start(self) -> None:
        super().start()
        # By now uWSGI's C handlers are installed; these replace them.
        for signum in STOP_SIGNALS:
            self._theirs[signum] = action_of(signum)
            self.loop.add_signal_handler(signum, self._stop, signum)

    def _stop(self, signum: int) -> None:
        if signum != RELOAD_SIGNAL:  # during a reload, too
            self._stopped_by = signum
        if self._leaving is None:
            for fd in self.process.listeners():
                self.loop.remove_reader(fd)
            self._leaving = self.loop.create_task(self._leave())

    async def _leave(self) -> None:
        self.close_all(self.code_for(self._stopped_by))
        mercy = time.monotonic() + self.process.mercy
        await self._emptied(self.grace)
        self.interrupt_all()
        await self._emptied(INTERRUPT_TIME)
        # uWSGI itself would end at once, with requests that wait for the loop.
        while (
            self._stopped_by == RELOAD_SIGNAL
            and self.process.is_busy()
            and time.monotonic() < mercy
        ):
            await asyncio.sleep(0.01)
        set_action(self._stopped_by, self._theirs[self._stopped_by])
        signal.raise_signal(self._stopped_by)

    async def _emptied(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self.idle and time.monotonic() < deadline:
            await asyncio.sleep(0.01)

    def call_soon(self, callback: Callback) -> None:
        loop = self.loop
        (loop.call_soon if self.on_loop() else loop.call_soon_threadsafe)(callback)

    def _call_later(self, delay: float, callback: Callback) -> None:
        self.loop.call_later(delay, callback)

    def _watch(self, fd: int, read: Callback | None, write: Callback | None) -> None:
        loop = self.loop
        if read is not None:
            loop.add_reader(fd, read)
        else:
            loop.remove_reader(fd)
        if write is not None:
            loop.add_writer(fd, write)
        else:
            loop.remove_writer(fd)


class AsyncioConnection(LoopConnection):
    """A connection whose waiting awaits a future."""

    worker: AsyncioWorker

    __slots__ = ("_loop",)

    def __init__(
        self, sock: Socket, protocol: Protocol, limits: Limits, worker: AsyncioWorker
    ) -> None:
        super().__init__(sock, protocol, limits, worker)
        self._loop = worker.loop

    @coroutine
    def next_message(self) -> Generator[Any, Message | None, Message]:
        """:meth:`receive`, for an ``__anext__``.

        All in one frame: a handler's send and each of its waits go through every frame that
        awaits this one.

        :raises StopAsyncIteration: once the connection has ended.
        """
        waited = False
        while not self._messages and self._wants_more():
            waited = True
            driver = None
            if self._receiver is None:
                driver = self.worker.drivers.get(current_task(self._loop))
            if driver is None:
                yield from self._wait_input(self._receivable, None)
                continue
            self._receiver = driver
            try:
                message = yield PARKED
            finally:
                self._receiver = None
            if message is not None:
                self._replying = True
                return message
        message = self.take()
        if message is None:
            yield from self._tell_end(waited)
            raise StopAsyncIteration
        return message

    async def receive(self, timeout: float | None = None) -> Message | None:
        if timeout is not None:
            return await super().receive(timeout)
        try:
            return await self.next_message()
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

    async def _wait_output(self, ready: Callable[[], bool], deadline: float | None) -> None:
        await self._wait_input(ready, deadline)

    def receive_nowait(self) -> Message | None:
        message = self._take_or_read()
        if message is not None or not self.ended:
            return "" if message is None else message
        # No pause: plain functions cannot wait for the loop.
        self._ends_told += 1
        if self._ends_told > ENDS_TOLD:
            raise self.closed_error()
        return None

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def _arrived(self) -> None:
        if self._receiver is not None:
            self._receiver.switch()
        for future in self._waiting:
            _wake_one(future)

    def _wake(self) -> None:
        receiver = self._receiver
        if not self._waiting and receiver is None:
            return
        if not self.worker.on_loop():
            self.worker.call_soon(self._wake)
            return
        for future in self._waiting:
            _wake_one(future)
        if receiver is not None:
            receiver.wake()

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


def _make_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed and not refused, else that of asyncio's policy."""
    if is_on("FLASK_UWSGI_UVLOOP", default=True):
        with suppress(ImportError):
            from ._uvloop import Loop

            return Loop()
    return asyncio.new_event_loop()


def _end_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Have a child process do nothing for the loop of its parent.

    It would go on with requests that uWSGI keeps in memory which its processes share.
    """
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


def _report_late(task: asyncio.Task[Any]) -> None:
    """Log the exception of a task for which no view waits any more."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log_exception("Exception in a coroutine that was abandoned", error=error)


class AsyncioDetachedRequest(greenlet.greenlet):  # type: ignore[misc]  # untyped
    """Runs a request in a greenlet of its own; see detached.py.

    Whenever the loop runs, uWSGI's greenlet for a request is parked by uWSGI or has ended. So
    until the request is detached, its greenlet parks by having uWSGI's greenlet do it.
    """

    def __init__(self, engine: AsyncioEngine, application: Application) -> None:
        uwsgis = greenlet.getcurrent()
        super().__init__(parent=uwsgis)
        self._context = self.gr_context = contextvars.copy_context()
        self._engine = engine
        self._application = application
        self._loop = asyncio.get_running_loop()
        self._loops_greenlet = uwsgis.parent
        #: None once the request has been let go.
        self._uwsgis: greenlet.greenlet | None = uwsgis
        self._leaving = False  # at the next park

    def run(self) -> Body:
        try:
            body = self._application(self)
            if self._uwsgis is not None:
                return in_context(self._context, body)
            end_late(body)
        except BaseException as error:
            if self._uwsgis is not None:
                raise  # to uWSGI's greenlet, which is the parent
            report_late(error)
        self._engine.worker().carriers.discard(self)
        return ()

    def answer(self) -> Body:
        """Run the request for uWSGI; return its answer, or nothing once it is detached."""
        came = self.switch()
        while not self.dead and self._uwsgis is not None:
            # What uWSGI's own functions wait for brings the loop's switch here too, with nothing.
            if came is PARKED:
                self._engine.process.suspend()
                if self._uwsgis is None:
                    return ()
            came = self.switch()
        return cast(Body, came) if self.dead else ()

    def park(self) -> None:
        """Let the loop run until :meth:`wake`; in the greenlet of the request itself."""
        uwsgis = self._uwsgis
        if uwsgis is None:
            assert self._loops_greenlet is not None
            self._loops_greenlet.switch()
        elif self._leaving:
            self._leave()
            uwsgis.switch()
        else:
            uwsgis.switch(PARKED)

    def wake(self) -> None:
        """Go on after :meth:`park`; for a callback of the loop."""
        (self if self._uwsgis is None else self._uwsgis).switch()

    def detach(self) -> None:
        if greenlet.getcurrent() is self:
            self._leaving = True
        else:
            self._loop.call_soon_threadsafe(self._leave_parked)

    def _leave(self) -> None:
        self._engine.worker().carriers.add(self)
        self._engine.process.unbind_request(self)
        self.parent = self._loops_greenlet
        self._uwsgis = None

    def _leave_parked(self) -> None:
        uwsgis = self._uwsgis
        if uwsgis is not None and not self.dead:
            self._leave()
            uwsgis.switch()


class AsyncioEngine(Engine):
    """A Task for each handler; the greenlet of the request is parked meanwhile."""

    name = "asyncio"
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
        self._loop = loop = _make_loop()
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
            _end_loop(self._loop)
            asyncio.set_event_loop(None)

    def worker(self) -> AsyncioWorker:
        return cast(AsyncioWorker, super().worker())

    def _make_worker(self) -> AsyncioWorker:
        return AsyncioWorker(self.process)

    def _make_connection(
        self, sock: Socket, protocol: Protocol, limits: Limits, worker: AsyncioWorker
    ) -> AsyncioConnection:
        return AsyncioConnection(sock, protocol, limits, worker)

    def carry(self, application: Application) -> Body:
        detached = AsyncioDetachedRequest(self, application)
        self.process.bind_request(detached)
        return detached.answer()

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        with suppress(asyncio.CancelledError):  # by somebody who cancels all tasks
            self.wait_for(coroutine)

    def wait_for(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Park the request whose greenlet calls this until a Task has run the coroutine."""
        request = greenlet.getcurrent()
        park: Callable[[], None] = self.process.suspend
        resume: Callable[[], Any] = request.switch
        if isinstance(request, AsyncioDetachedRequest):
            park, resume = request.park, request.wake
        ended = False

        def wake(_: asyncio.Task[T]) -> None:
            nonlocal ended
            ended = True
            resume()

        # The Task copies the context of the request, and with it Flask's.
        task = asyncio.get_running_loop().create_task(coroutine)
        task.add_done_callback(wake)
        try:
            # Not "until the task is done": wake must have switched here, or a later switch would
            # find the request where uWSGI has parked it, and crash the worker.
            while not ended:
                park()
        finally:
            if not ended:  # something was thrown into the request's greenlet
                task.remove_done_callback(wake)
                task.add_done_callback(_report_late)
                task.cancel()
        return task.result()

    def when_serving(self, callback: Callable[[], object]) -> None:
        assert self._loop is not None  # prepared
        self._loop.call_soon(callback)

    def call_after(self, wait: Callable[[], None], callback: Callable[[], object]) -> None:
        worker = self.worker()

        def run() -> None:
            wait()
            worker.call_soon(callback)

        threading.Thread(target=run, name="websocket-start", daemon=True).start()

    def start_task(self, work: Callable[[], Any], timeout: float) -> Any:
        loop = self._task_loop()
        if not _runs_here(loop):
            loop.call_soon_threadsafe(self.start_task, work, timeout)
            return None
        worker = self.worker()
        # In no context: that of a request would end under it.
        task = contextvars.Context().run(loop.create_task, work())
        task.add_done_callback(lambda _: worker.tasks.pop(task, None))
        worker.add_task(task, task.cancel, timeout)
        return task

    def _task_loop(self) -> asyncio.AbstractEventLoop:
        return self.worker().loop if self._loop is None else self._loop

    def drive(self, awaitable: Awaitable[T]) -> Awaitable[T]:
        if isinstance(awaitable, Coroutine):
            return Driver(awaitable, self.worker().drivers)
        return awaitable

    def interrupter(self) -> Callable[[], None] | None:
        task = asyncio.current_task()
        if task is None:
            return None

        def interrupt() -> None:
            task.cancel()

        return interrupt


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    """Tell whether a loop runs in this thread."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def in_task() -> bool:
    """Whether a Task of the loop is running here, which may await."""
    try:
        return asyncio.current_task() is not None
    except RuntimeError:  # no loop runs in this thread
        return False


def in_request() -> bool:
    """Whether a request's greenlet is running here, which may be parked."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return not in_task() and greenlet.getcurrent().parent is not None
