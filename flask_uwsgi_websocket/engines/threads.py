"""Threads and processes: the handler's own thread reads; one helper thread does the rest.

A handler that is in ``receive()`` blocks in ``recv``: nothing stands between it and the
descriptor. For all the others one daemon thread in each process runs a loop: it flushes what a
slow peer left queued, reads for connections whose handler is busy elsewhere, and keeps the clock of
the heartbeats.
"""

from __future__ import annotations

import threading
import time
from _thread import LockType, allocate_lock
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Any, cast

from ..connection.base import Message
from ..connection.blocking import DONE, BlockingConnection
from ..connection.connection import Connection
from ..connection.fast_io import END_OF_FILE, MSG_DONTWAIT, wait_and_receive
from ..connection.rate import Rate
from ..connection.states import OPEN
from ..connection.worker import leave_alone
from ..helpers.threads import wait_until
from ..process.server_process import ServerProcess
from ._threads_stop import GracefulStop
from ._threads_wait import acquire, seconds_left, wait_readable
from .base import Engine
from .loop import WatchedConnection
from .threads_worker import ThreadsWorker


class ThreadsConnection(WatchedConnection, BlockingConnection):
    """A connection whose waiting blocks the calling thread."""

    worker: ThreadsWorker

    __slots__ = ("_reading", "_was_watched")

    def __init__(self, *opened: Any) -> None:
        super().__init__(*opened)
        self.socket.setblocking(bool(MSG_DONTWAIT))  # without it each call would block
        self._was_watched = False
        self._reading = allocate_lock()  # held by whoever reads

    def receive_blocking(
        self, timeout: float | None = None, waited: bool = False
    ) -> Message | None:
        """Receive in few steps, for a handler that waits for message after message.

        They are taken with the GIL held: threads that meet at it cost far more than the steps.
        """
        if timeout is not None:
            return super().receive_blocking(timeout)
        while not self._messages and not self.ended:
            waited = True
            with self._reading:
                if self._messages:  # another thread has read
                    continue
                if not self._wants_more() or self._read_pausing:
                    break
                try:
                    got = wait_and_receive(self)
                except OSError:
                    got = END_OF_FILE
                if type(got) is tuple:
                    self._received(got[0])
                elif got is not None and not self.ended:
                    self._saw_traffic = self._replying = True
                    return got  # type: ignore[return-value]
        message = self.take()
        return super().receive_blocking(None, waited) if message is None else message

    def _wait_input(self, ready: Callable[[], bool], deadline: float | None) -> Awaitable[None]:
        late = False
        while not ready():
            # Whoever sends without pause always has something to read, and is late all the same.
            if late:
                raise TimeoutError
            for acquired in acquire(self._reading, seconds_left(deadline)):
                if acquired:
                    try:
                        if not ready():
                            self._wait_readable(deadline)
                            self.read()
                    finally:
                        self._reading.release()
                else:
                    raise TimeoutError
            late = deadline is not None and time.monotonic() >= deadline
        return DONE

    def _wait_readable(self, deadline: float | None) -> None:
        if self._read_pausing and self._rate is not None:
            self._wait_for_rate(self._rate, deadline)
        if not wait_readable(self.fd, None if deadline is None else seconds_left(deadline)):
            raise TimeoutError

    def _wait_for_rate(self, rate: Rate, deadline: float | None) -> None:
        """Wait until the peer may send more, or the connection ends; else TimeoutError."""
        with self._woken() as woken:
            while self._read_pausing and self.state is OPEN:
                left = max(rate.wait(), 0)
                if deadline is not None:
                    left = min(left, seconds_left(deadline))
                woken.acquire(timeout=left)
                self._resume_reading()
                if self._read_pausing and deadline is not None and not seconds_left(deadline):
                    raise TimeoutError

    def _peek(self) -> None:
        for acquired in acquire(self._reading, 0):
            if acquired:
                try:
                    self.read()
                finally:
                    self._reading.release()

    def _wait_output(self, ready: Callable[[], bool], deadline: float | None) -> Awaitable[None]:
        with self._woken() as woken:
            self._watch_writing()
            while not ready():
                if not woken.acquire(timeout=seconds_left(deadline)):
                    self._give_up(ready)
        return DONE

    @contextmanager
    def _woken(self) -> Iterator[LockType]:
        """Give a lock that is held until somebody wakes us."""
        woken = allocate_lock()
        woken.acquire()
        try:
            self._waiting.append(woken)
            yield woken
        finally:
            with suppress(ValueError):  # it was interrupted before that
                self._waiting.remove(woken)

    def _pause(self, seconds: float) -> Awaitable[None]:
        time.sleep(seconds)
        return DONE

    def _wake(self) -> None:
        for woken in tuple(self._waiting):
            with suppress(RuntimeError):  # it was woken already
                woken.release()

    def _watch_reading(self) -> None:
        """Do nothing: a handler reads by itself; the helper asks before it reads."""

    def _watch(self) -> None:
        self._was_watched = True  # before `released` is looked at: see _close
        super()._watch()

    def _reads(self) -> bool:
        return super()._reads() and not self._reading.locked()  # by whom it holds

    def _unwatch_in_child(self) -> None:
        self._reading = allocate_lock()
        self._waiting = []

    def _close(self) -> None:
        # A thread in recv leaves it now (the descriptor is shut down): don't close it under it.
        for acquired in acquire(self._reading, 1):
            if acquired:
                self._reading.release()
        if self._was_watched:
            super()._close()
        else:  # at once, without waking the helper
            Connection._close(self)

    def _unwatch(self) -> None:
        if self._was_watched:
            super()._unwatch()

    def _readable(self) -> None:
        self._peek()
        self._watch()

    def tick(self, now: float) -> None:
        super().tick(now)
        # Not at once: whoever had the number of our descriptor may not be forgotten yet.
        self.worker.call_soon(self._watch)


