"""A message in, a message out: what most of them take, each in one call.

Receiving is there twice: in C (``_socket_speedups.c``, which setup.py compiles where it can), and
here, and both give the same for the same. What C sends at once goes the general way without it.
In C none but :func:`wait_and_receive`, and sends of large messages, give the GIL up, since none of
the others waits: threads that meet at the GIL cost each other far more than these calls do.
"""

from __future__ import annotations

import select
import socket
from _socket import socket as Socket
from _thread import RLock
from collections.abc import Sequence
from typing import Any, Final, Literal, Protocol, TypeVar

from ..codec import Protocol as Codec
from ..codec.fast_path import whole_message
from ..metrics.traffic import Traffic as TrafficInPython

#: 0 on Windows, where sockets are made non-blocking instead.
MSG_DONTWAIT: Final[int] = getattr(socket, "MSG_DONTWAIT", 0)
#: Sends never raise SIGPIPE (it kills a uWSGI asyncio worker), and never block.
SEND_FLAGS: Final[int] = getattr(socket, "MSG_NOSIGNAL", 0) | MSG_DONTWAIT

#: What a read gives: a message; or other bytes, as a tuple of one; or None, where nothing came.
Received = str | bytes | tuple[bytes] | None
END_OF_FILE: Final = (b"",)


class Sender(Protocol):
    """As much of a connection as sends."""

    socket: Socket
    traffic: TrafficInPython


class Connection(Sender, Protocol):
    """As much of a connection as is used here, in slots. C uses others, too: see ``_layout.h``."""

    protocol: Codec
    _read_size: int

    def _take_read(self, got: str | bytes | tuple[bytes], /) -> None: ...


T = TypeVar("T")


def receive_in_python(connection: Connection) -> Received:
    """Read what is there, up to its read size.

    :return: the message, where they are one and no more, the read is not filled, and the protocol
        takes such a one now; a tuple of the bytes otherwise, which are empty at the end; None where
        there is nothing to read now.
    :raises OSError: the connection broke.
    """
    return _read(connection, MSG_DONTWAIT)


def read_in_python(connection: Connection) -> None:
    """Take what the peer has sent. For the engine; one caller at a time."""
    try:
        got = receive(connection)
    except OSError:
        got = END_OF_FILE
    if got is not None:
        connection._take_read(got)


def wait_and_receive_in_python(connection: Connection) -> Received:
    """Do :func:`receive` after waiting for something to read, or a signal, if the socket blocks."""
    if not MSG_DONTWAIT:
        select.select([connection.socket], [], [])
    return _read(connection, 0)


def _read(connection: Connection, flags: int) -> Received:
    size = connection._read_size
    if size <= 0:
        raise ValueError("a read takes one byte at least")
    traffic = connection.traffic
    try:
        data = connection.socket.recv(size, flags)
    except (BlockingIOError, InterruptedError):
        return None
    traffic.bytes_received += len(data)
    limit = connection.protocol.fast_limit
    message = whole_message(data, limit) if limit >= 0 and len(data) < size else None
    if message is None:
        return (data,)
    traffic.messages_received += 1
    return message


def send_in_python(connection: Connection, message: object) -> Literal[True, False] | None:
    """Send a message in a plain frame, where nothing is queued and nobody else sends.

    :return: None when all was taken, or queued; True when too much is queued by now; False for what
        is not sent here, or not now, or failed: the general way tells.
    """
    return False


def send_to_idle_in_python(
    frames: bytes, longest: int, count: int, connections: Sequence[T]
) -> list[T]:
    """Send frames to each connection that has nothing queued and whose lock is free.

    Return those that are left to the caller: in Python, where it would be no quicker, all.

    :param frames: one or several; they must not depend on what is sent before them.
    :param longest: the size of the largest payload: some connections compress from some size on.
    :param count: the number of the messages.
    """
    return list(connections)


def send_frame(connection: Sender, frame: bytes, messages: int) -> memoryview | None:
    """Send a frame; return what was not taken of it, if anything. OSError: the connection broke.

    :param messages: that it is: 1, or 0 for a control frame.
    """
    try:
        sent = connection.socket.send(frame, SEND_FLAGS)
    except (BlockingIOError, InterruptedError):
        sent = 0
    connection.traffic.add_sent(messages, sent)
    return None if sent == len(frame) else memoryview(frame)[sent:]


#: Counts what goes over a connection: in C, or without it what ``metrics/traffic.py`` has.
Traffic: type[TrafficInPython]

#: A method of connections. In C a handler that waits is switched to from the loop's own callback,
#: with no step of Python between.
read: Any

#: Against other threads, and may be acquired again by its holder; C takes its own without a call.
Lock: Any

try:
    from ._socket_speedups import Lock, Traffic, read
    from ._socket_speedups import receive as receive
    from ._socket_speedups import send as send
    from ._socket_speedups import send_to_idle as send_to_idle
    from ._socket_speedups import wait_and_receive as wait_and_receive
except ImportError:
    Lock, Traffic, read = RLock, TrafficInPython, read_in_python
    receive, wait_and_receive = receive_in_python, wait_and_receive_in_python
    send, send_to_idle = send_in_python, send_to_idle_in_python
