"""What this process publishes: a connection to each worker that listens, and a queue for it."""

from __future__ import annotations

import asyncio
import socket
from _socket import socket as Socket  # not the class that gevent's monkey patch replaces
from collections import deque
from collections.abc import Callable
from itertools import islice

from ...process.credentials import is_of_our_user
from .wire import GREETING_SIZE, Stranger, check_greeting, farewell, greeting, mark

#: Bytes in a worker's queue above which publishers wait for it, and above which it gets no more.
WAIT_ABOVE, DROP_ABOVE = 1 << 20, 8 << 20

_FLAGS = getattr(socket, "MSG_NOSIGNAL", 0)
#: Buffers to one write; the kernel takes 1,024.
_BUFFERS = 256
#: Seconds before the next attempt, where a worker's queue for new connections is full.
_PAUSE = 0.01


class Peer:
    """A worker that listens, as its publisher sees it.

    :param number: of the next frame.
    :param on_end: called once when the connection is over, with why; None: it has ended.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        number: int,
        on_end: Callable[[Peer, str | None], None],
    ) -> None:
        self._loop = loop
        self._on_end = on_end
        self._number = number
        self._most = WAIT_ABOVE
        self._queue: deque[bytes | memoryview] = deque([greeting(number)])
        self._answer = b""
        self._waiter: asyncio.Future[None] | None = None
        self._is_connected = self._is_over = self._is_writing = False
        #: Bytes in the queue.
        self.pending = GREETING_SIZE
        #: How many frames it did not get, and has yet to be told of.
        self.missing = 0
        #: Whether publishers have waited for it in vain, and do so no more until it reads again.
        self.is_stalled = False
        self._socket = Socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.setblocking(False)

    def connect(self, address: str) -> None:
        """Connect to it; the first frames follow the greeting.

        :raises OSError: for one that does not listen any more.
        :raises Stranger: for a process of another user, which gets nothing.
        """
        try:
            self._connect(address)
        except BaseException:
            self._is_over = True
            self._socket.close()
            raise

    def _connect(self, address: str) -> None:
        try:
            self._socket.connect(address)
        except BlockingIOError:  # it has not accepted those before; nobody tells when it will
            self._loop.call_later(_PAUSE, self._try_again, address)
            return
        if not is_of_our_user(self._socket):
            raise Stranger("it is a process of another user")
        self._is_connected = True
        self._loop.add_reader(self._socket.fileno(), self._read)

    def _try_again(self, address: str) -> None:
        if self._is_over:
            return
        try:
            self._connect(address)
        except (OSError, Stranger) as error:
            self.end(str(error) if isinstance(error, Stranger) else None)
        else:
            self._write_if_connected()

    def put(self, data: bytes, frames: int, number: int) -> bool:
        """Give it some frames; return False where it has too many already.

        :param frames: how many they are.
        :param number: that of the next one.
        """
        self._number = number
        if self.pending > DROP_ABOVE:
            self.missing += frames
            return False
        self.missing = 0  # it sees that by the numbers
        self._push(data)
        self._write_if_connected()
        return True

    def _push(self, data: bytes) -> None:
        self._queue.append(data)
        self.pending += len(data)

    def _write_if_connected(self) -> None:
        if self._is_connected and not self._is_writing:
            self._write()

    def _write(self) -> None:
        """Write once: what is left then waits until the socket is writable."""
        try:
            buffers = list(islice(self._queue, _BUFFERS))
            self._pop(self._socket.sendmsg(buffers, (), _FLAGS))
        except BlockingIOError:
            pass
        except OSError:
            self.end(None)
            return
        if self.pending <= self._most:
            self.is_stalled = False
            self._wake()
            if self.missing:
                self.missing = 0
                self._push(mark(self._number))
        if bool(self._queue) != self._is_writing:
            self._is_writing = not self._is_writing
            if self._is_writing:
                self._loop.add_writer(self._socket.fileno(), self._write)
            else:
                self._loop.remove_writer(self._socket.fileno())

    def _pop(self, sent: int) -> None:
        self.pending -= sent
        while sent:
            first = self._queue.popleft()
            if len(first) > sent:
                self._queue.appendleft(memoryview(first)[sent:])
                return
            sent -= len(first)

    def waiter(self, most: int = WAIT_ABOVE) -> asyncio.Future[None]:
        """Return what is done once its queue is short, or nobody shall wait for it.

        :param most: bytes in it, then and from then on.
        """
        if most < self._most:
            self._most = most
        waiter = self._waiter = self._waiter or self._loop.create_future()
        if self.pending <= self._most:
            self._wake()
        return waiter

    def stall(self) -> None:
        """Have nobody wait for it any more, until it reads again."""
        self.is_stalled = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_result(None)
            self._waiter = None

    def _read(self) -> None:
        """Take its greeting, or its end."""
        try:
            data = self._socket.recv(GREETING_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._answer += data
        try:
            if len(self._answer) >= GREETING_SIZE:
                check_greeting(self._answer)
                self._answer = b""
        except Stranger as error:
            self.end(str(error))
        if not data:
            self.end(None)

    def leave(self) -> None:
        """Queue the last word: the connection ends when the queue is empty."""
        self._push(farewell(self._number))
        self._write_if_connected()

    def end(self, why: str | None) -> None:
        """Close the connection, whatever is still in the queue."""
        if self._is_over:
            return
        self._is_over = True
        if self._is_connected:
            self._loop.remove_reader(self._socket.fileno())
            if self._is_writing:
                self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self._queue.clear()
        self.pending = 0
        self._wake()
        self._on_end(self, why)

    def leave_to_parent(self) -> None:
        """Close it in a child, whose loop is the parent's."""
        self._is_over = True
        self._socket.close()
