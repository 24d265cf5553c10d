"""Threads and processes: the handler's own thread reads; one helper thread does the rest.

A handler that is in ``receive()`` blocks in ``recv``: nothing stands between it and the
descriptor. For all the others one daemon thread in each process runs a loop: it flushes what a
slow peer left queued, reads for connections whose handler is busy elsewhere, and keeps the clock of
the heartbeats.
"""

from __future__ import annotations

import errno
import heapq
import selectors
import socket
import threading
import time
from _thread import LockType, allocate_lock
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from itertools import count
from typing import Any, cast

from ..connection.base import Callback, Message
from ..connection.blocking import DONE, BlockingConnection
from ..connection.connection import Connection
from ..connection.fast_io import END_OF_FILE, MSG_DONTWAIT, wait_and_receive
from ..connection.rate import Rate
from ..connection.states import OPEN
from ..connection.worker import Worker, leave_alone
from ..helpers.log import logger
from ..helpers.threads import wait_until
from ..process.server_process import ServerProcess
from ..process.signals import RELOAD_SIGNAL, StopSignals, stop_signals_blocked
from ._threads_stop import GracefulStop
from ._threads_wait import acquire, seconds_left, wait_readable
from .base import Engine
from .loop import WatchedConnection

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
#: What is called for the one, and for the other.
Watch = tuple[Callback | None, Callback | None]
NOTHING: Watch = (None, None)


class ThreadsWorker(Worker):
    """The connections of this process, and the thread that looks after them."""

    def __init__(self, process: ServerProcess) -> None:
        super().__init__(process)
        self.signals: StopSignals | None = None
        self.stopped = threading.Event()
        self._soon: deque[Callback] = deque()
        self._timers: list[tuple[float, int, Callback]] = []
        self._number = count()  # timers of the same moment keep their order
        self._make_selector()

    def _make_selector(self) -> None:
        # Nobody but the loop's thread uses it: an exception that strikes another thread
        # (PyThreadState_SetAsyncExc) in the middle would leave it in two minds.
        self._selector = selectors.DefaultSelector()
        self._alarm, self._bell = socket.socketpair()  # interrupts a wait
        self._alarm.setblocking(False)
        self._bell.setblocking(False)
        self._watched: dict[int, Watch] = {}
        self._watch(self._alarm.fileno(), lambda: self._alarm.recv(4096), None)

    def start(self) -> None:
        super().start()
        with stop_signals_blocked():
            threading.Thread(target=self._run, name="websocket-helper", daemon=True).start()

    def close_all(self, code: int) -> None:
        super().close_all(code)
        self.stopped.set()

    def reload(self) -> None:
        if self.signals is not None:
            self.signals.tell(RELOAD_SIGNAL)
        else:
            self.close_all(1012)

    def call_soon(self, callback: Callback) -> None:
        self._soon.append(callback)
        if not self.on_loop():
            with suppress(BlockingIOError):  # it rings already
                self._bell.send(b"!")

    def _call_later(self, delay: float, callback: Callback) -> None:
        heapq.heappush(self._timers, (time.monotonic() + delay, next(self._number), callback))

    def _watch(self, fd: int, read: Callback | None, write: Callback | None) -> None:
        wanted = read, write
        if self._watched.get(fd, NOTHING) == wanted:
            return
        if self._watched.pop(fd, None):  # not modified: it may have been closed, and be another
            self._selector.unregister(fd)
        events = READ * (read is not None) | WRITE * (write is not None)
        if events:
            try:
                self._selector.register(fd, events)
            except OSError as error:
                if error.errno != errno.EBADF:  # another thread has closed it just now
                    raise
            else:
                self._watched[fd] = wanted

    def leave_to_parent(self) -> None:
        for shared in (self._selector, self._alarm, self._bell):
            shared.close()
        self._make_selector()
        super().leave_to_parent()

    def _run(self) -> None:
        self.thread = self.get_ident()
        while True:
            for fd, events in self._wait():
                self._tell(fd, READ & events, 0)
                self._tell(fd, WRITE & events, 1)
            for _ in range(len(self._soon)):
                self._call(self._soon.popleft())
            self._run_timers(time.monotonic())

    def _wait(self) -> list[tuple[int, int]]:
        wait = self.tick_interval
        if self._soon:
            wait = 0
        elif self._timers:
            wait = min(max(self._timers[0][0] - time.monotonic(), 0), wait)
        try:
            return [(key.fd, events) for key, events in self._selector.select(wait)]
        except OSError:  # where it is select(): a descriptor was closed meanwhile
            return []

    def _tell(self, fd: int, happened: int, index: int) -> None:
        callback = self._watched.get(fd, NOTHING)[index]
        if happened and callback is not None:
            self._call(callback)

    def _run_timers(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            self._call(heapq.heappop(self._timers)[2])

    def _call(self, callback: Callback) -> None:
        try:
            callback()
        except Exception:
            # Whatever it was, the other connections still need this thread.
            logger.exception("the WebSocket helper thread goes on after an error")


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
