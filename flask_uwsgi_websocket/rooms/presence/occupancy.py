"""Who is in which room, in the memory of one process."""

from __future__ import annotations

import time
from _thread import RLock
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from .members import Left, Occupant


@dataclass(slots=True)
class _User:
    """A user in a room, and the ids of those of the connections that are there."""

    latest: Occupant
    connections: dict[str, None] = field(default_factory=dict)
    #: When the grace ends, by the clock; None while there is a connection.
    ends: float | None = None


class Occupancy:
    """Does what :class:`~.store.PresenceStore` promises. From any thread."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._rooms: dict[str, dict[str, _User]] = {}
        self._users: dict[tuple[str, str], str] = {}  # by channel and connection
        self._ending: dict[tuple[str, str], float] = {}  # by channel and user, in grace

    def enter(self, occupants: Iterable[Occupant]) -> list[bool | None]:
        """Do :meth:`.PresenceStore.enter`."""
        with self._lock:
            return [self._enter(each) for each in occupants]

    def _enter(self, occupant: Occupant) -> bool | None:
        channel = occupant.channel
        users = self._rooms.get(channel, {})
        user = users.get(occupant.user)
        is_new = user is None
        if user is None:
            if occupant.limit and len(users) >= occupant.limit:
                return None
            user = _User(occupant)
            self._rooms.setdefault(channel, {})[occupant.user] = user
        user.latest = replace(occupant, since=user.latest.since)
        user.connections[occupant.connection] = None
        user.ends = None
        self._ending.pop((channel, occupant.user), None)
        self._users[channel, occupant.connection] = occupant.user
        return is_new

    def leave(self, leaving: Iterable[tuple[str, str]]) -> None:
        """Do :meth:`.PresenceStore.leave`."""
        now = time.monotonic()
        with self._lock:
            for channel, connection in leaving:
                name = self._users.pop((channel, connection), None)
                if name is not None:
                    self._leave(channel, name, connection, now)

    def _leave(self, channel: str, name: str, connection: str, now: float) -> None:
        user = self._rooms[channel][name]
        del user.connections[connection]
        if not user.connections:
            user.ends = self._ending[channel, name] = now + user.latest.grace

    def occupants(self, channel: str) -> list[Occupant]:
        """Do :meth:`.PresenceStore.occupants`."""
        with self._lock:
            return [
                replace(user.latest, connection=connection)
                for user in self._rooms.get(channel, {}).values()
                for connection in user.connections or ("",)
            ]

    def sweep(self) -> list[Left]:
        """Do :meth:`.PresenceStore.sweep`."""
        now = time.monotonic()
        with self._lock:
            over = [(ends, *key) for key, ends in self._ending.items() if ends <= now]
            return [self._remove(channel, name) for _, channel, name in sorted(over)]

    def _remove(self, channel: str, name: str) -> Left:
        del self._ending[channel, name]
        users = self._rooms[channel]
        latest = users.pop(name).latest
        if not users:
            del self._rooms[channel]
        return Left(channel, name, latest.info, latest.since, not users)
