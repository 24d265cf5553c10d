"""The life of one WebSocket connection over a descriptor.

The rules are coroutines. Under asyncio they are awaited as usual. The other engines' waiting
blocks the calling thread or greenlet inside, so that their coroutines never suspend and run in one
go: one set of rules, three ways to wait.

A connection is one object, for the sake of speed and memory. Its parts are a chain of classes, each
of which knows those below it::

    Connection        the whole, and its release
    Receiving         what the peer sends
    Heartbeat         pings, and handlers that do not notice the end
    Closing           how it ends, from state to state
    Sending           frames, and those that wait for a peer that does not read
    ReadAhead         messages that wait for the handler
    BaseConnection    the socket, and what an engine supplies
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from socket import SHUT_RDWR
from typing import Any

from .base import NOTHING
from .fast_io import Lock
from .receiving import Receiving
from .states import LOST, RELEASE


class Connection(Receiving):
    """One WebSocket connection, from after its handshake to the close of its descriptor.

    The engine calls :meth:`read` when the descriptor is readable and :meth:`flush` when it is
    writable; it supplies waiting, and watching the descriptor.
    """

    __slots__ = ("_at_release", "at_end", "client")

    def __init__(self, *opened: Any) -> None:
        super().__init__(*opened)
        #: As what its handler knows it, until it is released: the two refer to each other.
        self.client: Any = None
        #: What the handler wants called once the connection has ended and it is through itself.
        self.at_end: Callable[[], Any] | None = None
        self._at_release: tuple[Callable[[], object], ...] = ()

    def on_release(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` once the connection is released: at once, if it has been."""
        with self._lock:
            if not self.released:
                self._at_release += (callback,)
                return
        callback()

    async def finish(self) -> None:
        """Read until the peer's end of file, at most ``timeout`` seconds, then release.

        A close with unread data resets the connection, and what we sent may then be lost.
        """
        deadline = time.monotonic() + self.limits.timeout
        try:
            with suppress(TimeoutError):
                await self._wait_input(lambda: self.state >= LOST, deadline)
        finally:
            self.release()

    def release(self) -> None:
        """Close the descriptor."""
        if self.released:
            return
        client, self.client = self.client, None
        try:
            self._lost()
            self._notice(RELEASE)
        finally:
            if self.route is None:
                self.worker.connections.pop(self, None)
            else:
                self.route.ended(self)
        # Without it a second duplicate (uWSGI's) would hold the connection open.
        self._shutdown(SHUT_RDWR)
        self._close()
        callbacks, self._at_release = self._at_release, ()
        for callback in callbacks:
            callback()
        if self.route is not None:
            self.route.notify_closed(client, self)

    def _close(self) -> None:
        """Forget the descriptor, and close it; in the thread of whoever watches it."""
        self._unwatch()
        with self._lock:
            self.socket.close()
            self.fd = -1

    def leave_to_parent(self) -> None:
        """Close the descriptor in a child process, and say nothing: the parent has it too."""
        self._lock = Lock()
        self.before_end = None
        self._advance(RELEASE, 1006, "this process is a fork of the one that has the connection")
        self.interrupt = None
        self._at_release = ()
        self._messages = self._unsent = NOTHING
        self._unsent_size = 0
        self._unwatch_in_child()
        self.socket.close()
        self.fd = -1
