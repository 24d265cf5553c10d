"""uWSGI's plain async mode: a request waits by telling uWSGI for which descriptors, and suspending.

There is no loop to call us back, so what is beside the requests is the helper thread of the
``threads`` engine. uWSGI keeps the interpreter's lock while it waits in this mode: threads run only
when a request does. So each wait ends after a second, and no timeout depends on the helper thread.
Wherever that lets go of the lock, as each call of the system does, it would wait for it until then
again: so requests give it time to get somewhere.
"""

from __future__ import annotations

import ctypes
import math
import os
import select
import time
from _thread import allocate_lock, get_ident
from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Any, cast

from greenlet import getcurrent

from ..connection.blocking import DONE, BlockingConnection
from ..connection.connection import Connection
from ..connection.sending import Sending
from ..process.server_process import ServerProcess
from ._suspend_stop import CooperativeStop
from ._threads_wait import acquire
from .base import Bell, Engine
from .threads import ThreadsConnection, ThreadsEngine
from .threads_worker import ThreadsWorker

#: Seconds between two looks of a request that waits for another request's receive.
POLL = 0.05
#: Seconds for which a request that waits for another thread blocks the worker, and lets it run.
TURN = 0.002
#: The same for the helper thread, at most, and seconds between two of these.
HELPER_TURN, HELPER_INTERVAL = 0.02, 0.5


class SuspendWorker(ThreadsWorker):
    """The connections of this process, and a thread that hardly runs."""

    _last_turn = 0.0
    #: How it stops, where uWSGI stops it.
    stop: CooperativeStop | None = None

    def heed_stop(self) -> None:
        """Tell all clients if the worker is to stop, in a request that has just waited."""
        if self.stop is not None and self.stop.signum is not None:
            self.stop.heed()

    def give_turn(self) -> None:
        """Do what is due, unless it was just done, and let the helper thread do the same."""
        now = time.monotonic()
        if now - self._last_turn >= HELPER_INTERVAL:
            self._last_turn = now
            self.heed_stop()
            done = allocate_lock()
            done.acquire()
            self.call_soon(partial(self.call_later, 0, done.release))
            done.acquire(timeout=HELPER_TURN)

    def flush_soon(self, connection: Sending) -> None:
        connection.flush()


class SuspendConnection(ThreadsConnection):
    """A connection whose waiting suspends the request."""

    __slots__ = ("_thread", "_wait")
    worker: SuspendWorker

    def __init__(self, *opened: Any) -> None:
        super().__init__(*opened)
        self._thread = get_ident()
        self._wait = self.worker.process.suspend

    # The quick way of threads blocks in recv.
    receive_blocking = BlockingConnection.receive_blocking

    def _wait_input(self, ready: Callable[[], bool], deadline: float | None) -> Awaitable[None]:
        if get_ident() != self._thread:  # no request to suspend: block
            return super()._wait_input(ready, deadline)
        while not ready():
            # Held while suspended: what the helper thread read, uWSGI would not wake us for.
            for acquired in acquire(self._reading, POLL):
                if acquired:
                    try:
                        self._read_or_wait(ready, deadline)
                    finally:
                        self._reading.release()
                else:
                    self._suspend(0, time.monotonic() + POLL)  # another request receives
        return DONE

    def _read_or_wait(self, ready: Callable[[], bool], deadline: float | None) -> None:
        rate = self._rate
        if rate is not None and self._read_pausing:
            self._read_on_at_rate(rate)
        if not self._read_pausing:
            self.read()
        if ready():
            return
        if rate is None or not self._read_pausing:
            self._suspend(select.POLLIN, deadline)
        else:
            now = time.monotonic()
            if deadline is not None and deadline <= now:
                raise TimeoutError
            self._suspend(0, min(deadline or math.inf, now + max(rate.wait(), 0.001)))

    def _wait_output(self, ready: Callable[[], bool], deadline: float | None) -> Awaitable[None]:
        if get_ident() != self._thread:
            return super()._wait_output(ready, deadline)
        while not ready():
            self.flush()
            if not self._read_pausing:
                self._peek()
            if not ready():
                # Readable too, unless enough has been read ahead.
                read = 0 if self._read_pausing else select.POLLIN
                self._suspend(read | select.POLLOUT, deadline)
        return DONE

    def _pause(self, seconds: float) -> Awaitable[None]:
        # The first pauses are too short to be worth a timer.
        if get_ident() != self._thread or seconds < POLL:
            return super()._pause(seconds)
        deadline = time.monotonic() + seconds
        with suppress(TimeoutError):
            while True:
                self._suspend(0, deadline)
        return DONE

    def _close(self) -> None:
        Connection._close(self)  # the helper thread might come to it much later

    def _suspend(self, events: int, deadline: float | None) -> None:
        """Wait for events of the descriptor, a second at most; TimeoutError after the deadline."""
        if deadline is None:  # nobody waits for ever but to read
            self._wait(self.fd, 1)
            self.worker.give_turn()
            return
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        with _timer(min(left, 1)) as timer, select.epoll() as either:
            either.register(timer, select.EPOLLIN)
            if events:
                either.register(self.fd, events)
            self._wait(either.fileno())
        self.worker.heed_stop()


@contextmanager
def _timer(seconds: float) -> Iterator[int]:
    """Give a descriptor that becomes readable then, whichever thread runs.

    uWSGI's own timeouts are whole seconds. (Python has ``os.timerfd_create`` from 3.13 on.)
    """
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    try:
        nanoseconds = max(int(seconds * 1e9), 1)
        # An itimerspec of C's: seconds and nanoseconds, of the repetition and of the first.
        setting = (ctypes.c_long * 4)(0, 0, *divmod(nanoseconds, 10**9))
        libc.timerfd_settime(fd, 0, ctypes.byref(setting), None)
        yield fd
    finally:
        os.close(fd)


class SuspendEngine(ThreadsEngine):
    """A suspendable request of uWSGI's async mode."""

    name = "suspend"
    worker_class = SuspendWorker
    connection_class = SuspendConnection

    prepare = Engine.prepare  # no thread waits for signals: it would not run

    def __init__(self, process: ServerProcess) -> None:
        super().__init__(process)
        self._stop_of_requests = CooperativeStop(self.worker)

    def worker(self) -> SuspendWorker:
        worker = cast(SuspendWorker, super().worker())
        worker.stop = self._stop_of_requests
        return worker

    def request(self) -> AbstractContextManager[None]:
        if not self.process.gives_signals or getcurrent().parent is None:
            return Engine.request(self)
        return self._stop_of_requests.request()

    def _make_bell(self, loop: AbstractEventLoop) -> Bell:
        wait, ring = super()._make_bell(loop)
        # Not in a request's greenlet; or in a child, which must not go on with other requests.
        if getcurrent().parent is None or not self.process.worker_id():
            return wait, ring

        def wait_by_turns(seconds: float | None) -> bool:
            """Let the loop's thread run, then other requests, and so on."""
            deadline = math.inf if seconds is None else time.monotonic() + seconds
            while not (rung := wait(TURN)) and time.monotonic() < deadline:
                self.sleep(TURN)
            return rung

        return wait_by_turns, ring

    def sleep(self, seconds: float) -> None:
        """Let other requests run; in a thread, background work for instance, block it alone."""
        if getcurrent().parent is None or seconds <= 0:  # not in a request's greenlet
            super().sleep(seconds)
            return
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            with _timer(min(left, 1)) as timer:
                self.process.suspend(timer)
            self.worker().heed_stop()
