"""Threads and processes: the handler's own thread reads; one helper thread does the rest.

A handler that is in ``receive()`` blocks in ``recv``: nothing stands between it and the
descriptor. For all the others one daemon thread in each process has an epoll: it flushes what
a slow peer left queued, reads for connections whose handler is busy elsewhere, and keeps the
clock of the heartbeats.
"""

from __future__ import annotations

import heapq
import threading
import time
from _socket import socket as Socket
from _thread import LockType, allocate_lock
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, suppress
from itertools import count
from typing import Any, cast

from ..codec import Protocol
from ..connection.base import MSG_DONTWAIT, Message
from ..connection.blocking import BlockingConnection, run_to_end
from ..connection.limits import Limits
from ..connection.worker import Worker
from ..helpers.log import logger
from ..helpers.threads import wait_until
from ..process.server_process import ServerProcess
from ..process.signals import RELOAD_SIGNAL, StopSignals, block_stop_signals
from ._poller import READ, WRITE, make_poller, wait_readable
from ._threads_stop import GracefulStop
from .base import Engine

#: Bytes that lie ready for the next read of a thread that waits, until its connection has once sent
#: more at a time: a message of 4 KiB fits in. With the whole read size, a thousand threads would in
#: time have touched 64 MiB that they hardly use.
SMALL_READ_SIZE = 6144


class ThreadsWorker(Worker):
    """The connections of this process, and the thread that looks after them."""

    def __init__(self, process: ServerProcess) -> None:
        super().__init__(process)
        self.signals: StopSignals | None = None
        self.stopped = threading.Event()
        self._poller = make_poller()
        self._watched: dict[int, ThreadsConnection] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()  # timers of the same moment keep their order
        self._lock = threading.Lock()

    def start(self) -> None:
        super().start()
        threading.Thread(target=self._run, name="websocket-helper", daemon=True).start()

    def close_all(self, code: int) -> None:
        super().close_all(code)
        self.stopped.set()

    def reload(self) -> None:
        if self.signals is not None:
            self.signals.tell(RELOAD_SIGNAL)

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        timer = (time.monotonic() + delay, next(self._number), callback)
        with self._lock:
            heapq.heappush(self._timers, timer)
            is_next = self._timers[0] is timer
        if is_next:
            self._poller.wake()  # the thread may be waiting for longer

    def watch(self, connection: ThreadsConnection, events: int) -> None:
        """Call the connection once, when any of ``events`` happens; replaces an earlier watch."""
        with self._lock:
            if connection.released:
                return
            if connection.fd in self._watched:
                self._poller.change(connection.fd, events)
            else:
                self._watched[connection.fd] = connection
                self._poller.add(connection.fd, events)

    def unwatch(self, connection: ThreadsConnection) -> None:
        """Forget a connection, for good."""
        with self._lock:
            if self._watched.pop(connection.fd, None) is not None:
                self._poller.remove(connection.fd)

    def leave_to_parent(self) -> None:
        self._lock = threading.Lock()
        self._poller = make_poller()
        self._watched.clear()
        super().leave_to_parent()

    def _run(self) -> None:
        block_stop_signals()  # they are for others
        while True:
            try:
                for fd, events in self._poller.wait(self._next_timer()):
                    connection = self._watched.get(fd)
                    if connection is not None:
                        connection.happened(events)
                self._run_timers()
            except Exception:
                # Whatever it was, the other connections still need this thread.
                logger.exception("the WebSocket helper thread goes on after an error")

    def _next_timer(self) -> float:
        with self._lock:
            wait = self._timers[0][0] - time.monotonic() if self._timers else self.tick_interval
        return min(max(wait, 0), self.tick_interval)

    def _run_timers(self) -> None:
        while True:
            with self._lock:
                if not self._timers or self._timers[0][0] > time.monotonic():
                    return
                callback = heapq.heappop(self._timers)[2]
            callback()