class ThreadsEngine(Engine):
    """A thread, or a process, for each request."""

    name = "threads"
    worker_class = ThreadsWorker
    connection_class = ThreadsConnection

    def __init__(self, process: ServerProcess) -> None:
        super().__init__(process)
        self._stop = GracefulStop(process, self.worker)

    def prepare(self) -> None:
        self._stop.prepare()

    def request(self) -> AbstractContextManager[None]:
        return self._stop.request()

    def call_in_background(self, delay: float, callback: Callable[[], None]) -> None:
        # Not in the helper thread, for which all connections would wait.
        thread = threading.Thread(target=callback, name="websocket-beside", daemon=True)
        self.worker().call_later(delay, thread.start)

    def at_end(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        super().at_end(work)
        if self.process.gives_signals:  # and calls no hooks where a request runs
            self.worker().at_end.append(partial(self._end, work))

    def call_at_end(self, callback: Callable[[], None]) -> None:
        super().call_at_end(callback)
        if self.process.gives_signals:  # see at_end
            self.worker().at_end.append(callback)

    def when_serving(self, callback: Callable[[], object]) -> None:
        self.call_after(lambda: wait_until(self.process.is_serving), callback)

    def begin_on_loop(self, callback: Callable[[], object]) -> None:
        # Without one more thread: a signal that reaches it, as no signal does ours, may hang uWSGI.
        worker = self.worker()

        def look() -> None:
            if self.process.is_serving():
                callback()
            else:
                worker.call_later(worker.tick_interval / 10, look)

        worker.run_on_loop(look)

    def call_after(self, wait: Callable[[], None], callback: Callable[[], object]) -> None:
        def run() -> None:
            wait()
            callback()

        threading.Thread(target=run, name="websocket-start", daemon=True).start()

    def start_task(
        self, work: Callable[[], Any], timeout: float, finish: bool = False
    ) -> threading.Thread:
        worker = self.worker()

        def run() -> None:
            try:
                work()
            finally:
                worker.tasks.pop(thread, None)

        thread = threading.Thread(target=run, name="websocket-task", daemon=True)
        worker.add_task(thread, leave_alone, timeout)
        self._stop.expect_tasks()
        thread.start()
        return thread

    def sleep(self, seconds: float) -> None:
        """Wait; in background work only until the worker stops, which ends it by SystemExit."""
        worker = self.worker()
        if threading.current_thread() not in worker.tasks:
            time.sleep(seconds)
        elif worker.stopped.wait(seconds):
            raise SystemExit

    def worker(self) -> ThreadsWorker:
        return cast(ThreadsWorker, super().worker())

    def _make_worker(self) -> ThreadsWorker:
        worker = cast(ThreadsWorker, super()._make_worker())
        worker.signals = self._stop.signals
        return worker
