"""Whether there is room for another WebSocket: each takes descriptors, of which HTTP needs some.

uWSGI spins when it cannot accept, and so does its HTTP router, which holds two descriptors for
each WebSocket. So whatever else needs them keeps an eighth.
"""

from __future__ import annotations

import mmap
from functools import cache
from typing import TYPE_CHECKING

from ...inspection.effects import has_router
from ...inspection.socket_rules import ROUTERS_OWN
from .instance import options, running_engine, uwsgi
from .request import take
from .requirements import detaches

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


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
    descriptor = probe.fileno()  # the lowest number that is free (POSIX, 2.6): so many are in use
    probe.close()
    return limit is not None and descriptor >= limit - limit // 8


@cache
def router_room() -> RouterRoom | None:
    """Return the room in the HTTP router of this uWSGI; None where it has none."""
    if not has_router(options()):
        return None
    return RouterRoom(uwsgi.numproc, shared=not uwsgi.worker_id())


class RouterRoom:
    """What is left of a router's descriptors, which the WebSockets of all workers share.

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
        """Note how many WebSockets a worker has.

        :param worker: its number, from 1 on.
        """
        self._counts[worker] = websockets

    def is_full(self) -> bool:
        """Tell whether what is left is for HTTP."""
        limit = descriptor_limit()
        if limit is None:
            return False
        room = limit - limit // 8 - ROUTERS_OWN
        return 2 * (sum(self._counts) + 1) > room // self._parts
