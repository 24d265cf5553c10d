"""Who listens: what this process publishes goes to each of them."""

from __future__ import annotations

import asyncio
import time
from math import inf, isinf

from ...helpers.log import RateLimit, logger
from .directory import WORKER, Directory
from .outgoing import DROP_ABOVE, WAIT_ABOVE, Peer
from .wire import Stranger

#: Nanoseconds within which the time of a directory's last change may stand for several changes:
#: the kernel's clock for that ticks 100 to 1,000 times a second.
_TICK = 50_000_000
#: Seconds before a worker that has closed our connection is tried again: if it is dead, the kernel
#: has closed all its sockets by then.
_PAUSE = 0.05


class Peers:
    """Those that listen, each with its connection.

    :param timeout: seconds to wait for a worker that does not read.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout: float) -> None:
        self._loop = loop
        self._timeout = timeout
        self._peers: dict[str, Peer] = {}
        self._names: dict[Peer, str] = {}
        #: Those not to connect to, until when; for ever where they are strangers.
        self._shunned: dict[str, float] = {}
        self._directory: Directory | None = None
        self._changed = 0
        #: How many listen who are workers, with this process.
        self.workers = 0
        self._warnings = RateLimit(5)
        #: The number of the next frame.
        self.number = 1
        #: How many frames did not reach a worker, each counted once for each worker.
        self.dropped = 0

    def look(self, directory: Directory, own: str) -> None:
        """Connect to all that listen and are not connected to yet.

        :param own: the name of our own socket.
        :raises OSError: when one could not be, for want of descriptors.
        """
        now = time.time_ns()
        changed = directory.state().st_mtime_ns
        if directory is self._directory and changed == self._changed:
            return
        found = directory.names()
        names = {name for name in found if not name.startswith(".")}
        for name in names:
            if not name.endswith(WORKER) and name != own and name not in self._peers:
                self._connect(directory, name)
        known = (*self._peers, own)
        self.workers = sum(name + WORKER in names for name in known)
        self._shunned = {name: until for name, until in self._shunned.items() if name in names}
        self._directory = directory
        is_settled = now - changed > _TICK and all(map(isinf, self._shunned.values()))
        self._changed = changed if is_settled else 0

    def _connect(self, directory: Directory, name: str) -> None:
        if self._shunned.get(name, 0.0) > self._loop.time():
            return
        try:
            peer = Peer(self._loop, self.number, self._lost)
            peer.connect(directory.address(name))
        except (ConnectionRefusedError, FileNotFoundError):
            self._bury(directory, name)
        except Stranger as error:
            self._shun(name, str(error))
        else:
            self._peers[name], self._names[peer] = peer, name

    def _bury(self, directory: Directory, name: str) -> None:
        """Remove the socket of a dead worker."""
        directory.unlink(name)
        directory.unlink(name + WORKER)

    def _shun(self, name: str, why: str) -> None:
        self._shunned[name] = inf
        if self._warnings.passes():
            logger.warning("nothing is published to process %s: %s", name.partition(".")[0], why)

    def _lost(self, peer: Peer, why: str | None) -> None:
        name = self._names.pop(peer)
        del self._peers[name]
        self._changed = 0
        if why is not None:
            self._shun(name, why)
        else:
            self._shunned[name] = self._loop.time() + _PAUSE

    def publish(self, data: bytes, frames: int) -> None:
        """Give frames, which :attr:`number` counts, to all."""
        self.number += frames
        for peer in tuple(self._peers.values()):
            if not peer.put(data, frames, self.number):
                self.dropped += frames

    @property
    def pending_bytes(self) -> int:
        """Bytes in the queues for all of them."""
        return sum(peer.pending for peer in tuple(self._peers.values()))

    async def settle(self) -> None:
        """Wait for those whose queues are long, at most once for as long as they stay so."""
        slow = {
            peer.waiter(): peer
            for peer in self._peers.values()
            if peer.pending > WAIT_ABOVE and not peer.is_stalled
        }
        if slow:
            await asyncio.wait(slow, timeout=self._timeout)
            for waiter, peer in slow.items():
                if not waiter.done():
                    peer.stall()
                    self._warn_of(peer)

    def _warn_of(self, peer: Peer) -> None:
        if self._warnings.passes():
            logger.warning(
                "process %s has not read what is sent to rooms for %g s: others no longer wait for "
                "it. What exceeds %d MiB it will not get",
                self._names[peer].partition(".")[0],
                self._timeout,
                DROP_ABOVE >> 20,
            )

    async def close(self) -> None:
        """Send all that is queued, except to those that do not read; then end."""
        peers = tuple(self._peers.values())
        for peer in peers:
            peer.leave()
        try:
            left = [peer.waiter(0) for peer in peers if not peer.is_stalled]
            if left:
                await asyncio.wait(left, timeout=self._timeout)
        finally:
            for peer in peers:
                peer.end(None)

    def leave_to_parent(self) -> None:
        """Close all in a child."""
        for peer in self._peers.values():
            peer.leave_to_parent()
