"""The presence of a worker's clients: tells the store, and hears who came and left for good."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from enum import Enum
from functools import partial
from typing import NamedTuple
from weakref import ref

from ...connection.connection import Connection
from ...exceptions import RoomFull
from ...helpers.log import RateLimit, logger
from ..backplane import Backplane
from ..channels import room_channel, room_of
from ..counting import Count, count_of_occupants
from ..exchange import Exchange
from ..futures import settle, unavailable, uncancellable
from ..metrics import RoomsMetrics
from ..options import RoomPatterns
from .announcements import Announcements
from .asking import occupants_of
from .changes import Change, Changes
from .members import Left, Member, Members, Occupant, member_who_came, member_who_left, members_of

#: Seconds between two questions who has left for good, and two attempts to tell what the store
#: could not be told.
INTERVAL = 1.0
#: Seconds to try it in when the worker ends, which has more to do then.
_LAST_TIME = 0.5


class Happened(Enum):
    """What somebody can ask to be told of a room."""

    JOIN = "on_join"
    LEAVE = "on_leave"
    EMPTY = "on_room_empty"


class Event(NamedTuple):
    """Something that happened in a room, once for all workers; this one is told."""

    what: Happened
    room: str
    #: Who came or left; None where the room is empty.
    member: Member | None = None


class Presence:
    """Keeps the store up to date about the connections of this worker.

    :param exchange: with the backplane that is the store.
    :param patterns: the options of rooms.
    :param tell: is called with each :class:`Event`, on the loop. It must not wait.
    :param is_stopping: tells whether the worker has been told to stop: others hear of events then.
    :param metrics: count those whom this worker takes out.
    """

    def __init__(
        self,
        exchange: Exchange,
        patterns: RoomPatterns,
        tell: Callable[[Event], object],
        is_stopping: Callable[[], bool],
        metrics: RoomsMetrics | None = None,
    ) -> None:
        self._exchange = exchange
        self._patterns = patterns
        self._call_app = tell
        self._announcements = Announcements(exchange)
        self._is_stopping = is_stopping
        self._counts = (metrics or RoomsMetrics()).backplane
        self._changes = Changes()
        self._here: dict[tuple[Connection, str], Occupant] = {}
        self._has_begun = self._is_applying = self._is_sweeping = False
        self._warning = RateLimit()

    # -- from any thread -----------------------------------------------------------------

    def begin(self) -> None:
        """Hear from now on what happened; once is enough."""
        if not self._has_begun:
            self._has_begun = True
            self._exchange.run_soon(partial(_tick, ref(self)), INTERVAL)

    def entered(self, connection: Connection, room: str, info: str) -> Future[None]:
        """Tell the store that a connection is a member of a room.

        :param info: JSON; that of a member stays when it is null.
        :return: is done when the store knows it, or as soon as that has to wait; has
            :exc:`.RoomFull` when it does not let it in.
        """
        entered: Future[None] = uncancellable()
        client = connection.client
        if client is None:  # it has ended
            entered.set_result(None)
            return entered
        channel, options = room_channel(room), self._patterns.of(room)
        known = self._here.get((connection, channel))
        grace = 0.0 if options.presence is None else options.presence.grace
        occupant = Occupant(
            channel,
            client.id,
            client.user or client.id,
            known.info if known is not None and info == "null" else info,
            time.time(),
            grace if client.user else 0.0,  # a connection of nobody's does not come back
            options.max_members or 0,
        )
        self.begin()
        self._put(Change(occupant, entered))
        # Behind that, so that whoever leaves meanwhile is not told of before it has entered.
        self._here[connection, channel] = occupant
        return entered

    def left(self, connection: Connection, channel: str) -> None:
        """Tell the store, if it is concerned, that a connection is no member any more."""
        occupant = self._here.pop((connection, channel), None)
        if occupant is not None:
            self._put(Change(occupant, None, has_left=True))

    def _put(self, change: Change) -> None:
        if self._changes.put(change):
            self._exchange.run_soon(self._apply)

    # -- coroutines, for any loop --------------------------------------------------------

    async def who(self, room: str) -> Members:
        """Return who is in a room, on all workers."""
        return members_of(*await occupants_of(self._exchange, room))

    async def count(self, room: str) -> Count:
        """Count who is in a room, on all workers."""
        return count_of_occupants(*await occupants_of(self._exchange, room))

    # -- on the loop ---------------------------------------------------------------------

    async def look(self) -> None:
        """Try again what failed, and hear of those who have left."""
        if self._has_begun:
            self._exchange.run_soon(partial(_tick, ref(self)), INTERVAL)
            await self._apply()
            await self._sweep()

    async def _apply(self) -> None:
        """Tell the store what waits, and what comes meanwhile."""
        if self._is_applying:
            return
        self._is_applying = True
        try:
            while batch := self._changes.take():
                if not await self._apply_batch(batch):
                    break  # the next tick tries again
        finally:
            self._is_applying = False

    async def _apply_batch(self, batch: list[Change]) -> bool:
        try:
            await (self._leave(batch) if batch[0].has_left else self._enter(batch))
        except Exception as error:
            self._delay(batch, error)
            return False
        return True

    async def _enter(self, batch: list[Change]) -> None:
        occupants = [change.occupant for change in batch]
        results = await self._exchange.call(
            "presence", lambda backplane: backplane.enter(occupants)
        )
        for (occupant, entered, _), is_new in zip(batch, results, strict=True):
            if is_new is None:
                settle(entered, _full(occupant))
                continue
            settle(entered, None)
            if is_new:
                self._tell(Event(Happened.JOIN, _room(occupant), member_who_came(occupant)))

    async def _leave(self, batch: list[Change]) -> None:
        keys = [change.key for change in batch]
        await self._exchange.call("presence", lambda backplane: backplane.leave(keys))
        if any(not change.occupant.grace for change in batch):
            await self._sweep()

    def _delay(self, batch: list[Change], error: BaseException) -> None:
        """Have all that waits tried again later; let nobody wait for it, or take a seat by it."""
        if self._warning.passes():
            logger.warning("who is in a room is not known to all workers: %s", error)
        changes = batch + self._changes.take_all()
        for occupant, entered, _ in changes:
            settle(entered, unavailable(error) if occupant.limit else None)
        self._changes.put_back(
            [each._replace(entered=None) for each in changes if not _is_seat(each)]
        )

    async def _sweep(self) -> None:
        """Tell of those who have left for good, unless others do."""
        if self._is_stopping() or self._is_sweeping:
            return
        self._is_sweeping = True
        try:
            while left := await self._exchange.call("presence", _sweep):
                self._counts.swept += len(left)
                self._tell_of(left)
        except Exception as error:
            if self._warning.passes():
                logger.warning("who has left a room is not known now: %s", error)
        finally:
            self._is_sweeping = False

    def _tell(self, event: Event) -> None:
        self._call_app(event)
        if event.member is not None and self._patterns.of(event.room).announce:
            self._announcements.add(event.room, event.member, event.what is Happened.LEAVE)

    def _tell_of(self, left: Sequence[Left]) -> None:
        for each in left:
            room = room_of(each.channel) or ""
            self._tell(Event(Happened.LEAVE, room, member_who_left(each)))
            if each.room_is_empty:
                self._tell(Event(Happened.EMPTY, room))

    async def stop(self) -> None:
        """Tell the store what waits, if it takes it, when the worker ends; then nothing more."""
        deadline = time.monotonic() + _LAST_TIME
        while (len(self._changes) or self._is_applying) and time.monotonic() < deadline:
            await self._apply()
            await asyncio.sleep(0.005)
        self._has_begun = False

    def leave_to_parent(self) -> None:
        """Forget all, in a child process."""
        self._changes.leave_to_parent()
        self._here.clear()


def _sweep(backplane: Backplane) -> Awaitable[Sequence[Left]]:
    return backplane.sweep()


async def _tick(reference: ref[Presence]) -> None:
    """Look, now and then, for as long as there is anybody who uses it."""
    presence = reference()
    if presence is not None:
        await presence.look()


def _is_seat(change: Change) -> bool:
    """Return whether a connection waits for whether it may be in the room."""
    return change.entered is not None and change.occupant.limit > 0


def _room(occupant: Occupant) -> str:
    return room_of(occupant.channel) or ""


def _full(occupant: Occupant) -> RoomFull:
    return RoomFull(
        f"the room {_room(occupant)!r} has {occupant.limit} members, which is all it may have"
    )
