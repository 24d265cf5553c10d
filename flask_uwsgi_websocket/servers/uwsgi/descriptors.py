"""uWSGI's sockets among the descriptors of this process."""

from __future__ import annotations

import os
from _socket import socket as Socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_TCP,
    SO_ACCEPTCONN,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_NODELAY,
)
from typing import Any

from ...process.fork import reset_signals
from .instance import running_engine, uwsgi
from .request import new_devnull


def disable_nagle_on_listeners() -> None:
    """Set TCP_NODELAY on the sockets that uWSGI listens on: accepted ones inherit it.

    Between uWSGI's http router and its workers, Nagle's algorithm and delayed ACKs otherwise
    hold each message above the router's buffer for 40 ms.
    """
    for descriptor in _descriptors():
        _ask(descriptor, _disable_nagle)


def _disable_nagle(sock: Socket) -> None:
    is_tcp = sock.family in (AF_INET, AF_INET6) and sock.type == SOCK_STREAM
    if is_tcp and sock.getsockopt(SOL_SOCKET, SO_ACCEPTCONN):
        sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)


class ParentsSockets:
    """What a child of a worker has of uWSGI."""

    def leave_to_parent(self) -> None:
        reset_signals()
        if running_engine() == "gevent":
            from ...engines.gevent import end_hub

            end_hub()
        devnull = new_devnull()
        for descriptor in [*uwsgi.sockets, *_accepted()]:
            # Not closed: uWSGI's loops still know its number.
            os.dup2(devnull, descriptor, inheritable=False)


def _accepted() -> list[int]:
    """Return the connections that uWSGI has accepted, of requests and ours."""
    places = {_place(descriptor) for descriptor in uwsgi.sockets} - {None}
    listeners = set(uwsgi.sockets)
    return [n for n in _descriptors() if n not in listeners and _place(n) in places]


def _place(descriptor: int) -> Any:
    """Return the port or path of a socket, which an accepted one shares with its listener."""
    name = _ask(descriptor, Socket.getsockname)
    return name[1] if isinstance(name, tuple) else name or None


def _ask(descriptor: int, question: Callable[[Socket], Any]) -> Any:
    """Return what a descriptor says as a socket; None where it is none, or cannot tell."""
    try:
        sock = Socket(fileno=descriptor)
    except OSError:
        return None
    try:
        return question(sock)
    except OSError:
        return None
    finally:
        sock.detach()


def _descriptors() -> Iterable[int]:
    with suppress(OSError):
        return [int(name) for name in os.listdir("/proc/self/fd")]
    return list(uwsgi.sockets)
