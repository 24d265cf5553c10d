"""Who is in which channel, in this worker."""

from __future__ import annotations

from _thread import RLock
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from functools import partial

from ..connection.connection import Connection
from ..exceptions import TooManyRooms
from .channels import ALL, room_of
from .envelope import Enveloped, encode_joined, encode_left, is_enveloped, tell
from .exchange import Exchange
from .metrics import RoomsMetrics


class Membership:
    """The members of the channels of one worker: connections.

    A connection leaves all of its channels when it is released, whatever its end. From any thread.

    :param exchange: is subscribed to the channels that have members.
    :param everybody: returns all open connections, the members of :data:`~.channels.ALL`.
    :param max_rooms: how many rooms a connection may be in.
    :param on_left: is called with each connection that has left a channel.
    :param metrics: count rooms, and who comes and leaves.
    """

    def __init__(
        self,
        exchange: Exchange,
        everybody: Callable[[], Iterable[Connection]],
        max_rooms: int,
        on_left: Callable[[Connection, str], object] = lambda connection, channel: None,
        metrics: RoomsMetrics | None = None,
    ) -> None:
        self._exchange = exchange
        self._everybody = everybody
        self._max_rooms = max_rooms
        self._on_left = on_left
        self._metrics = metrics or RoomsMetrics()
        self._lock = RLock()
        # Dicts, since they keep the order, and weigh less than large sets.
        self._members: dict[str, dict[Connection, None]] = {}
        #: The channels of those that are, or were, in one: tuples, since most have few.
        self._joined: dict[Connection, tuple[str, ...]] = {}

    def add(
        self, connection: Connection, channel: str, is_member: bool = True
    ) -> Future[None] | None:
        """Add a member; what it is already it stays.

        :param is_member: False for one that becomes a member when it is admitted: until then it has
            a place, and the channel is subscribed to for it.
        :return: what to wait for until the membership is in force; None when it is.
        :raises ConnectionClosed: when the connection has ended.
        :raises TooManyRooms: when it is in as many rooms as it may.
        """
        subscribing = self._exchange.subscribe(channel)
        # A thread that is interrupted may have entered: a subscription too many harms less than
        # one too few, which others need.
        is_new = True
        try:
            is_new = self._enter(connection, channel, is_member)
        except TooManyRooms:
            is_new = False
            raise
        finally:
            if not is_new:
                self._exchange.unsubscribe(channel)
        if connection.ended:  # looked at last, so that an end meanwhile leaves nothing behind
            self._remove_from_all(connection)
            raise connection.closed_error()
        if is_new and is_member:
            self._tell(connection, channel, encode_joined)
        return subscribing

    @staticmethod
    def _tell(connection: Connection, channel: str, encode: Callable[[str], Enveloped]) -> None:
        """Tell a client that wants to know that it is, or is not, in a room."""
        if is_enveloped(connection) and (room := room_of(channel)) is not None:
            tell(connection, encode(room))

    def admit(self, connection: Connection, channel: str) -> bool:
        """Make a member of one that has a place; return whether it was none, and is one now."""
        with self._lock:
            is_there = channel in self._joined.get(connection, ())
            if not is_there or connection in self._members.get(channel, ()):
                return False
            self._let_in(connection, channel)
        return True

    def admit_and_tell(self, connection: Connection, channel: str) -> None:
        """Do :meth:`admit`, and tell a client that wants to know."""
        if self.admit(connection, channel):
            self._tell(connection, channel, encode_joined)

    def has_place(self, connection: Connection, channel: str) -> bool:
        """Return whether a connection is a member, or is about to be one."""
        return channel in self._joined.get(connection, ())

    def _enter(self, connection: Connection, channel: str, is_member: bool) -> bool:
        if connection not in self._joined:
            connection.on_release(partial(self._remove_from_all, connection))
        with self._lock:
            joined = self._joined.get(connection, ())
            if connection in self._members.get(channel, ()):
                return False
            if not is_member and channel in joined:
                return False
            if len(joined) >= self._max_rooms and room_of(channel) is not None:
                self._check_number(joined)
            self._joined[connection] = (*joined, channel)  # first: what leaves goes by it
            if is_member:
                self._let_in(connection, channel)
        return True

    def _let_in(self, connection: Connection, channel: str) -> None:
        is_new = channel not in self._members
        self._members.setdefault(channel, {})[connection] = None
        if room_of(channel) is not None:
            self._metrics.rooms += is_new
            self._metrics.of(channel).joins += 1

    def _check_number(self, joined: tuple[str, ...]) -> None:
        if sum(room_of(channel) is not None for channel in joined) >= self._max_rooms:
            raise TooManyRooms(
                f"this client is in {self._max_rooms} rooms already, UWSGI_WEBSOCKET_MAX_ROOMS"
            )

    def remove(self, connection: Connection, channel: str, has_failed: bool = False) -> None:
        """Remove a member, or one that has a place.

        :param has_failed: whether its join to a kept room has failed: a client that is told that it
            is out forgets its position, which it needs for the next one.
        """
        with self._lock:
            joined = self._joined.get(connection, ())
            if channel not in joined:
                return
            was_member = connection in self._members.get(channel, ())
            self._drop(connection, channel)
            # It keeps its place when it is empty: that says that its release will be told.
            self._joined[connection] = tuple(each for each in joined if each != channel)
        self._on_left(connection, channel)
        self._exchange.unsubscribe(channel)
        if was_member and not has_failed:
            self._tell(connection, channel, encode_left)

    def _remove_from_all(self, connection: Connection) -> None:
        with self._lock:
            joined = self._joined.pop(connection, ())
            for channel in joined:
                self._drop(connection, channel)
        for channel in joined:
            self._on_left(connection, channel)
            self._exchange.unsubscribe(channel)

    def _drop(self, connection: Connection, channel: str) -> None:
        members = self._members.get(channel, {})
        if connection not in members:  # whoever was interrupted while it entered, or has a place
            return
        del members[connection]
        is_room = room_of(channel) is not None
        if is_room:
            self._metrics.of(channel).leaves += 1
        if not members:
            del self._members[channel]
            self._metrics.rooms -= is_room

    def members(self, channel: str) -> Collection[Connection]:
        """Return those of a channel, some of which may have ended: to be copied in one step."""
        if channel == ALL:
            return tuple(self._everybody())
        return self._members.get(channel, ())

    def rooms_of(self, connection: Connection) -> frozenset[str]:
        """Return the names of the rooms that a connection is in."""
        rooms = map(room_of, self._joined.get(connection, ()))
        return frozenset(room for room in rooms if room is not None)

    def rooms(self) -> list[str]:
        """Return the names of all rooms that have members."""
        with self._lock:
            channels = list(self._members)
        return [room for channel in channels if (room := room_of(channel)) is not None]

    def leave_to_parent(self) -> None:
        """Forget all, in a child process."""
        self._lock = RLock()
        self._members.clear()
        self._joined.clear()
