"""Receiving: what the peer sends becomes messages, for the handler or its queue."""

from __future__ import annotations

import socket
import time
from abc import abstractmethod
from collections import deque
from functools import partial
from socket import IPPROTO_TCP, TCP_NODELAY
from typing import Any, Protocol

from ..codec import Close, Event, Fail, Ping, Pong
from ..exceptions import TooManyFrames
from .base import NOTHING, READ_AHEAD, Message
from .fast_io import END_OF_FILE, Received, read, receive
from .heartbeat import Heartbeat
from .rate import Rate, has_gone
from .sending import FIRST_PAUSE
from .states import DISCARDING, OPEN, PENDING

#: None where it isn't Linux: delayed ACKs stay on.
TCP_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)

#: One recv. Larger buffers are mapped and unmapped by malloc at every read.
READ_SIZE = 65536
#: The same where a peer may send compressed: bytes inflate up to a thousand times, and what one
#: read brings is inflated and handled before anybody else's turn.
READ_SIZE_COMPRESSED = 4096
#: Bytes to which one read should inflate then, going by the read before: of a peer that sends
#: zeros a few are read at a time, and one time in a turn.
INFLATED_PER_READ = 128 * 1024
#: Reads in one turn of the loop, so that a fast sender does not starve the others.
READS_PER_TURN = range(16)
#: Seconds for the same: pings and fragments of a few bytes cost far more than they weigh.
TURN_TIME = 0.005
#: Seconds for which what one read brings may be parsed. Of a peer that takes longer, since it sends
#: frames of a few bytes, less is read at a time, but so much at least.
PARSE_TIME = 0.001
SMALLEST_READ = 4096
#: Seconds between two looks whether a peer has gone that we let wait.
LOOK_INTERVAL = 0.5
#: What a message costs beside its payload: the object, and its place in the queue.
MESSAGE_COST = 64
#: Receives that give None after the end; later ones raise. A handler that heeds no None, or
#: receives in a loop around its iteration, would otherwise go round for ever.
ENDS_TOLD = 2
#: The second of them pauses for FIRST_PAUSE seconds, so that others run; each later one pauses for
#: twice as long as the one before, and none for longer than this.
LONGEST_PAUSE = 1.0

#: Given by the ``switch`` of a waiter that did not take the message.
REFUSED = NotImplemented


class Waiter(Protocol):
    """A handler that waits for a message: a greenlet, or what runs a Task on."""

    def switch(self, message: Any = ..., /) -> object:
        """Run it on until it waits again, with a message or to look again.

        :return: :data:`REFUSED` where it is about to run by itself, without the message.
        """


