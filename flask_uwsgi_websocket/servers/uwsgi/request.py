"""The connection of the request that is running here: of the thread or greenlet that calls this."""

from __future__ import annotations

import ctypes
import os
from _socket import socket as Socket
from collections.abc import Callable
from contextlib import suppress
from functools import cache

from ...exceptions import ConnectionClosed
from ...helpers.engines import ENGINES
from ...helpers.wsgi import StartResponse, WSGIEnvironment
from .instance import running_engine, uwsgi

Headers = list[tuple[str, str]]

_READ = "uwsgi_proto_base_read_body"  # proto/base.c
# There mostly is nothing, and a buffer is cleared each time; but uWSGI may have read 64 KiB (its
# --buffer-size is 16 bits).
_READ_SIZE, _READS = 4096, 16


def take() -> Socket:
    """Return a duplicate of the connection; OSError when the process has no descriptor left."""
    return Socket(fileno=os.dup(uwsgi.connection_fd()))


def read_ahead() -> bytes:
    """Read what the client has sent behind its request, without waiting for more."""
    reader = _reader()
    if reader is None or os.get_blocking(uwsgi.connection_fd()):
        return b""
    return reader()


@cache
def _reader() -> Callable[[], bytes] | None:
    """Make what reads on behind the head of a request.

    First what uWSGI has read together with the head, which no function of its module gives.
    None where this uWSGI does not export what it takes.
    """
    library = ctypes.PyDLL(None)  # that of gevent and of greenlet look into Python's objects
    name = ENGINES[running_engine()].current_request
    if name == "threaded_current_wsgi_req" and uwsgi.cores < 2:
        name = "simple_current_wsgi_req"
    if not (hasattr(library, name) and hasattr(library, _READ)):
        return None
    request, read = library[name], library[_READ]
    request.restype = ctypes.c_void_p
    read.restype = ctypes.c_ssize_t
    read.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)

    def read_on() -> bytes:
        buffer = ctypes.create_string_buffer(_READ_SIZE)
        data = b""
        for _ in range(_READS):
            size = read(request(), buffer, _READ_SIZE)
            data += ctypes.string_at(buffer, max(size, 0))
            if size < _READ_SIZE:
                break
        return data

    return read_on


def devnull() -> int:
    """Return a descriptor for the little that uWSGI writes for a request; OSError if none is left.

    Not /dev/null, which a chroot may lack.
    """
    out, into = _sink()
    with suppress(BlockingIOError):
        while os.read(out, 65536):  # what it has written since the last call
            pass
    return into


@cache
def _sink() -> tuple[int, int]:
    """Return the two ends of a pipe that nobody reads."""
    out, into = os.pipe()
    os.set_blocking(out, False)
    os.set_blocking(into, False)
    return out, into


def new_devnull() -> int:
    """Return a descriptor as of :func:`devnull`, in a child: one that its parent does not have."""
    _sink.cache_clear()
    return devnull()


def redirect_request(descriptor: int) -> None:
    """Part the request from its connection.

    What uWSGI still writes for it, and its close, are about the descriptor then.
    """
    os.dup2(descriptor, uwsgi.connection_fd(), inheritable=False)


def answer(environ: WSGIEnvironment, start_response: StartResponse, headers: Headers) -> None:
    """Answer 101 with these headers; ConnectionClosed when the client has gone."""
    try:
        if not _handshake(environ, headers):
            # RFC 6455 4.2.2, answered by ourselves; the empty write sends the headers.
            start_response("101 Switching Protocols", headers)(b"")
    except OSError as error:
        raise ConnectionClosed(1006, "the client left during the handshake") from error


def _handshake(environ: WSGIEnvironment, headers: Headers) -> bool:
    """Have uWSGI answer; return False where it cannot say what must be said."""
    names = {name.lower() for name, _ in headers}
    subprotocol = dict(headers).get("Sec-WebSocket-Protocol", "")
    # It knows no other headers, and echoes all offered subprotocols when we select none.
    if names - {"upgrade", "connection", "sec-websocket-accept", "sec-websocket-protocol"} or (
        environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL") and not subprotocol
    ):
        return False
    try:
        uwsgi.websocket_handshake(
            environ["HTTP_SEC_WEBSOCKET_KEY"], environ.get("HTTP_ORIGIN", ""), subprotocol
        )
    except OSError:  # built without SSL; or the client is gone, which our own answer will tell
        return False
    return True
