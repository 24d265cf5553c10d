"""What all parts of a connection share: its fields, and what an engine supplies."""

from __future__ import annotations

import errno
from _socket import socket as Socket  # not the class that gevent's monkey patch replaces
from _thread import RLock
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ..codec import Protocol
from ..exceptions import ConnectionClosed
from .limits import Limits
from .states import OPEN, RELEASED

if TYPE_CHECKING:
    from .worker import Worker

Message = str | bytes

#: The queue of a connection that has not needed one: a deque weighs 760 bytes, and few do.
NOTHING: deque[Any] = deque(maxlen=0)


class BaseConnection(ABC):
    """The fields that several parts of a connection use, and what an engine supplies."""

    __slots__ = (
        "_lock",
        "_saw_traffic",
        "close_code",
        "close_reason",
        "ended",
        "limits",
        "protocol",
        "socket",
        "state",
        "worker",
    )

    def __init__(self, sock: Socket, protocol: Protocol, limits: Limits, worker: Worker) -> None:
        self.socket = sock
        self.protocol = protocol
        self.limits = limits
        self.worker = worker
        self.close_code: int | None = None
        self.close_reason: str | None = None
        self.state = OPEN
        #: Sends raise, and receives give None once the messages are used up: the state says so, but
        #: is too slow to ask with each message.
        self.ended = False
        self._lock = RLock()  # against other threads: greenlets and tasks don't switch inside
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
    def _watch_reading(self, on: bool) -> None:
        """Begin or cease to call :meth:`read`."""

    @abstractmethod
    def _watch_writing(self) -> None:
        """Call :meth:`flush` once the descriptor is writable; from any thread."""

    @abstractmethod
    def _unwatch(self) -> None:
        """Forget the descriptor: it is about to be closed."""

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
