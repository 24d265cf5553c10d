"""uWSGI's plain async mode: a request waits by telling uWSGI for which descriptors, and suspending.

There is no loop to call us back, so what is beside the requests is the helper thread of the
``threads`` engine.
"""

from __future__ import annotations

import os
import time
from _socket import socket as Socket
from _thread import allocate_lock, get_ident
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ..codec import Protocol
from .blocking import BlockingConnection
from .connection import Limits
from .threads import ThreadsConnection, ThreadsEngine, ThreadsWorker, acquire

#: Seconds between two looks of a request that waits for another request's receive.
POLL = 0.05


class SuspendConnection(ThreadsConnection):
    """A connection whose waiting suspends the request."""

    __slots__ = ("_thread", "_wait")

    def __init__(
        self,
        sock: Socket,
        protocol: Protocol,
        limits: Limits,
        worker: ThreadsWorker,
    ) -> None:
        super().__init__(sock, protocol, limits, worker)
        self._thread = get_ident()
        self._wait = worker.host.wait_for_descriptors

    # The quick way of threads blocks in recv.
    receive_blocking = BlockingConnection.receive_blocking

    def _block_for_input(self, ready: Callable[[], bool], deadline: float | None) -> None:
        if get_ident() != self._thread:  # no request to suspend: block
            super()._block_for_input(ready, deadline)
            return
        while not ready():
            # Held while suspended: what the helper thread read, uWSGI would not wake us for.
            for acquired in acquire(self._reading, POLL):
                if acquired:
                    try:
                        self.read()
                        if not ready():
                            self._suspend((self.fd,), (), deadline)
                    finally:
                        self._reading.release()
                else:
                    self._suspend((), (), time.monotonic() + POLL)  # another request receives

    def _block_for_output(self, ready: Callable[[], bool], deadline: float | None) -> None:
        if get_ident() != self._thread:
            super()._block_for_output(ready, deadline)
            return
        while not ready():
            self.flush()
            self._peek()
            if not ready():
                # Readable too, unless enough has been read ahead.
                readable = () if self._read_pausing else (self.fd,)
                self._suspend(readable, (self.fd,), deadline)

    def _block_for(self, seconds: float) -> None:
        # The first pauses are too short to be worth an alarm.
        if get_ident() != self._thread or seconds < POLL:
            super()._block_for(seconds)
            return
        with suppress(TimeoutError):
            self._suspend((), (), time.monotonic() + seconds)

    def _suspend(
        self, readable: tuple[int, ...], writable: tuple[int, ...], deadline: float | None
    ) -> None:
        # uWSGI waits for each descriptor once: a duplicate stands for the other direction.
        duplicate = os.dup(self.fd) if readable and writable else -1
        if duplicate >= 0:
            writable = (duplicate,)
        try:
            if deadline is None:
                self._wait(readable, writable)
                return
            if deadline <= time.monotonic():
                raise TimeoutError
            # uWSGI's own timeouts are whole seconds.
            alarm = _Alarm()
            self.worker.call_later(deadline - time.monotonic(), alarm.ring)
            try:
                self._wait((*readable, alarm.fd), writable)
            finally:
                alarm.close()
        finally:
            if duplicate >= 0:
                os.close(duplicate)


class _Alarm:
    """A descriptor that becomes readable when it rings."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = allocate_lock()

    def ring(self) -> None:
        with self._lock:
            if self.fd >= 0:
                os.eventfd_write(self.fd, 1)

    def close(self) -> None:
        with self._lock:
            os.close(self.fd)
            self.fd = -1


class SuspendEngine(ThreadsEngine):
    """A suspendable request of uWSGI's async mode."""

    name = "suspend"

    def prepare(self) -> None:
        """Nothing: uWSGI stops this engine at once, whatever its requests do."""

    @contextmanager
    def request(self) -> Iterator[None]:
        yield

    def _make_connection(
        self, sock: Socket, protocol: Protocol, limits: Limits, worker: ThreadsWorker
    ) -> SuspendConnection:
        return SuspendConnection(sock, protocol, limits, worker)