class ThreadsConnection(BlockingConnection):
    """A connection whose waiting blocks the calling thread."""

    worker: ThreadsWorker

    __slots__ = ("_next_read_size", "_reading", "_waiting", "fd")

    def __init__(
        self, sock: Socket, protocol: Protocol, limits: Limits, worker: ThreadsWorker
    ) -> None:
        super().__init__(sock, protocol, limits, worker)
        sock.setblocking(bool(MSG_DONTWAIT))  # without it each call would block
        self.fd = sock.fileno()
        self._next_read_size = SMALL_READ_SIZE
        self._reading = allocate_lock()  # held by whoever reads
        self._waiting: list[LockType] = []  # a lock of each thread in _block_for_output

    def receive_blocking(self, timeout: float | None = None) -> Message | None:
        """:meth:`receive`, in few steps for a handler that waits for message after message.

        They are taken with the GIL held, and threads that meet at it cost each other ten times
        what the steps do.
        """
        if timeout is not None:
            return super().receive_blocking(timeout)
        waited = False
        while not self._messages and not self.ended:
            waited = True
            with self._reading:
                if self._messages:  # another thread has read
                    continue
                if not self._wants_more():
                    break
                data = self._read_once(None)
                if data is None:
                    continue
                message = self.protocol.whole_message(data)
                if message is not None and not self.ended:
                    self._saw_traffic = self._replying = True
                    return message
                self._received(data, self.protocol.receive_frames)
        message = self.take()
        return self._receive(waited) if message is None else message

    def _block_for_input(self, ready: Callable[[], bool], deadline: float | None) -> None:
        late = False
        while not ready():
            # Whoever sends without pause always has something to read, and is late all the same.
            if late:
                raise TimeoutError
            for acquired in acquire(self._reading, _left(deadline)):
                if acquired:
                    try:
                        if not ready():
                            data = self._read_once(deadline)
                            if data is not None:
                                self._received(data, self.protocol.receive_data)
                    finally:
                        self._reading.release()
                else:
                    raise TimeoutError
            late = deadline is not None and time.monotonic() >= deadline

    def _read_once(self, deadline: float | None) -> bytes | None:
        """What the peer has sent, empty once it is gone; None where nothing came after all."""
        if deadline is not None:
            if not wait_readable(self.fd, _left(deadline)):
                raise TimeoutError
        elif not MSG_DONTWAIT:
            wait_readable(self.fd, None)
        try:
            data = self._recv(self._next_read_size)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return b""
        if len(data) == self._next_read_size:
            self._next_read_size = self._read_size
        return data

    def _peek(self) -> None:
        for acquired in acquire(self._reading, 0):
            if acquired:
                try:
                    self.read()
                finally:
                    self._reading.release()

    def _block_for_output(self, ready: Callable[[], bool], deadline: float | None) -> None:
        woken = allocate_lock()  # held until somebody wakes us
        woken.acquire()
        try:
            self._waiting.append(woken)
            self._watch()
            while not ready():
                if not woken.acquire(timeout=_left(deadline)):
                    self._give_up(ready)
        finally:
            with suppress(ValueError):  # it was interrupted before that
                self._waiting.remove(woken)

    def _block_for(self, seconds: float) -> None:
        time.sleep(seconds)

    def _wake(self) -> None:
        for woken in tuple(self._waiting):
            with suppress(RuntimeError):  # it was woken already
                woken.release()

    def _watch_reading(self, on: bool) -> None:
        """Nothing to do: a handler reads by itself; the helper asks before it reads."""

    def _watch_writing(self) -> None:
        self._watch()

    def _watch(self) -> None:
        """Have the helper thread do what no other thread does now."""
        events = WRITE if self._unsent else 0
        if not (self._reading.locked() or self._read_pausing or self._end_of_file):
            events |= READ
        if events:
            self.worker.watch(self, events)

    def _unwatch_in_child(self) -> None:
        self._reading = allocate_lock()
        self._waiting = []

    def _unwatch(self) -> None:
        self.worker.unwatch(self)
        # A thread in recv leaves it now (the descriptor is shut down): don't close it under it.
        for acquired in acquire(self._reading, 1):
            if acquired:
                self._reading.release()

    def happened(self, events: int) -> None:
        """In the helper thread: the descriptor is ready for what was watched."""
        if events & ~WRITE:
            self._peek()
        if events & ~READ:
            self.flush()
        if events & ~WRITE:
            self._watch()

    def tick(self, now: float) -> None:
        super().tick(now)
        self._watch()


def acquire(lock: LockType, timeout: float) -> Iterator[bool]:
    """Try to acquire a lock; for a `for` statement, whose body releases it.

    That takes the one result without a moment in which an exception from another thread may strike,
    which there is between a call of acquire() and a `try`: so let nothing stand between `for`, `if`
    and `try`. A with statement has none either, but no timeout.

    :param timeout: 0 not to wait, -1 to wait for ever.
    """
    return map(lock.acquire, (True,), (timeout,)) if timeout else map(lock.acquire, (False,))


def _left(deadline: float | None) -> float:
    """Seconds until ``deadline``, as a lock's timeout: -1 is for ever."""
    return -1 if deadline is None else max(deadline - time.monotonic(), 0)


class ThreadsEngine(Engine):
    """A thread, or a process, for each request."""

    name = "threads"

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

    def when_serving(self, callback: Callable[[], object]) -> None:
        self.call_after(lambda: wait_until(self.process.is_serving), callback)

    def call_after(self, wait: Callable[[], None], callback: Callable[[], object]) -> None:
        def run() -> None:
            wait()
            callback()

        threading.Thread(target=run, name="websocket-start", daemon=True).start()

    def start_task(self, work: Callable[[], Any], timeout: float) -> threading.Thread:
        worker = self.worker()

        def run() -> None:
            try:
                work()
            finally:
                worker.tasks.pop(thread, None)

        thread = threading.Thread(target=run, name="websocket-task", daemon=True)
        worker.add_task(thread, lambda: None, timeout)
        self._stop.expect_tasks()
        thread.start()
        return thread

    def sleep(self, seconds: float) -> None:
        """Wait; in background work only until the worker stops, which ends it.

        :raises SystemExit: in background work, when the worker stops.
        """
        worker = self.worker()
        if threading.current_thread() not in worker.tasks:
            time.sleep(seconds)
        elif worker.stopped.wait(seconds):
            raise SystemExit

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        run_to_end(coroutine)

    def worker(self) -> ThreadsWorker:
        return cast(ThreadsWorker, super().worker())

    def _make_worker(self) -> ThreadsWorker:
        worker = ThreadsWorker(self.process)
        worker.signals = self._stop.signals
        return worker

    def _make_connection(
        self, sock: Socket, protocol: Protocol, limits: Limits, worker: ThreadsWorker
    ) -> ThreadsConnection:
        return ThreadsConnection(sock, protocol, limits, worker)
