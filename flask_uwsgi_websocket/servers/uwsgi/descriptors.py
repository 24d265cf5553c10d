"""The descriptors of this process: uWSGI's sockets, and room for those of another WebSocket.

uWSGI spins when it cannot accept, and so does its HTTP router, which holds two descriptors for
each WebSocket. So whatever else needs them keeps an eighth.
"""

from __future__ import annotations

import mmap
import os
import socket
from _socket import socket as Socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from typing import Any

from ...helpers.wsgi import WSGIEnvironment
from ...inspection.effects import has_router
from ...inspection.socket_rules import ROUTERS_OWN
from ...process.fork import reset_signals
from .instance import options, running_engine, uwsgi
from .request import new_devnull, take
from .requirements import detaches


def disable_nagle_on_listeners() -> None:
    """Set TCP_NODELAY on the sockets that uWSGI listens on: accepted ones inherit it.

    Between uWSGI's http router and its workers, Nagle's algorithm and delayed ACKs otherwise
    hold each message above the router's buffer for 40 ms.
    """
    for descriptor in _descriptors():
        _ask(descriptor, _disable_nagle)


def _disable_nagle(sock: Socket) -> None:
    is_tcp = sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM
    if is_tcp and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class ParentsSockets:
    """The sockets of uWSGI's that a child of a worker inherits."""

    def leave_to_parent(self) -> None:
        reset_signals()
        if running_engine() == "gevent":
            from ...engines.gevent_worker import end_hub

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


def no_room_reason(environ: WSGIEnvironment) -> str | None:
    """Return why there is no room for a WebSocket, and the remedy; None if there is."""
    if _is_full():
        return (
            "this worker has no descriptors left for them (an eighth is kept for HTTP). Raise "
            "ulimit -n, systemd's LimitNOFILE=, or --processes"
        )
    room = router_room()
    if room is not None and "UWSGI_ROUTER" in environ and room.is_full():
        return (
            "uWSGI's router holds two descriptors for each and has none left for more (an eighth "
            "is kept for HTTP). Raise ulimit -n or systemd's LimitNOFILE="
        )
    return None


def descriptor_limit() -> int | None:
    """Return how many descriptors this process may have; None for any number.

    Not the hard limit: also the router's, a child of the same master.
    """
    import resource  # not on Windows, where there is no uWSGI

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def _is_full() -> bool:
    # Cores limit the number of WebSockets that hold one.
    if not detaches(running_engine()):
        return False
    limit = descriptor_limit()
    try:
        probe = take()
    except OSError:
        return True
    # Each was the lowest number that was free (POSIX, 2.6), so at least as many were in use; one
    # may have become free between the two.
    descriptor = max(probe.fileno(), uwsgi.connection_fd())
    probe.close()
    return limit is not None and descriptor >= limit - limit // 8


@cache
def router_room() -> RouterRoom | None:
    """Return the room in the HTTP router of this uWSGI; None where it has none."""
    if not has_router(options()):
        return None
    return RouterRoom(uwsgi.numproc, shared=not uwsgi.worker_id())


class RouterRoom:
    """The room in a router's descriptors, which the WebSockets of all workers share.

    Several processes of it (``--http-processes``) count as one: they do not share connections
    evenly, and each that is full spins.

    :param workers: the number of workers.
    :param shared: whether this is made before the workers are, so that they have it in common.
        Otherwise each may use its part.
    """

    def __init__(self, workers: int, shared: bool) -> None:
        self._parts = 1 if shared else workers
        # The number of each worker's WebSockets, at its own place.
        self._counts = memoryview(mmap.mmap(-1, 4 * (workers + 1))).cast("I")

    def count(self, worker: int, websockets: int) -> None:
        """Note how many WebSockets a worker has; workers are numbered from 1 on."""
        self._counts[worker] = websockets

    def is_full(self) -> bool:
        """Return whether what is left is for HTTP."""
        limit = descriptor_limit()
        if limit is None:
            return False
        room = limit - limit // 8 - ROUTERS_OWN
        return 2 * (sum(self._counts) + 1) > room // self._parts