class Receiving(Heartbeat):
    """The receiving half of a connection."""

    __slots__ = ("_ends_told", "_inflated", "_quick_ack", "_read_size", "_waiter")

    def __init__(self, *opened: Any) -> None:
        super().__init__(*opened)
        self._waiter: Waiter | None = None
        self._read_size = READ_SIZE_COMPRESSED if self.protocol.deflate else READ_SIZE
        if self._rate is not None:
            self._read_size = min(self._read_size, self._rate.fit(0, 0))
        self._inflated = 0  # of the protocol's, before the last read
        self._ends_told = 0  # how many receives have been told of the end
        try:
            self.socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        except OSError:  # a UNIX socket
            self._quick_ack = False
        else:
            self._quick_ack = True

    async def _tell_end(self, waited: bool = False) -> None:
        """Prepare a receive to give None, since the connection has ended.

        The first None is free. The second comes after a pause, and then there are no more, so that
        a handler that heeds none of them ends, and until then keeps nobody from running; nor does
        one that goes round for ever because it swallows all exceptions.

        :param waited: whether the receive began before the end. There may be several of those,
            and none of them knows better.
        :raises ConnectionClosed: for those after :data:`ENDS_TOLD`, when they have paused too.
        """
        if waited:
            self._ends_told = max(self._ends_told, 1)
            return
        self._ends_told += 1
        if self._ends_told > 1:
            doublings = min(self._ends_told - 2, 10)  # which is beyond the longest pause
            await self._pause(min(FIRST_PAUSE * 2**doublings, LONGEST_PAUSE))
        if self._ends_told > ENDS_TOLD:
            raise self.closed_error()

    def _wants_more(self) -> bool:
        """Prepare to wait for a message; return False if none can come."""
        self._replying = False
        if self.state is PENDING:
            self._reply_close()
        if self.ended:
            return False
        self._read_ahead = 0
        if self._read_pausing:
            self._resume_reading()
        return True

    @abstractmethod
    def receive_nowait(self) -> Message | None:
        """Return a message that is here, else ``''``; None at the end, as :meth:`_tell_end`."""

    def _take_or_read(self) -> Message | None:
        """Return a message that has been read already, or can be read now."""
        if (message := self.take()) is not None:
            return message
        self._replying = False
        self._resume_reading()
        if not self._read_pausing:
            self._peek()
        if not self._messages:
            self._reply_close()
        return self.take()

    def _receivable(self) -> bool:
        return bool(self._messages) or self.state >= PENDING

    read = read

    def _take_read(self, got: Received) -> None:
        """Deal with what :meth:`read` brought, and go on reading for a while."""
        end_of_turn = None
        for number in READS_PER_TURN:
            if number > 0:
                try:
                    got = receive(self)
                except OSError:
                    got = END_OF_FILE
            if got is None:
                return
            if type(got) is not tuple:  # a message, and no more was there; isinstance() is slow
                self._saw_traffic = True
                waiter = self._waiter
                if waiter is None or self._messages or self.ended or waiter.switch(got) is REFUSED:
                    self._take_in([got], counted=1)  # type: ignore[list-item]
                return
            self._received(got[0])
            read_size = self._read_size
            if len(got[0]) < read_size or read_size < READ_SIZE_COMPRESSED or self._read_pausing:
                return
            now = time.monotonic()
            if end_of_turn is None:
                end_of_turn = now + TURN_TIME
            elif now > end_of_turn:
                return

    def receive_early(self, data: bytes) -> None:
        """Take what the peer has sent, and somebody else has read, before the connection opened."""
        size = self._read_size
        self.traffic.bytes_received += len(data)
        for begin in range(0, len(data), size):
            self._received(data[begin : begin + size])
            if self._inflated > READ_AHEAD and begin + size < len(data):
                # Nobody honest compresses before our answer has told that it may.
                self.start_closing(1008, "too much before the answer")
                break

    def _received(self, data: bytes) -> None:
        """Deal with what the peer sent, empty once it is gone."""
        if not data:
            self._lost()
            return
        self._saw_traffic = True
        if self._rate is not None and self.state is OPEN:
            self._take_at_rate(data, self._rate)
        elif self.protocol.deflate is not None:
            self._take_in(self.protocol.receive_frames(data))
            self._fit_read_size(self.protocol.deflate.inflated, len(data))
        elif len(data) < self._read_size:
            self._take_in(self.protocol.receive_frames(data))
        else:
            self._take_in(self._parse_timed(data))
        if self.state is DISCARDING and self.protocol.close_received:
            self._peer_done()

    def _take_at_rate(self, data: bytes, rate: Rate) -> None:
        """Deal with what the peer sent, and read no more than it may send by now."""
        protocol = self.protocol
        events = protocol.receive_frames(data)
        within = rate.count(events, protocol.small_fragments, self._pinged)
        size = READ_SIZE
        if protocol.deflate is not None:
            self._fit_read_size(protocol.deflate.inflated, len(data))
            size = self._read_size
        self._take_in(events)
        if self.state is not OPEN:
            return
        if within:
            self._read_size = min(size, rate.fit(protocol.missing, protocol.held))
            if rate.wait() > 0:
                self._pause_for_rate(rate)
        else:
            self._peer_ends(protocol.fail(TooManyFrames("too many messages or other frames")))

    def _pause_for_rate(self, rate: Rate) -> None:
        self._pause_reading()
        self._look_later(rate)
        if not rate.limited:
            rate.limited = True
            if self.route is not None:
                self.route.limited()

    def _look_later(self, rate: Rate) -> None:
        """Have it looked before long whether the peer may send more, or has gone."""
        if not rate.timed:
            rate.timed = True
            # Not later, or what has ended long ago would be kept for it.
            delay = min(max(rate.wait(), 0), LOOK_INTERVAL)
            self.worker.call_later(delay, partial(self._look, rate))

    def _look(self, rate: Rate) -> None:
        rate.timed = False
        if not self._read_on_at_rate(rate):
            self._look_later(rate)

    def _read_on_at_rate(self, rate: Rate) -> bool:
        """Read on if the peer may send more; if it has gone, only for ``timeout`` seconds more.

        :return: whether there is nothing to wait for, as far as the rate goes.
        """
        if not self._read_pausing or self.state is not OPEN or rate.wait() <= 0:
            self._resume_reading()
            return True
        if rate.gone_at is None:
            rate.gone_at = time.monotonic() if has_gone(self.fd) else None
        elif time.monotonic() - rate.gone_at > self.limits.timeout:
            self._lost()
        return False

    def _parse_timed(self, data: bytes) -> list[Event]:
        """Parse what has filled a read, and have the next one bring as much as is fair."""
        began = time.monotonic()
        events = self.protocol.receive_frames(data)
        took_long = time.monotonic() - began > PARSE_TIME
        size = self._read_size // 2 if took_long else 2 * self._read_size
        self._read_size = min(max(size, SMALLEST_READ), READ_SIZE)
        return events

    def _fit_read_size(self, inflated: int, size: int) -> None:
        """Let the next read bring about as much as is fair, if it inflates as this one did."""
        growth = max(inflated - self._inflated, 1)
        self._inflated = inflated
        fitting = size * INFLATED_PER_READ // growth
        self._read_size = min(max(fitting, 1), 2 * self._read_size, READ_SIZE_COMPRESSED)

    def _take_in(self, events: list[Event], counted: int = 0) -> None:
        """Deal with what the peer's bytes have said.

        :param counted: how many of the messages :attr:`traffic` has already.
        """
        messages = self._messages
        size = handled = 0
        for event in events:
            if isinstance(event, (str, bytes)):
                if not self.ended:  # after our Close nobody receives any more
                    if messages is NOTHING:
                        messages = self._messages = deque()
                    messages.append(event)
                    size += len(event) + MESSAGE_COST  # inflated, which the data was not
            else:
                self._handle(event)
                handled += 1
        if uncounted := len(events) - handled - counted:
            self.traffic.add_received(uncounted)
        if handled and self._unsent:
            self.flush()  # the pongs, in one write
        if messages:
            self._read_ahead += size
            self._arrived()
            # After a handler that waited has had its turn: loops take long to watch anew.
            if self._messages and self._read_ahead >= self._read_ahead_limit():
                self._pause_reading()
        elif self._quick_ack and TCP_QUICKACK and not self.released and self._expects_more():
            # uWSGI's router waits for the ACK of the last piece before it sends the next.
            self.socket.setsockopt(IPPROTO_TCP, TCP_QUICKACK, 1)

    def _expects_more(self) -> bool:
        """Return whether the peer is in the middle of something."""
        return self.protocol.incomplete or self.protocol.is_sending

    def _arrived(self) -> None:
        """:meth:`_wake`, after :meth:`read` has queued messages."""
        self._wake()

    def _handle(self, event: Ping | Pong | Close | Fail) -> None:
        if isinstance(event, Ping):
            # RFC 6455 5.5.2: "Upon receipt of a Ping frame, an endpoint MUST send a Pong frame
            # in response, unless it already received a Close frame."
            if self.congested:
                # 5.5.3: it may "send a Pong frame for only the most recently processed Ping".
                self._late_pong = event.data
            elif self.state is OPEN:
                with self._lock:
                    self._queue(self.protocol.pong(event.data))
        elif isinstance(event, Pong):
            self._ponged(event.data)
        else:
            self._peer_ends(event)
