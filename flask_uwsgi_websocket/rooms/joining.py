"""How connections of this worker join rooms, and what each kind of room asks for that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from typing import Any

from ..connection.connection import Connection
from ..exceptions import ConnectionClosed, RoomError, RoomFull
from ..helpers.log import RateLimit, logger
from .channels import room_channel, room_of
from .counting import Count
from .exchange import Exchange
from .futures import bounded
from .kept import KeptRooms
from .membership import Membership
from .options import RoomOptions, RoomPatterns
from .positions import Joined
from .presence.presence import Presence
from .replay import NOTHING, Wanted


class Joining:
    """Lets connections join rooms, and leave them.

    :param count: asks how many are in a room.
    :param patience: seconds for the whole of a join: several steps of it may wait.
    """

    def __init__(
        self,
        exchange: Exchange,
        membership: Membership,
        presence: Presence,
        patterns: RoomPatterns,
        count: Callable[[str], Awaitable[Count]],
        patience: float,
    ) -> None:
        self._exchange = exchange
        self._membership = membership
        self._presence = presence
        self._patterns = patterns
        self._count = count
        self._patience = patience
        self._refusals = RateLimit(5)
        #: Since there is a connection.
        self.kept: KeptRooms | None = None

    def let_join(self, connection: Connection, room: str) -> None:
        """Do :meth:`.Moves.let_join`."""
        channel = room_channel(room)
        options = self._patterns.of(room)
        if options.history is not None:
            joining = self._join_kept(connection, room, options, "null", NOTHING)
            self._exchange.run_soon(partial(self._join_alone, joining, room))
            return
        was_member = connection in self._membership.members(channel)
        if options.presence is None:
            self._membership.add(connection, channel)
        elif not was_member:
            self._membership.add(connection, channel, is_member=options.max_members is None)
            entered = self._enter(connection, room, "null")
            entered.add_done_callback(partial(self._admit_or_let_out, connection, room))

    def _admit_or_let_out(self, connection: Connection, room: str, entered: Future[None]) -> None:
        if entered.exception() is None:
            self._membership.admit_and_tell(connection, room_channel(room))
        else:
            self.let_leave(connection, room)

    def let_leave(self, connection: Connection, room: str) -> None:
        """Do :meth:`.Moves.let_leave`."""
        self._membership.remove(connection, room_channel(room))

    def join(
        self,
        connection: Connection,
        room: str,
        info: str = "null",
        wanted: Wanted = NOTHING,
    ) -> Joined | Coroutine[Any, Any, Joined]:
        """Have a connection join a room.

        :param info: JSON for the others, where there is presence.
        :param wanted: what it is to get of the past, where the room is kept.
        :return: how it is in the room; or what has to be run until that is in force.
        :raises RoomError: see :meth:`Rooms.join`.
        """
        channel = room_channel(room)
        options = self._patterns.of(room)
        if options.history is not None:
            return self._join_kept(connection, room, options, info, wanted)
        was_member = connection in self._membership.members(channel)
        joined = Joined(room, None, wanted.recovered(None))
        if options.presence is not None:
            # Who may be refused is not to hear what the members do meanwhile.
            is_sure = was_member or options.max_members is None
            return self._join_and_tell(connection, room, info, was_member, is_sure, joined)
        if options.max_members is not None and not was_member:
            return self._join_limited(connection, room, options.max_members, joined)
        subscribing = self._membership.add(connection, channel)
        if subscribing is None:
            return joined
        return self._complete(connection, channel, subscribing, was_member, joined)

    async def _join_limited(
        self, connection: Connection, room: str, limit: int, joined: Joined
    ) -> Joined:
        await self._check_limit(room, limit)
        channel = room_channel(room)
        subscribing = self._membership.add(connection, channel)
        if subscribing is not None:
            await self._complete(connection, channel, subscribing)
        return joined

    async def _check_limit(self, room: str, limit: int) -> None:
        if (await self._count(room)).connections >= limit:
            raise RoomFull(f"the room {room!r} has {limit} members, which is all it may have")

    async def _join_and_tell(
        self,
        connection: Connection,
        room: str,
        info: str,
        was_member: bool,
        is_sure: bool,
        joined: Joined,
    ) -> Joined:
        channel = room_channel(room)
        subscribing = self._membership.add(connection, channel, is_member=is_sure)
        if subscribing is not None:
            await self._complete(connection, channel, subscribing, was_member)
        entered = self._enter(connection, room, info)
        await self._complete(connection, channel, entered, was_member)
        if not is_sure:
            self._membership.admit_and_tell(connection, channel)
        return joined

    def _enter(self, connection: Connection, room: str, info: str) -> Future[None]:
        """Do :meth:`.Presence.entered` for one that has a place, unless it has lost that by now."""
        entered = self._presence.entered(connection, room, info)
        channel = room_channel(room)
        if not self._membership.has_place(connection, channel):
            self._presence.left(connection, channel)
        return entered

    async def _join_kept(
        self,
        connection: Connection,
        room: str,
        options: RoomOptions,
        info: str,
        wanted: Wanted,
    ) -> Joined:
        """Give a connection its place, and make a member of it once it has what it has missed."""
        channel = room_channel(room)
        was_member = connection in self._membership.members(channel)
        if options.max_members is not None and options.presence is None and not was_member:
            await self._check_limit(room, options.max_members)
        subscribing = self._membership.add(connection, channel, is_member=False)
        if subscribing is not None:
            await self._complete(connection, channel, subscribing, was_member)
        if options.presence is not None:
            entered = self._enter(connection, room, info)
            await self._complete(connection, channel, entered, was_member)
        assert self.kept is not None
        assert options.history is not None
        if was_member:
            return Joined(room, self.kept.position(channel))
        joining = self.kept.join(connection, channel, options.history, wanted)
        try:
            # In no time of its own: each step of it has one, but not how long others take before.
            joined = await self._exchange.on_loop(joining)
        except BaseException:
            self._membership.remove(connection, channel, has_failed=True)
            raise
        if connection.ended:
            raise connection.closed_error()
        return joined

    async def _complete(
        self,
        connection: Connection,
        channel: str,
        joining: Future[None],
        was_member: bool = False,
        joined: Joined | None = None,
    ) -> Joined:
        """Wait for what makes the join of a connection complete; undo that where it fails."""
        try:
            await bounded(joining, self._patience)
        except BaseException:
            if not was_member:
                self._membership.remove(connection, channel)
            raise
        if connection.ended:  # and so it is no member any more, or not for long
            raise connection.closed_error()
        return joined or Joined(room_of(channel) or "")

    async def _join_alone(self, joining: Coroutine[Any, Any, Joined], room: str) -> None:
        """Have somebody join for whom nobody waits."""
        try:
            await joining
        except ConnectionClosed:
            pass
        except RoomError as error:
            if self._refusals.passes():
                logger.warning("a client cannot join %r: %s", room, error)
