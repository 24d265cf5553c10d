"""The kept rooms of a worker: its members get each message once, and in one order.

All of it is on the backplane's loop, but what :class:`.Delivery` does for it on the worker's: there
a member joins between two messages, and gets those that it has missed at that very point.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Protocol, TypeVar
from weakref import ref

from ..connection.connection import Connection
from ..exceptions import RoomError
from ..helpers.log import RateLimit, logger
from .backplane import Backplane, Log
from .delivery import Delivery
from .exchange import Exchange
from .futures import uncancellable
from .metrics import RoomsMetrics
from .options import History
from .positions import Joined, Position
from .reader import Passed, Reader, Resync
from .record import KeptRecord
from .replay import REPLAYED, REPLAYED_SIZE, Entry, Incomplete, Wanted, select

T = TypeVar("T")

#: Seconds between two looks at all logs: a hint may be lost without a sign, as of a process that is
#: killed between append and announcement; and a log that is in use must not expire.
_INTERVAL = 30.0
#: Seconds to wait after an attempt to read that has failed, at first and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
#: Clients for which logs are read at a time: the others wait, when all come back at once.
_AT_A_TIME = 64
#: Attempts to catch a log at rest, of which what is read and what is heard have to meet.
_ATTEMPTS = 5


class Members(Protocol):
    """Who is in which channel; see :class:`.Membership`."""

    def members(self, channel: str) -> Collection[Connection]: ...

    def admit(self, connection: Connection, channel: str) -> bool: ...


class _Room:
    """What the worker has of one room, while it has members or some who join."""

    __slots__ = ("has_heard", "is_reading", "joining", "reader", "seconds", "tees")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        #: None until it is known where the log ends.
        self.reader: Reader | None = None
        #: Whether there was a hint before.
        self.has_heard = False
        self.is_reading = False
        self.joining = 0
        #: What is passed on meanwhile, for each of those who wait for what they have missed.
        self.tees: dict[object, list[KeptRecord]] = {}


class KeptRooms:
    """The kept rooms that a worker has members of.

    :param delivery: gets their messages, in order.
    :param metrics: count what is read, and who comes back.
    """

    def __init__(
        self, exchange: Exchange, members: Members, delivery: Delivery, metrics: RoomsMetrics
    ) -> None:
        self._exchange = exchange
        self._metrics = metrics
        self._members = members
        self._delivery = delivery
        self._rooms: dict[str, _Room] = {}
        self._slots = asyncio.Semaphore(_AT_A_TIME)
        self._has_begun = False
        self._warning = RateLimit()

    # -- what the backplane tells ----------------------------------------------------------

    def hear(self, record: KeptRecord) -> None:
        """Take a hint."""
        channel = record.channels[0]
        room = self._rooms.get(channel)
        if room is None:  # nobody is here
            return
        if room.reader is None:
            room.has_heard = True
        elif self._delivery.is_full:
            room.reader.doubt()
        else:
            self._pass(channel, room, room.reader.hear(record))
        self._follow(channel, room)

    def miss(self, channels: Collection[str] | None = None) -> None:
        """Read what may have been missed, of some channels or of all."""
        for channel, room in tuple(self._rooms.items()):
            if room.reader is not None and (channels is None or channel in channels):
                room.reader.doubt()
                self._follow(channel, room)

    def position(self, channel: str) -> str | None:
        """Return up to where the members of a channel have got all."""
        room = self._rooms.get(channel)
        return None if room is None or room.reader is None else str(room.reader.position)

    # -- from any thread -------------------------------------------------------------------

    def left(self, channel: str) -> None:
        """Take note that a channel has a member less."""
        if channel in self._rooms:
            self._exchange.run_soon(partial(self._look, channel))

    async def _look(self, channel: str) -> None:
        room = self._rooms.get(channel)
        if room is not None and not room.joining and not self._members.members(channel):
            del self._rooms[channel]

    # -- coroutines on the loop ------------------------------------------------------------

    async def join(
        self, connection: Connection, channel: str, history: History, wanted: Wanted
    ) -> Joined:
        """Make a member of one that has its place, and is subscribed for.

        :raises BackplaneUnavailable: when the log cannot be read.
        """
        room = self._rooms.setdefault(channel, _Room(history.seconds))
        room.joining += 1
        self._begin()
        try:
            return await self._join(connection, channel, room, wanted)
        finally:
            room.joining -= 1
            await self._look(channel)

    async def _join(
        self, connection: Connection, channel: str, room: _Room, wanted: Wanted
    ) -> Joined:
        waiting = object()
        tee = room.tees[waiting] = []
        try:
            missed, position = await self._missed(channel, room, wanted, tee)
        finally:
            del room.tees[waiting]
        # Until the next await nothing is passed on, so that all that comes is above `position`.
        entry = Entry(channel, missed or [], position, wanted.recovered(missed))
        admitted = uncancellable()
        self._delivery.do(partial(self._admit, connection, entry, admitted))
        await asyncio.wrap_future(admitted)
        self._count(entry)
        return entry.joined

    def _admit(self, connection: Connection, entry: Entry, admitted: Future[None]) -> None:
        """Let a member in, on the worker's loop, with what it has missed."""
        try:
            if self._members.admit(connection, entry.channel):
                self._delivery.welcome(connection, entry)
        finally:
            admitted.set_result(None)

    def _count(self, entry: Entry) -> None:
        counts = self._metrics.of(entry.channel)
        counts.recovered += entry.recovered is True
        counts.resync += entry.recovered is False
        counts.replayed += len(entry.missed)

    async def _missed(
        self, channel: str, room: _Room, wanted: Wanted, tee: list[KeptRecord]
    ) -> tuple[list[KeptRecord] | None, Position]:
        """Return what a client has missed, and up to where that is; None where it is gone."""
        reader = await self._opened(channel, room)
        if wanted.is_nothing or wanted.is_in_vain(reader.position):
            return None, reader.position
        async with self._slots:
            for _ in range(_ATTEMPTS):
                asked = reader.start_reading()
                try:
                    log = await self._read(channel, wanted.begin(asked), room)
                except BaseException:
                    self._doubt(channel, room)
                    raise
                self._pass(channel, room, reader.take(log, asked))
                self._follow(channel, room)
                with suppress(Incomplete):
                    return select(wanted, log, tee, reader.position), reader.position
        return None, reader.position

    async def _opened(self, channel: str, room: _Room) -> Reader:
        """Return the reader of a room; begin to read at the end of the log."""
        if room.reader is None:
            position = await self._call(partial(_touch, channel, room.seconds))
            if room.reader is None:
                room.reader = Reader(position)
                if room.has_heard:
                    self._doubt(channel, room)
        return room.reader

    async def _read(self, channel: str, after: int, room: _Room) -> Log:
        """Read a log; begin one where it is gone."""
        log = await self._call(
            lambda backplane: backplane.read(channel, after, REPLAYED, REPLAYED_SIZE)
        )
        if not log.epoch:
            log = Log(*await self._call(partial(_touch, channel, room.seconds)))
        return log

    async def _call(self, do: Callable[[Backplane], Awaitable[T]]) -> T:
        return await self._exchange.call("history", do)

    # -- how readers go on -----------------------------------------------------------------

    def _pass(self, channel: str, room: _Room, passed: Iterable[Passed]) -> None:
        """Have members get what a reader passes on."""
        for each in passed:
            if isinstance(each, Resync):
                self._metrics.of(channel).resyncs += 1
                tell = partial(self._delivery.tell_to_resync, channel, each.position)
                self._delivery.do(tell)
                continue
            self._delivery.receive_anyway(each)
            for tee in room.tees.values():
                tee.append(each)

    def _doubt(self, channel: str, room: _Room) -> None:
        if room.reader is not None:
            room.reader.doubt()
            self._follow(channel, room)

    def _follow(self, channel: str, room: _Room) -> None:
        """Read what a reader misses, if it does."""
        if room.reader is not None and room.reader.is_behind and not room.is_reading:
            room.is_reading = True
            self._exchange.run_soon(partial(self._catch_up, channel, room, room.reader))

    async def _catch_up(self, channel: str, room: _Room, reader: Reader) -> None:
        """Read on until nothing is missing, or nobody is here any more."""
        pause = 0.0
        try:
            while reader.is_behind and self._rooms.get(channel) is room:
                await asyncio.sleep(pause)
                pause = min(_LONGEST_PAUSE, pause * 2 or _FIRST_PAUSE)
                if not self._delivery.is_full and await self._read_on(channel, room, reader):
                    pause = 0.0
        finally:
            room.is_reading = False

    async def _read_on(self, channel: str, room: _Room, reader: Reader) -> bool:
        """Read once; return whether that has led on."""
        asked = reader.start_reading()
        try:
            log = await self._read(channel, asked.offset, room)
        except (RoomError, ValueError) as error:
            # ValueError: what another release has written.
            reader.doubt()
            if self._warning.passes():
                logger.warning("a kept room cannot be read on: %s", error)
            return False
        if self._rooms.get(channel) is not room:  # those who are there now have another reader
            return False
        self._metrics.of(channel).repairs += 1
        self._pass(channel, room, reader.take(log, asked))
        return reader.position != asked

    def _begin(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._exchange.run_soon(partial(_tick, ref(self)), _INTERVAL)

    async def look(self) -> None:
        """See whether logs are where their readers are, and have them live on."""
        self._exchange.run_soon(partial(_tick, ref(self)), _INTERVAL)
        for channel, room in tuple(self._rooms.items()):
            await asyncio.sleep(0)  # they may be many
            try:
                end = await self._call(partial(_touch, channel, room.seconds))
            except RoomError:
                return
            if room.reader is not None and end != room.reader.position:
                self._doubt(channel, room)


async def _touch(channel: str, seconds: float, backplane: Backplane) -> Position:
    return await backplane.touch(channel, seconds)


async def _tick(reference: ref[KeptRooms]) -> None:
    rooms = reference()
    if rooms is not None:
        await rooms.look()
