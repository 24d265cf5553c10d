"""What others publish: the socket that they find, and their connections to it."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from _socket import socket as Socket  # not the class that gevent's monkey patch replaces
from collections.abc import Callable
from contextlib import suppress

from ...helpers.log import RateLimit, logger
from ...process.credentials import is_of_our_user
from ..record import Record
from .directory import WORKER, Directory
from .wire import FrameReader, Stranger, greeting

#: Bytes that are read from a publisher in one turn of the loop, so that a flood leaves time for the
#: clients: four publishers at once make 256 KiB.
_CHUNK = 1 << 16
#: Connections that the kernel keeps for a worker that is busy; it may keep less.
_BACKLOG = 1024
#: Seconds before the next attempt to accept, for want of descriptors.
_PAUSE = 1.0
#: uWSGI logs each signal that says that the other one has left.
_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)


class Listener:
    """The socket of this process in the directory, and what has connected to it.

    :param max_size: bytes of the largest record.
    :param receive: called with each record.
    :param lose: called with how many are known not to come; 0: nobody knows.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        directory: Directory,
        max_size: int,
        receive: Callable[[Record], None],
        lose: Callable[[int], None],
    ) -> None:
        self._loop = loop
        self._directory = directory
        self.max_size = max_size
        self.receive = receive
        self.lose = lose
        self._publishers: set[_Publisher] = set()
        self._mark = -1
        self._warnings = RateLimit(5)
        #: What others find it by.
        self.name = f"{os.getpid()}.{secrets.token_hex(4)}"
        self._socket = Socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.setblocking(False)
            self._listen()
        except BaseException:
            self._socket.close()
            raise
        loop.add_reader(self._socket.fileno(), self._accept)

    def _listen(self) -> None:
        """Become visible, which must not be before it accepts: who is refused removes it."""
        hidden = f".{self.name}"
        self._socket.bind(self._directory.address(hidden))
        self._socket.listen(_BACKLOG)
        self._directory.rename(hidden, self.name)

    def be_worker(self) -> None:
        """Be counted among those who answer what is asked of all."""
        if self._mark < 0 or not self._directory.has(self.mark):
            self._forget_mark()
            self._mark = self._directory.put_mark(self.mark)

    @property
    def mark(self) -> str:
        """The name of what tells that it is a worker's, and that this lives."""
        return self.name + WORKER

    def _forget_mark(self) -> None:
        if self._mark >= 0:
            os.close(self._mark)
            self._mark = -1

    def _accept(self) -> None:
        try:
            fd, _ = self._socket._accept()  # type: ignore[attr-defined]  # what accept() calls
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            self._pause(error)
            return
        sock = Socket(fileno=fd)
        try:
            if not is_of_our_user(sock):
                raise Stranger("it is of another user")
            sock.setblocking(False)
            with suppress(BrokenPipeError):  # one that has left already may have said something
                sock.send(greeting(), _NO_SIGNAL)
        except (OSError, Stranger) as error:
            sock.close()
            self.warn_of("a process", error)
        else:
            self._publishers.add(_Publisher(self._loop, sock, self))

    def _pause(self, error: OSError) -> None:
        """Accept none for a while: there is one, and each turn of the loop would fail on it."""
        self.warn_of("a process", error)
        self._loop.remove_reader(self._socket.fileno())
        self._loop.call_later(_PAUSE, self._resume)

    def _resume(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.add_reader(self._socket.fileno(), self._accept)

    def warn_of(self, who: str, error: Exception) -> None:
        """Log that what somebody publishes is not taken."""
        if self._warnings.passes():
            logger.warning("what %s sends to rooms is not taken: %s", who, error)

    def forget(self, publisher: _Publisher) -> None:
        """Do without a publisher that has ended."""
        self._publishers.discard(publisher)

    def hide(self) -> None:
        """Take no more connections."""
        self._directory.unlink(self.mark)
        self._forget_mark()
        self._directory.unlink(self.name)
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def close(self) -> None:
        """End, and with it all connections."""
        self.hide()
        for publisher in tuple(self._publishers):
            publisher.close()

    def leave_to_parent(self) -> None:
        """Close all in a child, whose loop is the parent's."""
        self._socket.close()
        self._forget_mark()
        for publisher in self._publishers:
            publisher.leave_to_parent()


class _Publisher:
    """A connection of somebody who publishes."""

    __slots__ = ("_listener", "_loop", "_reader", "_socket")

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: Socket, listener: Listener) -> None:
        self._loop = loop
        self._socket = sock
        self._listener = listener
        self._reader = FrameReader(listener.max_size)
        loop.add_reader(sock.fileno(), self._read)

    def _read(self) -> None:
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end()
            return
        try:
            self._take(data)
        except Stranger as error:
            self._listener.warn_of("one that has connected to this process", error)
            self._end()

    def _take(self, data: bytes) -> None:
        receive = self._listener.receive
        for item in self._reader.feed(data):
            if isinstance(item, int):
                self._listener.lose(item)
            else:
                receive(item)

    def _end(self) -> None:
        """Close; what somebody has sent who was killed may not be all."""
        self.close()
        if self._reader.has_begun and not self._reader.is_through:
            self._listener.lose(0)

    def close(self) -> None:
        """Close, whatever may come."""
        self._listener.forget(self)
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def leave_to_parent(self) -> None:
        """Close in a child, whose loop is the parent's."""
        self._socket.close()
