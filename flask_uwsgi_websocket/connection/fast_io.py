"""A message in, a message out: what most of them take, each in one call.

They are there twice: in C (``_socket_speedups.c``, which setup.py compiles where it can), and here.
Both give the same for the same. In C none but :func:`wait_and_receive` gives the GIL up, since none
of the others waits: threads that meet at the GIL cost each other far more than these calls do.
"""

from __future__ import annotations

import select
import socket
from _socket import socket as Socket  # not the class that gevent's monkey patch replaces
from collections.abc import Sequence
from typing import Final, Literal, TypeVar

from ..codec.fast_path import whole_frame, whole_message

T = TypeVar("T")

#: 0 on Windows, where sockets are made non-blocking instead.
MSG_DONTWAIT: Final[int] = getattr(socket, "MSG_DONTWAIT", 0)
#: Sends never raise SIGPIPE (it kills a uWSGI asyncio worker), and never block.
SEND_FLAGS: Final[int] = getattr(socket, "MSG_NOSIGNAL", 0) | MSG_DONTWAIT

#: What a read gives: a message; or other bytes, as a tuple of one; or None, where nothing came.
Received = str | bytes | tuple[bytes] | None
END_OF_FILE: Final = (b"",)


def receive_in_python(sock: Socket, size: int, limit: int) -> Received:
    """Read what is there, up to ``size`` bytes.

    :param limit: the largest message to look for, or -1 where the bytes are wanted as they are.
    :return: the message, where they are one and no more, and the read is not filled; a tuple of the
        bytes otherwise, which are empty at the end; None where there is nothing to read now.
    :raises OSError: the connection broke.
    """
    return _read(sock, size, limit, MSG_DONTWAIT)


def wait_and_receive_in_python(sock: Socket, size: int, limit: int) -> Received:
    """:func:`receive`, after waiting for something to read, if the socket blocks."""
    if not MSG_DONTWAIT:
        select.select([sock], [], [])
    return _read(sock, size, limit, 0)


def _read(sock: Socket, size: int, limit: int, flags: int) -> Received:
    if size <= 0:
        raise ValueError("a read takes one byte at least")
    try:
        data = sock.recv(size, flags)
    except (BlockingIOError, InterruptedError):
        return None
    message = whole_message(data, limit) if len(data) < size else None
    return (data,) if message is None else message


def send_in_python(
    sock: Socket, message: object, below: int
) -> bytes | memoryview | Literal[False] | None:
    """Send a message in a plain frame, if its payload has less than ``below`` bytes.

    :return: None when all was taken, else the rest of the frame; False for what is not sent here:
        larger messages, those from 64 KiB on, texts that UTF-8 cannot encode, other types.
    :raises OSError: the connection broke.
    """
    frame = whole_frame(message, below)  # type: ignore[arg-type]
    if frame is None:
        return False
    return send_frame(sock, frame)


def send_frame(sock: Socket, frame: bytes) -> memoryview | None:
    """Send a frame; return what was not taken of it, if anything. OSError: the connection broke."""
    try:
        sent = sock.send(frame, SEND_FLAGS)
    except (BlockingIOError, InterruptedError):
        sent = 0
    return None if sent == len(frame) else memoryview(frame)[sent:]


def send_to_idle_in_python(frame: bytes, connections: Sequence[T]) -> list[T]:
    """Send a frame to each connection that has nothing queued and whose lock is free.

    Return those that are left to the caller: in Python, where it would be no quicker, all.

    :param frame: it must not depend on what is sent before it.
    """
    return list(connections)


try:
    from ._socket_speedups import receive as receive
    from ._socket_speedups import send as send
    from ._socket_speedups import send_to_idle as send_to_idle
    from ._socket_speedups import wait_and_receive as wait_and_receive
except ImportError:
    receive, wait_and_receive = receive_in_python, wait_and_receive_in_python
    send, send_to_idle = send_in_python, send_to_idle_in_python
