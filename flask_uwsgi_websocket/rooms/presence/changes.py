"""What has to be told to a store, in the order in which it happened."""

from __future__ import annotations

from _thread import RLock
from collections import deque
from concurrent.futures import Future
from itertools import takewhile
from typing import NamedTuple

from .members import Occupant

#: How many a store is told at a time.
BATCH = 500


class Change(NamedTuple):
    """A connection that entered a room, or left it.

    :param entered: whether somebody waits for the store to know it, and how.
    """

    occupant: Occupant
    entered: Future[None] | None
    has_left: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """What it is about: the channel and the connection."""
        return self.occupant.channel, self.occupant.connection


class Changes:
    """Waits for the store. From any thread."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._waiting: deque[Change] = deque()

    def put(self, change: Change) -> bool:
        """Add one; return whether it is the only one."""
        with self._lock:
            self._waiting.append(change)
            return len(self._waiting) == 1

    def take(self) -> list[Change]:
        """Return the next ones that are of a kind."""
        with self._lock:
            if not self._waiting:
                return []
            kind = self._waiting[0].has_left
            batch = list(takewhile(lambda each: each.has_left is kind, self._waiting))[:BATCH]
            for _ in batch:
                self._waiting.popleft()
            return batch

    def take_all(self) -> list[Change]:
        """Return all that wait, of both kinds."""
        with self._lock:
            batch = list(self._waiting)
            self._waiting.clear()
            return batch

    def put_back(self, changes: list[Change]) -> None:
        """Try these again before all others, but of each connection only how it has ended.

        So a store that is away for an hour does not cost memory for all that happened meanwhile.
        """
        latest = {each.key: each for each in changes}
        with self._lock:
            self._waiting.extendleft(each for each in reversed(changes) if latest[each.key] is each)

    def __len__(self) -> int:
        return len(self._waiting)

    def leave_to_parent(self) -> None:
        """Forget all, in a child process."""
        self._lock = RLock()
        self._waiting.clear()
