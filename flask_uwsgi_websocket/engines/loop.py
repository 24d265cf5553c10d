"""Connections that the worker's loop serves."""

from __future__ import annotations

from typing import Any

from ..connection.connection import Connection
from ..connection.fast_io import read
from ..connection.states import LOST


class WatchedConnection(Connection):
    """A connection whose descriptor the worker's loop watches."""

    __slots__ = ("_waiting",)

    def __init__(self, *opened: Any) -> None:
        super().__init__(*opened)
        self._waiting: list[Any] = []  # what the engine wakes, beside the waiter

    def _watch_reading(self) -> None:
        self.worker.run_on_loop(self._watch)

    _watch_writing = _watch_reading

    def _watch(self) -> None:
        """Have the loop call us when there is something to do; on the loop."""
        if self.released:  # the number may be another one's
            return
        self.worker.watch(
            self.fd,
            self._readable if self._reads() else None,
            self._writable if self._unsent else None,
        )

    def _reads(self) -> bool:
        """Return whether the loop is to read."""
        return not self._read_pausing and self.state < LOST

    _readable = read  # with no call between the loop and it

    def _writable(self) -> None:
        self.flush()
        if not self._unsent:
            self._watch()

    def _unwatch(self) -> None:
        self.worker.unwatch(self.fd)

    def _close(self) -> None:
        # The loop must forget the number before somebody else gets it.
        self.worker.run_on_loop(super()._close)


class LoopConnection(WatchedConnection):
    """A connection whose handler waits on the loop itself, in one of its greenlets or Tasks."""

    __slots__ = ()

    def __init__(self, *opened: Any) -> None:
        super().__init__(*opened)
        self.socket.setblocking(False)
        self._watch()

    def _read_rest(self) -> None:
        self.worker.run_on_loop(super()._read_rest)

    def _peek(self) -> None:
        if not self.worker.on_loop():  # it would read beside the loop
            return
        # A handler is running: another one cannot be switched to, only woken.
        waiter, self._waiter = self._waiter, None
        try:
            self.read()
        finally:
            self._waiter = waiter
        self._wake()
