"""Sending: frames go out at once, or wait in a queue for a peer that does not take them."""

from __future__ import annotations

import time
from _socket import socket as Socket
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from socket import SHUT_WR
from typing import Any, TypeVar

from ..codec.protocol import Frames
from ..exceptions import ConnectionClosed
from .base import NOTHING, ReadAhead
from .fast_io import SEND_FLAGS, send, send_frame
from .states import CLOSED, LOST

M = TypeVar("M")

#: Not on Windows.
HAS_SENDMSG = hasattr(Socket, "sendmsg")
#: Buffers in one sendmsg; Linux takes 1,024 at most (IOV_MAX).
SEND_BUFFERS = 256
#: Seconds for which frames are held back for one write, while more of them come.
CORK_TIME = 0.001
#: Sends on a connection that has ended, after which the sender lets others run: one in a loop that
#: swallows the exceptions. Not after each: who sends to many must not lose time for one of them.
FAILED_SENDS = 256
#: Seconds for which it lets them.
FIRST_PAUSE = 0.01


class Sending(ReadAhead):
    """The sending half of a connection."""

    __slots__ = (
        "_at_drain",
        "_corked_at",
        "_failed_sends",
        "_late_pong",
        "_unsent",
        "_unsent_size",
    )

    def __init__(self, *opened: Any) -> None:
        super().__init__(*opened)
        self._unsent: deque[bytes | memoryview] = NOTHING
        self._unsent_size = 0
        self._corked_at = 0.0
        self._late_pong: bytes | None = None  # for the last ping that came while congested
        self._at_drain: tuple[Callable[[], object], ...] = ()
        self._failed_sends = 0  # since the end

    @abstractmethod
    def abort(self, reason: str = "", code: int = 1006) -> None:
        """Cut the connection, both ways, at once."""

    @abstractmethod
    def _broken(self) -> None:
        """Handle a write that failed; under the lock."""

    # The lock is acquired within the try, since an exception from another thread
    # (PyThreadState_SetAsyncExc) may come right after a call. A with statement has no such moment,
    # but costs twice as much (measured), for each message.
    def post(self, encode: Callable[[M], bytes] | None, message: M, control: bool = False) -> bool:
        """Send a frame, or queue what the peer does not take; never waits.

        One method on purpose: calls are a good part of what a small message costs.

        :param encode: makes the frame; called in the order of the sends (RFC 7692's contexts). None
            for a message whose type says what it is.
        :param control: a control frame, which may go where no data may any more.
        :return: whether so much is queued that the sender should wait for :meth:`drained`.
        :raises ConnectionClosed: the connection has ended.
        """
        lock = self._lock
        try:
            lock.acquire()
            if self.ended and not control:
                raise self.closed_error()
            if self._unsent or (self._messages and self.worker.on_loop()):
                # More messages wait to be answered: reply to all at once.
                frame = (encode or self.protocol.encode)(message)
                if not control:
                    self.traffic.add_sent(1, 0)
                return self._hold_back(frame)
            if encode is None and (is_much := send(self, message)) is not False:
                return is_much is True
            try:
                rest = send_frame(self, (encode or self.protocol.encode)(message), not control)
            except OSError:
                self._broken()
                raise self.closed_error() from None
            return rest is not None and self._queue_rest(rest)
        finally:
            lock.release()

    @property
    def queued(self) -> int:
        """Bytes of frames that wait for the peer to read."""
        return self._unsent_size

    @property
    def congested(self) -> bool:
        """Whether more is queued than a sender may leave there without waiting."""
        return self._unsent_size > self.limits.send_queue_size

    @property
    def _low(self) -> int:
        """How much may be queued when a sender that waits goes on."""
        return self.limits.send_queue_size // 2

    def has_room(self) -> bool:
        """Return whether half of the queue is free, after a try to make room."""
        if self._unsent_size > self._low:
            self.flush()
        return self._unsent_size <= self._low

    async def drained(self) -> None:
        """Wait until half the queue is free; ConnectionClosed if the peer takes nothing or left."""
        try:
            await self._drain(self._low, self.limits.send_timeout)
        except TimeoutError:
            self.cut_slow("the peer does not read", 1006)
        if self.state >= LOST:
            raise self.closed_error()

    def on_drained(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` once half of the queue is free: at once, if it is.

        Not where the connection ends before; see :meth:`on_release`.
        """
        with self._lock:
            if self._unsent_size > self._low:
                self._at_drain += (callback,)
                return
        callback()

    def post_nowait(self, encode: Callable[[M], bytes] | None, message: M) -> None:
        """Do :meth:`post` and never wait: a slow peer is closed (1013), with ConnectionClosed."""
        if self.congested:
            self._close_if_slow()
        self.post(encode, message)

    def push(self, frames: Frames) -> bool:
        """Queue a message that is encoded already, for one write of all in the loop's next turn.

        Goes out in order with what :meth:`post` sends. For those who send many messages to many
        connections at a time: a single one is quicker by :meth:`post_nowait`, and goes at once.

        :return: False when the connection has ended; or ends by this, with 1013, since its peer is
            too slow.
        """
        if self.congested:
            self._close_if_slow()
        with self._lock:
            if self.ended:
                return False
            self._hold_back(frames.for_(self.protocol))
            self.traffic.add_sent(frames.count, 0)
        return True

    def _close_if_slow(self) -> None:
        """Close with 1013 a peer for which too much is queued, unless it takes that now."""
        self.flush()  # what was held back, or what the peer makes room for just now
        if self.congested:
            # A Close frame would stand behind all that the peer did not read.
            self.cut_slow()

    def cut_slow(self, reason: str = "the peer reads too slowly", code: int = 1013) -> None:
        """Cut the connection, as :meth:`abort`, because its peer reads too slowly."""
        was_open = not self.ended
        self.abort(reason, code)
        if was_open and self.route is not None:
            self.route.slowed("closed")

    async def send_failed(self) -> None:
        """Let others run now and then, after a send that :meth:`post` has refused."""
        self._failed_sends += 1
        if self._failed_sends % FAILED_SENDS == 0:
            await self._pause(FIRST_PAUSE)

    def _write_control(self, frame: bytes) -> None:
        """Write a control frame; a peer that is gone by now will be noticed elsewhere."""
        with suppress(ConnectionClosed):
            self.post(bytes, frame, control=True)

    def _queue(self, data: bytes | memoryview) -> None:
        if self._unsent is NOTHING:
            self._unsent = deque()
        self._unsent.append(data)
        self._unsent_size += len(data)

    def _queue_rest(self, data: bytes | memoryview) -> bool:
        """Queue what the peer did not take; return whether that is too much."""
        self._queue(data)
        self._watch_writing()
        return self.congested

    def _hold_back(self, frame: bytes) -> bool:
        """Queue a frame behind others, or for the loop's next turn; return as above."""
        is_first = not self._unsent
        self._queue(frame)
        if is_first:
            self._corked_at = time.monotonic()
            self.worker.flush_soon(self)
        elif self._corked_at and time.monotonic() - self._corked_at > CORK_TIME:
            self.flush()
        return self.congested

    def flush(self) -> None:
        """Write what is queued; for the engine."""
        with self._lock:
            self._corked_at = 0.0
            while self._unsent:
                try:
                    if HAS_SENDMSG and len(self._unsent) > 1:
                        buffers = islice(self._unsent, SEND_BUFFERS)
                        sent = self.socket.sendmsg(buffers, (), SEND_FLAGS)
                    else:
                        sent = self.socket.send(self._unsent[0], SEND_FLAGS)
                except (BlockingIOError, InterruptedError):
                    self._watch_writing()
                    break
                except OSError:
                    self._broken()
                    break
                self._saw_traffic = True
                self._sent(sent)
            else:
                self._flushed()
        if self._senders:
            self._wake()
        if self._at_drain and self._unsent_size <= self._low:
            self._tell_drained()

    def _tell_drained(self) -> None:
        """Call those who wait for the queue by :meth:`on_drained`."""
        with self._lock:
            callbacks, self._at_drain = self._at_drain, ()
        for callback in callbacks:
            callback()

    def _flushed(self) -> None:
        pong, self._late_pong = self._late_pong, None
        if pong is not None and not self.ended:
            self._write_control(self.protocol.pong(pong))
        if self.state is CLOSED:
            self._shutdown(SHUT_WR)

    def _drop_unsent(self) -> None:
        self._unsent.clear()
        self._unsent_size = 0

    def _sent(self, size: int) -> None:
        self.traffic.add_sent(0, size)
        self._unsent_size -= size
        unsent = self._unsent
        while unsent and size >= len(unsent[0]):
            size -= len(unsent.popleft())
        if size:
            unsent[0] = memoryview(unsent[0])[size:]

    async def _drain(self, low: int, patience: float) -> None:
        """Wait until at most ``low`` bytes are queued.

        :raises TimeoutError: when the peer took nothing for ``patience`` seconds.
        """
        self._senders += 1
        try:
            while self._unsent_size > low:
                before = self._unsent_size
                self._resume_reading()
                try:
                    await self._wait_output(
                        lambda: self._unsent_size <= low, time.monotonic() + patience
                    )
                except TimeoutError:
                    if self._unsent_size >= before:
                        raise
        finally:
            self._senders -= 1

    def _give_up(self, ready: Callable[[], bool]) -> None:
        """Do a last time what may make it ready, at a deadline: we may have been held up.

        :raises TimeoutError: when it isn't ``ready()`` after that either.
        """
        self.flush()
        if not self._read_pausing:
            self._peek()
        if not ready():
            raise TimeoutError
