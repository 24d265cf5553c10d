"""How many WebSockets uWSGI's HTTP router has room for: each takes two of its descriptors.

The router accepts what it can. Once it has no descriptor left it spins, and serves no HTTP either.
"""

from __future__ import annotations

import mmap

from ..inspection.socket_rules import ROUTERS_OWN


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
        """Tell whether what is left, an eighth, is for HTTP."""
        import resource  # not on Windows, where there is no uWSGI

        # Not the hard limit: the router is a child of the same master.
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit == resource.RLIM_INFINITY:
            return False
        room = limit - limit // 8 - ROUTERS_OWN
        return 2 * (sum(self._counts) + 1) > room // self._parts
