"""The life of one WebSocket connection over a descriptor.

The rules are coroutines. Under asyncio they are awaited as usual. The other engines' waiting
blocks the calling thread or greenlet inside, so that their coroutines never suspend and run in one
go: one set of rules, three ways to wait.

How a connection ends::

    open ──── close(), or the worker stops: we send Close ──► closing ──► ended
      │                                                     (peer's Close, end of file, timeout)
      ├─────── peer's Close, or it breaks the protocol ────► pending ──► ended
      │                          (answered when the handler has come to it, see below; what
      │                          a peer that broke the protocol still sends is discarded first)
      └─────── peer vanished: end of file, reset, no pong ─────────────► ended, code 1006

The peer's Close stands in line behind the messages that came before it: a handler that echoes
gets its last echo out before our Close answers (RFC 6455 5.5.1: an endpoint "MAY delay sending
a Close frame until its current message is sent"), for at most :data:`CLOSE_GRACE` seconds.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from _socket import socket as Socket  # not the class that gevent's monkey patch replaces
from _thread import RLock
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from socket import IPPROTO_TCP, SHUT_RDWR, SHUT_WR, TCP_NODELAY
from typing import TYPE_CHECKING, Any, TypeVar

from ..codec import Close, Event, Fail, Ping, Pong, Protocol
from ..codec.frames import check_close
from ..exceptions import ConnectionClosed
from ..helpers.checks import BYTES, BYTES_OR_NONE, SECONDS, SECONDS_OR_NONE

if TYPE_CHECKING:
    from .worker import Worker

#: None where it isn't Linux: delayed ACKs stay on.
TCP_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
#: 0 on Windows, where sockets are made non-blocking instead.
MSG_DONTWAIT: int = getattr(socket, "MSG_DONTWAIT", 0)
MSG_NOSIGNAL: int = getattr(socket, "MSG_NOSIGNAL", 0)
#: Not on Windows.
HAS_SENDMSG = hasattr(Socket, "sendmsg")

M = TypeVar("M")
Message = str | bytes

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
#: Bytes of messages that wait for the handler before reading pauses.
READ_AHEAD = 256 * 1024
#: The same, in messages of the largest size, while a send waits. uWSGI's http router, and a
#: client that only writes, would deadlock if we did not go on reading then.
READ_AHEAD_WHILE_SENDING = 16
#: What a message costs beside its payload: the object, and its place in the queue.
MESSAGE_COST = 64
#: Seconds of silence after which a peer that broke the protocol, and is not within a frame, is
#: through.
SILENCE = 0.1
#: Seconds for which the answer to the peer's Close waits for the handler's last reply.
CLOSE_GRACE = 1.0
#: Sends never raise SIGPIPE (it kills a uWSGI asyncio worker), and never block.
SEND_FLAGS = MSG_NOSIGNAL | MSG_DONTWAIT
#: Seconds for which replies to messages that came together are held back for one write.
CORK_TIME = 0.001
#: Receives that give None after the end; later ones raise. A handler that heeds no None, or
#: receives in a loop around its iteration, would otherwise go round for ever.
ENDS_TOLD = 2
#: Seconds for which the second of them pauses, so that others run; each later one pauses for twice
#: as long as the one before, and none for longer than the other.
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 1.0
#: Sends on a connection that has ended, after which the sender lets others run: one in a loop that
#: swallows the exceptions. Not after each: who sends to many must not lose time for one of them.
FAILED_SENDS = 256
#: Buffers in one sendmsg; Linux takes 1,024 at most (IOV_MAX).
SEND_BUFFERS = 256

#: The queue of a connection that has not needed one: a deque weighs 760 bytes, and few do.
_NOTHING: deque[Any] = deque(maxlen=0)

# glibc gives blocks above its mmap threshold back to the kernel at once, and each large read
# then pays for fresh pages. Freeing one 4 MiB block raises the threshold (it is dynamic).
bytearray(4 << 20)


#: Given by the ``switch`` of a receiver that did not take the message.
REFUSED = object()


@dataclass(frozen=True)
class Limits:
    """What a connection may cost. Sizes in bytes, times in seconds.

    :raises ValueError: for what they cannot be.
    """

    #: Grace for a closing handshake, and for a handler whose connection has ended.
    timeout: float = 5
    #: Largest message, all fragments together, after decompression.
    max_message_size: int = 1 << 20  # uWSGI's own default for websocket-max-size
    ping_interval: float = 25
    ping_timeout: float = 20
    #: Bytes queued for a peer that does not read, before ``send`` waits.
    send_queue_size: int = 256 * 1024
    #: Longest wait of ``send`` without a byte taken by the peer.
    send_timeout: float = 20

    def __post_init__(self) -> None:
        for name, kind in _LIMITS.items():
            kind.check(name, getattr(self, name))


_LIMITS = {
    "timeout": SECONDS_OR_NONE,
    "max_message_size": BYTES,
    "ping_interval": SECONDS_OR_NONE,
    "ping_timeout": SECONDS,
    "send_queue_size": BYTES_OR_NONE,
    "send_timeout": SECONDS,
}


class Connection(ABC):
    """One WebSocket connection, from after its handshake to the close of its descriptor.

    The engine calls :meth:`read` when the descriptor is readable and :meth:`flush` when it is
    writable; it supplies waiting, and watching the descriptor.
    """

    __slots__ = (
        "_alive_at",
        "_closers",
        "_corked_at",
        "_end_of_file",
        "_ended_at",
        "_ends_told",
        "_failed_sends",
        "_half_close",
        "_inflated",
        "_late_pong",
        "_lock",
        "_messages",
        "_peer_done",
        "_pending",
        "_ping_at",
        "_pinged",
        "_quick_ack",
        "_read_ahead",
        "_read_pausing",
        "_read_size",
        "_receiver",
        "_recv",
        "_replying",
        "_saw_traffic",
        "_send",
        "_send_failed",
        "_senders",
        "_unsent",
        "_unsent_size",
        "at_end",
        "client",
        "close_code",
        "close_reason",
        "ended",
        "interrupt",
        "latency",
        "limits",
        "protocol",
        "released",
        "socket",
        "worker",
    )

    def __init__(self, sock: Socket, protocol: Protocol, limits: Limits, worker: Worker) -> None:
        self.socket = sock
        self.protocol = protocol
        self.limits = limits
        self.worker = worker
        self.close_code: int | None = None
        self.close_reason: str | None = None
        #: Round trip of the last ping, in seconds.
        self.latency: float | None = None
        #: Sends raise, and receives give None once the messages are used up.
        self.ended = False
        #: The descriptor is closed, or about to be: its number may be another connection's.
        self.released = False
        #: Breaks into the handler, wherever it waits. Set while the handler runs.
        self.interrupt: Callable[[], None] | None = None
        #: What its handler knows it as, until it is released: the two refer to each other.
        self.client: Any = None
        #: What the handler wants called once the connection has ended and it is through itself.
        self.at_end: Callable[[], Any] | None = None

        self._lock = RLock()  # against other threads: greenlets and tasks don't switch inside
        self._messages: deque[Message] = _NOTHING
        # A handler that waits for a message: a greenlet, or what runs its Task. Its switch(message)
        # runs it on until it waits again.
        self._receiver: Any = None
        self._pending: Close | Fail | None = None  # the end that stands behind the messages
        self._replying = False  # the handler has a message that it may want to answer
        self._read_ahead = 0  # bytes of messages read since the handler had received all
        self._read_size = READ_SIZE_COMPRESSED if protocol.deflate else READ_SIZE
        self._inflated = 0  # of the protocol's, before the last read
        self._read_pausing = False
        self._peer_done = False  # its Close, a violation or end of file: nothing more to read
        self._end_of_file = False
        self._unsent: deque[bytes | memoryview] = _NOTHING
        self._unsent_size = 0
        self._corked_at = 0.0
        self._late_pong: bytes | None = None  # for the last ping that came while congested
        self._senders = 0  # how many wait for the peer to read
        self._closers = 0  # and how many in the closing handshake
        self._half_close = False  # no more to send once all is flushed
        self._send_failed = False
        self._ended_at = 0.0
        self._ends_told = 0  # how many receives have been told of the end
        self._failed_sends = 0  # since the end
        self._saw_traffic = False  # a sign of life since the last tick
        self._pinged: bytes | None = None  # the payload of the unanswered ping
        self._ping_at = self._alive_at = time.monotonic()

        self._recv = sock.recv
        self._send = sock.send
        try:
            sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        except OSError:  # a UNIX socket
            self._quick_ack = False
        else:
            self._quick_ack = True

    # -- what an engine supplies -------------------------------------------------------

    @abstractmethod
    def _wait_input(self, ready: Callable[[], bool], deadline: float | None) -> Awaitable[None]:
        """Wait until ``ready()``, reading meanwhile; TimeoutError at ``deadline``."""

    @abstractmethod
    def _wait_output(self, ready: Callable[[], bool], deadline: float | None) -> Awaitable[None]:
        """Wait until ``ready()``, writing and reading meanwhile; TimeoutError at ``deadline``."""

    def _give_up(self, ready: Callable[[], bool]) -> None:
        """At a deadline: see first what the kernel has for us, who may have been held up.

        :raises TimeoutError: when it isn't ``ready()`` after that either.
        """
        self.flush()
        self._peek()
        if not ready():
            raise TimeoutError

    @abstractmethod
    def _pause(self, seconds: float) -> Awaitable[None]:
        """Let others run, for so long at least."""

    @abstractmethod
    def _wake(self) -> None:
        """Let everybody who waits on this connection look again; from any thread."""

    @abstractmethod
    def _watch_reading(self, on: bool) -> None:
        """Begin or cease to call :meth:`read`."""

    @abstractmethod
    def _watch_writing(self) -> None:
        """Call :meth:`flush` once the descriptor is writable; from any thread."""

    @abstractmethod
    def _unwatch(self) -> None:
        """Forget the descriptor: it is about to be closed."""

    def _flush_soon(self) -> bool:
        """Call :meth:`flush` in the next turn of the loop; False where there is none."""
        return False

    # -- receiving ---------------------------------------------------------------------

    async def receive(self, timeout: float | None = None) -> Message | None:
        """Return the next message; None once the connection has ended.

        :raises TimeoutError: when ``timeout`` seconds have passed without one.
        :raises ConnectionClosed: as :meth:`_tell_end`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if timeout is not None and timeout <= 0:
            await self._pause(0)  # somebody who polls in a loop must let others run
        waited = False
        while (message := self.take()) is None and self._wants_more():
            waited = True
            await self._wait_input(self._receivable, deadline)
        if message is None and (message := self.take()) is None:
            await self._tell_end(waited)
        return message

    async def _tell_end(self, waited: bool = False) -> None:
        """Before a receive gives None: the connection has ended.

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
        """The handler has taken every message and waits: whether one may still come."""
        self._replying = False
        if self._pending is not None:
            self._reply_close()
        if self.ended:
            return False
        self._read_ahead = 0
        if self._read_pausing:
            self._resume_reading()
        return True

    @abstractmethod
    def receive_nowait(self) -> Message | None:
        """Return a message that is already here, else ``''``; None once the connection has ended.

        :raises ConnectionClosed: as :meth:`_tell_end`.
        """

    def _take_or_read(self) -> Message | None:
        """Return a message that has been read already, or can be read now."""
        if (message := self.take()) is not None:
            return message
        self._replying = False
        self._resume_reading()
        self._peek()
        if not self._messages:
            self._reply_close()
        return self.take()

    def take(self) -> Message | None:
        """A message that has been read already, else None."""
        if not self._messages:
            return None
        try:
            message = self._messages.popleft()
        except IndexError:  # another thread was quicker
            return None
        self._replying = True
        return message

    @abstractmethod
    def _peek(self) -> None:
        """:meth:`read`, where nobody else does it at this moment."""

    def _receivable(self) -> bool:
        return bool(self._messages) or self.ended or self._pending is not None

    def read(self) -> None:
        """Take what the peer has sent. For the engine; one caller at a time."""
        recv, end_of_turn = self._recv, None
        for _ in READS_PER_TURN:
            try:
                data = recv(self._read_size, MSG_DONTWAIT)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            message = self.protocol.whole_message(data)
            if message is None:
                self._received(data, self.protocol.receive_frames)
            else:
                self._saw_traffic = True
                receiver = self._receiver
                if (
                    receiver is None
                    or self._messages
                    or self.ended
                    or receiver.switch(message) is REFUSED
                ):
                    self._take_in([message])
            read_size = self._read_size
            if len(data) < read_size or read_size < READ_SIZE_COMPRESSED or self._read_pausing:
                return
            now = time.monotonic()
            if end_of_turn is None:
                end_of_turn = now + TURN_TIME
            elif now > end_of_turn:
                return

    def receive_early(self, data: bytes) -> None:
        """Take what the peer has sent, and somebody else has read, before the connection opened."""
        size = self._read_size
        for begin in range(0, len(data), size):
            self._received(data[begin : begin + size], self.protocol.receive_data)
            if self._inflated > READ_AHEAD and begin + size < len(data):
                # Nobody honest compresses before our answer has told that it may.
                self.start_closing(1008, "too much before the answer")
                break

    def _received(self, data: bytes, parse: Callable[[bytes], list[Event]]) -> None:
        """Deal with what the peer sent, empty once it is gone.

        :param parse: ``receive_data`` of the protocol, or ``receive_frames``.
        """
        if not data:
            self._lost()
            return
        self._saw_traffic = True
        if self.protocol.deflate is not None:
            self._take_in(parse(data))
            self._fit_read_size(self.protocol.deflate.inflated, len(data))
        elif len(data) < self._read_size:
            self._take_in(parse(data))
        else:
            self._take_in(self._parse_timed(parse, data))
        if self.ended and not self._peer_done and self.protocol.close_received:
            self._end_discarding()

    def _parse_timed(self, parse: Callable[[bytes], list[Event]], data: bytes) -> list[Event]:
        """Parse what has filled a read, and have the next one bring as much as is fair."""
        began = time.monotonic()
        events = parse(data)
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

    def _take_in(self, events: list[Event]) -> None:
        """Deal with what the peer's bytes have said."""
        messages = self._messages
        size, handled = 0, False
        for event in events:
            if isinstance(event, (str, bytes)):
                if not self.ended:  # after our Close nobody receives any more
                    if messages is _NOTHING:
                        messages = self._messages = deque()
                    messages.append(event)
                    size += len(event) + MESSAGE_COST  # inflated, which the data was not
            else:
                self._handle(event)
                handled = True
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
        """Tell whether the peer is in the middle of something."""
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
            elif not self.ended:
                with self._lock:
                    self._queue(self.protocol.pong(event.data))
        elif isinstance(event, Pong):
            if event.data == self._pinged:
                self._pinged = None
                self.latency = time.monotonic() - self._ping_at
        else:
            self._peer_done = isinstance(event, Close)
            if self.ended:
                self._finish_output(event)
            elif self._replying or self._messages:
                self._pending = event
                self.worker.call_later(CLOSE_GRACE, self._reply_close_late)
            else:
                self._pending = event
                self._reply_close()
            self._wake()

    def _read_ahead_limit(self) -> int:
        if self._senders:
            return READ_AHEAD_WHILE_SENDING * self.limits.max_message_size + READ_AHEAD
        return READ_AHEAD

    def _pause_reading(self) -> None:
        if not self._read_pausing:
            self._read_pausing = True
            self._watch_reading(False)

    def _resume_reading(self) -> None:
        """The handler has received all (or a send waits): read on."""
        if not self._messages:
            self._read_ahead = 0
        if self._read_pausing and self._read_ahead < self._read_ahead_limit():
            self._read_pausing = False
            if not self._end_of_file:
                self._watch_reading(True)

    # -- sending -----------------------------------------------------------------------

    def post(self, encode: Callable[[M], bytes], message: M, control: bool = False) -> bool:
        """Send a frame, or queue what the peer does not take; never waits.

        One method on purpose: what a call costs is a good part of what a small message costs.

        :param encode: makes the frame; called in the order of the sends (RFC 7692's contexts).
        :param control: a control frame, which may go where no data may any more.
        :return: whether so much is queued that the sender should wait for :meth:`drained`.
        :raises ConnectionClosed: the connection has ended.
        """
        lock = self._lock
        try:
            # In here, since an exception from another thread (PyThreadState_SetAsyncExc) may come
            # right after a call. A with statement has no such moment, but costs twice as much
            # (measured), for each message.
            lock.acquire()
            if self.ended and not control:
                raise self.closed_error()
            frame = encode(message)
            if self._unsent or (self._messages and self._cork()):
                self._queue(frame)
                if self._corked_at and time.monotonic() - self._corked_at > CORK_TIME:
                    self.flush()
            else:
                try:
                    sent = self._send(frame, SEND_FLAGS)
                except (BlockingIOError, InterruptedError):
                    sent = 0
                except OSError:
                    self._broken()
                    raise self.closed_error() from None
                if sent < len(frame):
                    self._queue(memoryview(frame)[sent:])
                    self._watch_writing()
        finally:
            lock.release()
        return self._unsent_size > 0 and self.congested

    @property
    def congested(self) -> bool:
        """Whether more is queued than a sender may leave there without waiting."""
        return self._unsent_size > self.limits.send_queue_size

    async def drained(self) -> None:
        """Wait until half of the queue is free.

        :raises ConnectionClosed: the peer took nothing for ``send_timeout`` seconds, or left.
        """
        try:
            await self._drain(self.limits.send_queue_size // 2, self.limits.send_timeout)
        except TimeoutError:
            self.abort("the peer does not read")
        if self._end_of_file:
            raise self.closed_error()

    def post_nowait(self, encode: Callable[[M], bytes], message: M) -> None:
        """The same for a sender that will not wait: closes with 1013 a peer that is too slow.

        :raises ConnectionClosed: the connection has ended, or ends by this.
        """
        if self.congested:
            self.flush()  # replies that were held back, or what the peer makes room for just now
        if self.congested:
            # A Close frame would stand behind all that the peer did not read.
            with self._lock:
                self._end(1013, "the peer reads too slowly")
            self.abort()
        self.post(encode, message)

    async def send_failed(self) -> None:
        """After a send that :meth:`post` has refused: let others run now and then."""
        self._failed_sends += 1
        if self._failed_sends % FAILED_SENDS == 0:
            await self._pause(FIRST_PAUSE)

    def _write_control(self, frame: bytes) -> None:
        """Write a control frame; a peer that is gone by now will be noticed elsewhere."""
        with suppress(ConnectionClosed):
            self.post(bytes, frame, control=True)

    def _queue(self, data: bytes | memoryview) -> None:
        if self._unsent is _NOTHING:
            self._unsent = deque()
        self._unsent.append(data)
        self._unsent_size += len(data)

    def _cork(self) -> bool:
        """More messages wait to be answered: let the replies go out in one write."""
        if not self._flush_soon():
            return False
        self._corked_at = time.monotonic()
        return True

    def flush(self) -> None:
        """Write what is queued. For the engine."""
        with self._lock:
            self._corked_at = 0.0
            while self._unsent:
                try:
                    if HAS_SENDMSG:
                        buffers = islice(self._unsent, SEND_BUFFERS)
                        sent = self.socket.sendmsg(buffers, (), SEND_FLAGS)
                    else:
                        sent = self._send(self._unsent[0], SEND_FLAGS)
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

    def _flushed(self) -> None:
        pong, self._late_pong = self._late_pong, None
        if pong is not None and not self.ended:
            self._write_control(self.protocol.pong(pong))
        if self._half_close:
            self._shutdown(SHUT_WR)

    def _sent(self, size: int) -> None:
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

    # -- ending ------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether it makes sense to go on: nobody closed, or messages still wait."""
        return not self.ended and (self._pending is None or bool(self._messages))

    def closed_error(self) -> ConnectionClosed:
        return ConnectionClosed(self.close_code or 1006, self.close_reason or "")

    @property
    def overdue(self) -> bool:
        """Whether the handler has had ``timeout`` seconds since the end, and goes on."""
        return self.ended and time.monotonic() - self._ended_at >= self.limits.timeout

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """The closing handshake (RFC 6455 7.1.2), at most ``timeout`` seconds long."""
        self.start_closing(code, reason)
        timeout = self.limits.timeout
        self._closers += 1
        try:
            await self._drain(0, timeout)
            await self._wait_input(lambda: self._peer_done, time.monotonic() + timeout)
        except TimeoutError:
            self.abort()
        else:
            # RFC 6455 7.1.1: the server closes the TCP connection first.
            self._close_output()
        finally:
            self._closers -= 1

    def start_closing(self, code: int, reason: str = "") -> None:
        """Send Close, or answer the peer's; does not wait."""
        with self._lock:
            self._reply_close()
            if not self.ended:
                check_close(code, reason)
                self._send_close(self.protocol.close(code, reason), code, reason)
            self._messages.clear()
            self._resume_reading()
        self._wake()

    async def finish(self) -> None:
        """Read until the peer's end of file, at most ``timeout`` seconds, then release.

        A close with unread data resets the connection, and what we sent may then be lost.
        """
        deadline = time.monotonic() + self.limits.timeout
        try:
            with suppress(TimeoutError):
                await self._wait_input(lambda: self._end_of_file, deadline)
        finally:
            self.release()

    def release(self) -> None:
        """Close the descriptor."""
        if self.released:
            return
        self.released = True
        self.client = None
        self.worker.connections.discard(self)
        self._lost()
        # Without it a second duplicate (uWSGI's) would hold the connection open.
        self._shutdown(SHUT_RDWR)
        self._unwatch()
        with self._lock:
            self.socket.close()

    def leave_to_parent(self) -> None:
        """Close the descriptor in a child process, and say nothing: the parent has it too."""
        self._lock = RLock()
        self._end(1006, "this process is a fork of the one that has the connection")
        self.released = self._end_of_file = self._peer_done = self._half_close = True
        self._pending = self.interrupt = None
        self._messages = self._unsent = _NOTHING
        self._unsent_size = 0
        self._unwatch_in_child()
        self.socket.close()

    def _unwatch_in_child(self) -> None:  # noqa: B027
        """Forget the descriptor, in a child process, where the parent goes on watching it."""

    def _reply_close(self) -> None:
        """The handler has come to the peer's Close or violation, or took too long: answer."""
        with self._lock:
            pending, self._pending = self._pending, None
            if pending is None or self.ended:
                return
            if isinstance(pending, Close):
                code, reason = pending.code, pending.reason
                # RFC 6455 5.5.1: "the endpoint typically echos the status code it received".
                frame = self.protocol.close(code)
            else:
                code, reason = pending.error.close_code, pending.error.reason
                frame = self.protocol.close(code, reason)
            self._send_close(frame, code, reason)
            self._finish_output(pending)
        self._wake()

    def _finish_output(self, event: Close | Fail) -> None:
        """Half-close, once the peer can take it.

        A peer that broke the protocol may be in the middle of sending. uWSGI's router, and nginx,
        cut a connection of which one side has ended while the other sends, and our Close is lost.
        """
        if isinstance(event, Close) or self.protocol.close_received:
            self._end_discarding()
        else:
            self._saw_traffic = False
            self._read_ahead = 0
            self._resume_reading()
            deadline = time.monotonic() + self.limits.timeout
            self.worker.call_later(SILENCE, partial(self._look_for_silence, deadline))

    def _look_for_silence(self, deadline: float) -> None:
        """See whether a peer that broke the protocol, and is read to be discarded, is through."""
        if self._peer_done:
            return
        heard, self._saw_traffic = self._saw_traffic, False
        if not heard and not self.protocol.is_sending:
            self._end_discarding()
        elif time.monotonic() < deadline:
            self.worker.call_later(SILENCE, partial(self._look_for_silence, deadline))
        else:
            self.abort()

    def _end_discarding(self) -> None:
        self._peer_done = True
        self._close_output()
        self._wake()

    def _reply_close_late(self) -> None:
        """Answer the peer's Close, unless the handler still works through its messages."""
        if self._messages and self._replying:
            self._replying = False  # True again once it has taken the next one
            self.worker.call_later(CLOSE_GRACE, self._reply_close_late)
        else:
            self._reply_close()

    def _send_close(self, frame: bytes, code: int, reason: str) -> None:
        """Send our Close, the one and last frame that ends the connection."""
        self._end(code, reason)  # first: what a failing write comes upon must not answer again
        self._write_control(frame)

    def _end(self, code: int, reason: str) -> None:
        """Nothing more is sent, and the first cause counts. The caller wakes who waits."""
        if not self.ended:
            self.ended = True
            self.close_code, self.close_reason = code, reason
            self._ended_at = time.monotonic()

    def _lost(self) -> None:
        """End of file, or the connection was reset."""
        with self._lock:
            if self._end_of_file:
                return
            self._end_of_file = self._peer_done = True
            self._reply_close()  # a peer that closed its own direction only still reads this,
            self.flush()  # and the replies that were held back for one write
            self._unsent.clear()
            self._unsent_size = 0
            self._watch_reading(False)
            self._end(1006, "")
        self._wake()

    def _broken(self) -> None:
        """A write failed: take what the peer sent before it vanished, then end."""
        if not self._send_failed:  # pings in what it sent must not bring us here again
            self._send_failed = True
            self._peek()
            self._lost()

    def _close_output(self) -> None:
        """Tell the peer's TCP that nothing more comes, once all is out."""
        with self._lock:
            if not self._half_close:
                self._half_close = True
                if not self._unsent:
                    self._shutdown(SHUT_WR)

    def abort(self, reason: str = "") -> None:
        """Cut the connection, both ways, at once."""
        with self._lock:
            self._end(1006, reason)
            self._shutdown(SHUT_RDWR)
        self._lost()

    def _shutdown(self, how: int) -> None:
        try:
            self.socket.shutdown(how)
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.EBADF):  # reset; or released before
                raise

    # -- the clock ---------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Look after the connection, whatever its handler does. For the worker's clock."""
        if self.ended:
            self._hurry(now)
        elif self.limits.ping_interval > 0:
            self._heartbeat(now)

    def _has_input(self) -> bool:
        """Tell whether the peer has sent what nobody has read yet."""
        try:
            return bool(self._recv(1, MSG_DONTWAIT | socket.MSG_PEEK))
        except OSError:
            return False

    def _hurry(self, now: float) -> None:
        """A handler that does not notice the end is interrupted after ``timeout`` seconds."""
        if self._closers or (self._messages and self._replying):
            # It waits for the peer's Close, or still works through its messages.
            self._replying = False
            self._ended_at = now
        elif self.interrupt is not None and now - self._ended_at >= self.limits.timeout:
            self._ended_at = now
            self.interrupt()

    def _heartbeat(self, now: float) -> None:
        """Ping when due; cut the connection when nothing was heard for too long."""
        heard, self._saw_traffic = self._saw_traffic, False
        if self._pinged is None:
            self._ping_when_due(now)
        elif heard or self._read_pausing:
            # Whoever sends or reads is alive, and a pong that we do not read is not late. It gets
            # other pings all the same: proxies cut what is silent, and a reset shows in a write.
            self._alive_at = now
            if not self._unsent:
                self._ping_when_due(now)
        elif now - max(self._ping_at, self._alive_at) < self.limits.ping_timeout:
            pass
        elif self._has_input():
            self._alive_at = now  # its pong may be there, and nobody has got to read it
        else:
            with self._lock:
                if not self.ended:
                    frame = self.protocol.close(1011, "ping timeout")
                    self._send_close(frame, 1006, "ping timeout")
            self.abort()

    def _ping_when_due(self, now: float) -> None:
        if now - self._ping_at >= self.limits.ping_interval:
            self._pinged = os.urandom(4)
            self._ping_at = now
            self._write_control(self.protocol.ping(self._pinged))
