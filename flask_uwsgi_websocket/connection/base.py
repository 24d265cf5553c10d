"""The base of a connection: its limits and fields, its queue, and what an engine supplies."""

from __future__ import annotations

import errno
from _socket import socket as Socket  # not the class that gevent's monkey patch replaces
from _thread import get_ident
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Any

from ..codec import Protocol
from ..exceptions import ConnectionClosed
from ..helpers.checks import BUFFER, BYTES, BYTES_OR_NONE, RATE_OR_NONE, SECONDS, SECONDS_OR_NONE
from ..metrics.route import RouteMetrics
from .fast_io import Lock, Traffic
from .rate import Rate
from .states import LOST, OPEN, RELEASED


@dataclass(frozen=True)
class Limits:
    """The limits of what a connection may cost. Sizes in bytes, times in seconds.

    :raises ValueError: for a value that cannot be meant.
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
    #: Bytes that the kernel takes beyond what a slow peer reads (SO_SNDBUF); None: as it likes.
    send_buffer: int | None = None
    #: (messages, seconds): how many the peer may send at a time, and within so long; None: any.
    max_rate: tuple[int, float] | None = None

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
    "send_buffer": BUFFER,
    "max_rate": RATE_OR_NONE,
}

Message = str | bytes
#: What a loop calls.
Callback = Callable[[], object]

#: The queue of a connection that has not needed one: a deque weighs 760 bytes, and few do.
NOTHING: deque[Any] = deque(maxlen=0)


class Loop(ABC):
    """The loop that serves the connections of a worker, for any thread.

    It is asyncio's, gevent's hub, or that of a thread beside the handlers. Its callbacks must not
    wait: all connections would.
    """

    #: The thread that the loop runs in.
    thread = 0
    get_ident = staticmethod(get_ident)

    def __init__(self) -> None:
        #: The open connections. A dict, since a large set takes up to three times the memory.
        self.connections: dict[Any, None] = {}
        self._unflushed: deque[Any] = deque()
        self._will_flush = False

    def on_loop(self) -> bool:
        """Return whether this is the loop's thread."""
        return self.get_ident() == self.thread

    @abstractmethod
    def call_soon(self, callback: Callback) -> None:
        """Call ``callback`` in the loop's next turn, behind those of earlier calls."""

    def run_on_loop(self, function: Callable[..., object], *args: Any) -> None:
        """Call it at once in the loop's thread, from another one in the loop's next turn."""
        if self.on_loop():
            function(*args)
        else:
            self.call_soon(partial(function, *args))

    def call_later(self, delay: float, callback: Callback) -> None:
        """Call ``callback`` on the loop, ``delay`` seconds from now."""
        self.run_on_loop(self._call_later, delay, callback)

    def watch(self, fd: int, read: Callback | None = None, write: Callback | None = None) -> None:
        """Call ``read`` while a descriptor is readable, ``write`` while it is writable.

        Takes the place of an earlier watch. One call more than is due may come, so the descriptor
        should be non-blocking. From another thread the watch begins in the loop's next turn.
        """
        self.run_on_loop(self._watch, fd, read, write)

    def unwatch(self, fd: int) -> None:
        """Forget a descriptor, before it is closed.

        From another thread that takes until the loop's next turn: close it by :meth:`call_soon`.
        """
        self.watch(fd)

    @abstractmethod
    def _call_later(self, delay: float, callback: Callback) -> None:
        """:meth:`call_later`, on the loop."""

    @abstractmethod
    def _watch(self, fd: int, read: Callback | None, write: Callback | None) -> None:
        """:meth:`watch`, on the loop."""

    def flush_soon(self, connection: Any) -> None:
        """Flush a connection in the loop's next turn, with all others for which that is asked."""
        self._unflushed.append(connection)
        if not self._will_flush:
            self._will_flush = True
            self.call_soon(self._flush_all)

    def _flush_all(self) -> None:
        self._will_flush = False  # first: who comes meanwhile asks for another turn
        for _ in range(len(self._unflushed)):
            self._unflushed.popleft().flush()


