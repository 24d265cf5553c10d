"""Workers without uWSGI: backplanes of Redis on one loop, and what each has heard."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

from flask_uwsgi_websocket.rooms.backplane import BackplaneOptions, Inbox
from flask_uwsgi_websocket.rooms.record import Kind, Record
from flask_uwsgi_websocket.rooms.redis.backplane import RedisBackplane
from tests.server import PATIENCE


class Heard(Inbox):
    """An inbox that keeps all."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.gaps: list[tuple[Collection[str] | None, int]] = []
        self.states: list[str | None] = []

    def record(self, record: Record) -> None:
        self.records.append(record)

    def gap(self, channels: Collection[str] | None = None, lost: int = 0) -> None:
        self.gaps.append((channels, lost))

    def health(self, error: str | None) -> None:
        self.states.append(error)

    @property
    def numbers(self) -> list[int]:
        return [record.number for record in self.records]

    async def until(self, happened: Callable[[], Any]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not happened():
            assert time.monotonic() < deadline, (self.numbers[-5:], self.gaps, self.states[-5:])
            await asyncio.sleep(0.005)

    async def has(self, count: int) -> None:
        await self.until(lambda: len(self.records) >= count)


class Member:
    """A backplane and what its inbox has heard."""

    def __init__(self, url: str, name: str, timeout: float = 2.0) -> None:
        options = BackplaneOptions("shop", name, timeout=timeout)
        self.backplane = RedisBackplane(url, options)
        self.heard = Heard()
        self.origin = name.encode().ljust(8)[:8]
        self.sent = 0

    def record(self, *channels: str, data: bytes = b"hi") -> Record:
        self.sent += 1
        return Record(Kind.MESSAGE, channels, data, origin=self.origin, number=self.sent)

    async def publish(self, *channels: str, data: bytes = b"hi") -> BaseException | None:
        [error] = await self.backplane.publish([self.record(*channels, data=data)])
        return error

    async def comes_through(self, other: Member, channel: str) -> None:
        """Publish until it is heard, which says that both are connected again."""
        deadline = time.monotonic() + PATIENCE
        while True:
            if await self.publish(channel) is None:
                again = time.monotonic() + 0.5  # on a busy machine the way takes a while
                while time.monotonic() < again:
                    await asyncio.sleep(0.02)
                    if self.sent in other.heard.numbers:
                        return
            assert time.monotonic() < deadline, (other.heard.states[-3:], self.heard.states[-3:])


@asynccontextmanager
async def members(*urls: str, timeout: float = 2.0) -> AsyncIterator[list[Member]]:
    made = [Member(url, f"worker{index}", timeout) for index, url in enumerate(urls)]
    for member in made:
        await member.backplane.start(member.heard)
    try:
        yield made
    finally:
        for member in made:
            await member.backplane.stop()
