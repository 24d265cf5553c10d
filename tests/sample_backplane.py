"""A third party's backplane, whose server is an object of this process with faults to make."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress

from flask_uwsgi_websocket.exceptions import BackplaneUnavailable
from flask_uwsgi_websocket.rooms.backplane import Backplane, BackplaneOptions, Inbox, Log, Published
from flask_uwsgi_websocket.rooms.channels import ALL
from flask_uwsgi_websocket.rooms.positions import Position
from flask_uwsgi_websocket.rooms.presence.members import Left, Occupant
from flask_uwsgi_websocket.rooms.presence.occupancy import Occupancy
from flask_uwsgi_websocket.rooms.record import KeptRecord, Kind, Record
from tests.sample_logs import Archive


class Loft:
    """The server: who is subscribed to what."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.answers.set()
        self.is_up = True
        self.connected: dict[PigeonBackplane, set[tuple[str, str]]] = {}
        self.known: list[PigeonBackplane] = []
        self.archive = Archive()
        self.occupancies: dict[str, Occupancy] = {}

    def fail(self) -> None:
        self.is_up = False
        self.answers.clear()
        for pigeon in list(self.connected):
            pigeon.disconnected()

    def pause(self) -> None:
        self.answers.clear()

    def recover(self) -> None:
        self.answers.set()
        if not self.is_up:
            self.is_up = True
            self.lose()

    def lose(self) -> None:
        for pigeon in list(self.known):
            pigeon.disconnected()
            pigeon.connect()


LOFTS: dict[str, Loft] = {}


class PigeonBackplane(Backplane):
    """What a worker has of it."""

    features = frozenset({"history", "presence"})

    def __init__(self, url: str, options: BackplaneOptions) -> None:
        super().__init__(url, options)
        self.wanted: set[str] = set()
        self.inbox: Inbox | None = None
        self.has_been_connected = False

    @property
    def loft(self) -> Loft:
        return LOFTS.setdefault(self.url, Loft())

    def key(self, channel: str) -> tuple[str, str]:
        return self.options.prefix, channel

    async def start(self, inbox: Inbox) -> None:
        self.inbox = inbox
        self.loft.known.append(self)
        if self.loft.is_up:
            self.connect()

    async def stop(self) -> None:
        self.inbox = None
        self.loft.connected.pop(self, None)
        if self in self.loft.known:
            self.loft.known.remove(self)

    def connect(self) -> None:
        self.loft.connected[self] = {self.key(channel) for channel in self.wanted}
        if self.inbox is not None:
            self.inbox.health(None)
            if self.has_been_connected:
                self.inbox.gap()
        self.has_been_connected = True

    def disconnected(self) -> None:
        self.loft.connected.pop(self, None)
        if self.inbox is not None:
            self.inbox.health("the loft is closed")

    async def subscribe(self, channels: Collection[str]) -> None:
        self.wanted.update(channels)
        await self.answer()
        self.loft.connected[self].update(map(self.key, channels))

    async def unsubscribe(self, channels: Collection[str]) -> None:
        self.wanted.difference_update(channels)
        self.loft.connected.get(self, set()).difference_update(map(self.key, channels))

    async def publish(self, records: Sequence[Record]) -> Sequence[Published]:
        try:
            await self.answer()
        except BackplaneUnavailable as error:
            return [error] * len(records)
        return [self.take(record) for record in records]

    def take(self, record: Record) -> Position | None:
        if not isinstance(record, KeptRecord):
            return self.deliver(record)
        kept = self.archive.append(self.key(record.channels[0]), record)
        if isinstance(kept, Position):
            return kept
        self.deliver(kept)
        return kept.position

    def deliver(self, record: Record) -> None:
        keys = set(map(self.key, record.channels))
        for pigeon, subscribed in list(self.loft.connected.items()):
            if keys & subscribed and pigeon.inbox is not None:
                pigeon.inbox.record(record)

    async def workers(self) -> int | None:
        key = self.key(ALL)
        return sum(key in subscribed for subscribed in self.loft.connected.values())

    @property
    def archive(self) -> Archive:
        return self.loft.archive

    async def read(self, channel: str, after: int, limit: int, max_size: int) -> Log:
        await self.answer()
        shelf = self.archive.shelves.get(self.key(channel))
        return shelf.read(after, limit, max_size) if shelf else Log("", 0)

    async def touch(self, channel: str, seconds: float) -> Position:
        await self.answer()
        return self.archive.of(self.key(channel)).position

    async def forget(self, channel: str) -> None:
        await self.answer()
        position = self.archive.forget(self.key(channel))
        if position is not None:
            self.deliver(KeptRecord(Kind.MESSAGE, (channel,), position=position))

    @property
    def occupancy(self) -> Occupancy:
        return self.loft.occupancies.setdefault(self.options.prefix, Occupancy())

    async def enter(self, occupants: Sequence[Occupant]) -> Sequence[bool | None]:
        await self.answer()
        return self.occupancy.enter(occupants)

    async def leave(self, leaving: Sequence[tuple[str, str]]) -> None:
        await self.answer()
        self.occupancy.leave(leaving)

    async def occupants(self, channel: str) -> tuple[Sequence[Occupant], bool]:
        try:
            await self.answer()
        except BackplaneUnavailable:
            return (), False
        return self.occupancy.occupants(channel), True

    async def sweep(self) -> Sequence[Left]:
        await self.answer()
        return self.occupancy.sweep()

    async def describe(self, text: str) -> None:
        await self.answer()
        self.archive.descriptions[self.options.prefix] = text

    async def description(self) -> str | None:
        await self.answer()
        return self.archive.descriptions.get(self.options.prefix)

    async def answer(self) -> None:
        """Wait for the loft to answer."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.loft.answers.wait(), self.options.timeout)
        if not self.loft.answers.is_set():
            raise BackplaneUnavailable("the loft does not answer")