class BaseConnection(ABC):
    """The fields that several parts of a connection use, and what an engine supplies."""

    __slots__ = (
        "_lock",
        "_saw_traffic",
        "close_code",
        "close_reason",
        "ended",
        "fd",
        "limits",
        "protocol",
        "route",
        "socket",
        "state",
        "traffic",
        "worker",
    )

    def __init__(self, sock: Socket, protocol: Protocol, limits: Limits, worker: Loop) -> None:
        self.socket = sock
        self.fd = sock.fileno()  # -1 once it is closed
        self.protocol = protocol
        self.limits = limits
        self.worker = worker
        self.close_code: int | None = None
        self.close_reason: str | None = None
        self.state = OPEN
        #: Sends raise, and receives give None once the messages are used up: the state says so, but
        #: is too slow to ask with each message.
        self.ended = False
        self.traffic = Traffic()
        #: Where it is counted; None for one that no app's route has.
        self.route: RouteMetrics | None = None
        if limits.send_buffer is not None:
            sock.setsockopt(SOL_SOCKET, SO_SNDBUF, limits.send_buffer)
        self._lock = Lock()  # against other threads: greenlets and tasks don't switch inside
        self._saw_traffic = False  # a sign of life since the last tick

    @abstractmethod
    def _wait_input(self, ready: Callable[[], bool], deadline: float | None) -> Awaitable[None]:
        """Wait until ``ready()``, reading meanwhile; TimeoutError at ``deadline``."""

    @abstractmethod
    def _wait_output(self, ready: Callable[[], bool], deadline: float | None) -> Awaitable[None]:
        """Wait until ``ready()``, writing and reading meanwhile; TimeoutError at ``deadline``."""

    @abstractmethod
    def _pause(self, seconds: float) -> Awaitable[None]:
        """Let others run, for so long at least."""

    @abstractmethod
    def _wake(self) -> None:
        """Let everybody who waits on this connection look again; from any thread."""

    @abstractmethod
    def _watch_reading(self) -> None:
        """Begin or cease to call :meth:`read`, as reading goes on or not; from any thread."""

    @abstractmethod
    def _watch_writing(self) -> None:
        """Call :meth:`flush` once the descriptor is writable; from any thread."""

    @abstractmethod
    def _unwatch(self) -> None:
        """Forget the descriptor, which is about to be closed; on the loop."""

    def _unwatch_in_child(self) -> None:  # noqa: B027
        """Forget the descriptor, in a child process, where the parent goes on watching it."""

    @abstractmethod
    def _peek(self) -> None:
        """:meth:`read`, where nobody else does it at this moment."""

    @property
    def released(self) -> bool:
        """Whether the descriptor is closed, or about to be."""
        return self.state is RELEASED

    def closed_error(self) -> ConnectionClosed:
        return ConnectionClosed(self.close_code or 1006, self.close_reason or "")

    def _shutdown(self, how: int) -> None:
        try:
            self.socket.shutdown(how)
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.EBADF):  # reset; or released before
                raise


#: Bytes of messages that wait for the handler before reading pauses.
READ_AHEAD = 256 * 1024
#: The same, in messages of the largest size, while a send waits. uWSGI's http router, and a
#: client that only writes, would deadlock if we did not go on reading then.
READ_AHEAD_WHILE_SENDING = 16


class ReadAhead(BaseConnection):
    """The messages that wait for the handler."""

    __slots__ = ("_messages", "_rate", "_read_ahead", "_read_pausing", "_replying", "_senders")

    def __init__(self, *opened: Any) -> None:
        super().__init__(*opened)
        max_rate = self.limits.max_rate
        self._rate = None if max_rate is None else Rate(*max_rate)
        self._messages: deque[Message] = NOTHING
        self._replying = False  # the handler has a message that it may want to answer
        self._read_ahead = 0  # bytes of messages read since the handler had received all
        self._read_pausing = False
        self._senders = 0  # how many wait for the peer to read

    def take(self) -> Message | None:
        """Take a message that has been read already; None where there is none."""
        if not self._messages:
            return None
        try:
            message = self._messages.popleft()
        except IndexError:  # another thread was quicker
            return None
        self._replying = True
        return message

    def _read_ahead_limit(self) -> int:
        if self._senders:
            return READ_AHEAD_WHILE_SENDING * self.limits.max_message_size + READ_AHEAD
        return READ_AHEAD

    def _pause_reading(self) -> None:
        if not self._read_pausing:
            self._read_pausing = True
            self._watch_reading()

    def _resume_reading(self) -> None:
        """Read on, when the handler has received all, or a send waits; not ahead of the rate."""
        if not self._messages:
            self._read_ahead = 0
        if self._read_pausing and self._read_ahead < self._read_ahead_limit():
            if self._rate is not None and self.state is OPEN and self._rate.wait() > 0:
                return
            self._read_pausing = False
            if self.state < LOST:
                self._watch_reading()
