"""The backplane within one process: what tests, and servers of one process, need no other for.

Tests have it fail, to see what their app does then: see :class:`Faults`.
"""

from __future__ import annotations

import asyncio
import os
from _thread import RLock
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import ClassVar
from weakref import WeakSet, WeakValueDictionary

from ..exceptions import BackplaneUnavailable
from .backplane import Backplane, BackplaneOptions, Feature, Inbox, Log, Published
from .channels import ALL
from .memory_log import MemoryLogs
from .positions import Position
from .presence.members import Left, Occupant
from .presence.occupancy import Occupancy
from .record import KeptRecord, Kind, Record


class Faults:
    """What is wrong with the memory backplanes of one URL, in this process. From any thread."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._losing = 0
        self._started: WeakSet[MemoryBackplane] = WeakSet()
        #: Why nothing works; None while it does.
        self.error: str | None = None
        self._occupancies: dict[str, Occupancy] = {}
        self._logs: dict[str, MemoryLogs] = {}

    def logs(self, prefix: str) -> MemoryLogs:
        """Return what the rooms of an app keep; not even a fault loses it."""
        return self._logs.setdefault(prefix, MemoryLogs())

    def occupancy(self, prefix: str) -> Occupancy:
        """Return who is in the rooms of an app."""
        return self._occupancies.setdefault(prefix, Occupancy())

    def fail(self, error: str = "it was told to fail") -> None:
        """Refuse everything from now on."""
        self.error = error
        for backplane in self.started():
            backplane.tell(error, gap=False)

    def recover(self) -> None:
        """Work again."""
        if self.error is not None:
            self.error = None
            for backplane in self.started():
                backplane.tell(None, gap=True)

    def lose(self, count: int = 1) -> None:
        """Lose the next records, as a backplane that was away for a moment; those who would have
        got them are told that some are missing."""
        with self._lock:
            self._losing += count
        for backplane in self.started():
            backplane.tell(None, gap=True)

    def end(self) -> None:
        """Recover, and lose nothing more."""
        with self._lock:
            self._losing = 0
        self.recover()

    def left(self, records: Sequence[Record]) -> Sequence[Record]:
        """Return the records that are not lost."""
        with self._lock:
            lost = min(self._losing, len(records))
            self._losing -= lost
        return records[lost:]

    def add(self, backplane: MemoryBackplane) -> None:
        with self._lock:
            self._started.add(backplane)

    def discard(self, backplane: MemoryBackplane) -> None:
        with self._lock:
            self._started.discard(backplane)

    def started(self, prefix: str | None = None) -> list[MemoryBackplane]:
        """Return those that have been started, of one prefix or all."""
        with self._lock:
            return [
                each for each in self._started if prefix is None or each.options.prefix == prefix
            ]


#: By process, since a child has none of its parent's; and URL.
_faults: WeakValueDictionary[tuple[int, str], Faults] = WeakValueDictionary()


def faults_of(url: str) -> Faults:
    """Return what makes the backplanes of a URL fail, in this process."""
    return _faults.setdefault((os.getpid(), url), Faults())


class MemoryBackplane(Backplane):
    """Reaches those in this process that name the same URL, with the same prefix.

    ``memory://`` may be followed by any name.
    """

    features: ClassVar[frozenset[Feature]] = frozenset({"history", "presence"})

    def __init__(self, url: str, options: BackplaneOptions) -> None:
        super().__init__(url, options)
        self._channels: set[str] = set()
        self._faults: Faults | None = None

    async def start(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._loop = asyncio.get_running_loop()
        self._faults = faults_of(self.url)
        self._faults.add(self)
        inbox.health(self._faults.error)

    async def stop(self) -> None:
        if self._faults is not None:
            self._faults.discard(self)

    async def subscribe(self, channels: Collection[str]) -> None:
        self._channels.update(channels)
        self._check()

    async def unsubscribe(self, channels: Collection[str]) -> None:
        self._channels.difference_update(channels)

    async def publish(self, records: Sequence[Record]) -> Sequence[Published]:
        try:
            self._check()
        except BackplaneUnavailable as error:
            return [error] * len(records)
        results: list[Published] = [None] * len(records)
        carried: list[Record] = []
        for number, record in enumerate(records):
            if isinstance(record, KeptRecord):
                appended = self._logs.append([record])[0]
                if not isinstance(appended, KeptRecord):
                    results[number] = appended
                    continue
                record, results[number] = appended, appended.position
            carried.append(record)
        self._carry(carried)
        return results

    def _carry(self, records: Sequence[Record]) -> None:
        if self._faults is None:
            return
        left = self._faults.left(records)
        for backplane in self._faults.started(self.options.prefix):
            if backplane._loop is self._loop:
                backplane._take(left)
            elif not backplane._loop.is_closed():
                backplane._loop.call_soon_threadsafe(backplane._take, left)

    def _take(self, records: Sequence[Record]) -> None:
        for record in records:
            if not self._channels.isdisjoint(record.channels):
                self._inbox.record(record)

    async def enter(self, occupants: Sequence[Occupant]) -> Sequence[bool | None]:
        self._check()
        return self._occupancy.enter(occupants)

    async def leave(self, leaving: Sequence[tuple[str, str]]) -> None:
        self._check()
        self._occupancy.leave(leaving)

    async def occupants(self, channel: str) -> tuple[Sequence[Occupant], bool]:
        is_well = self._faults is None or self._faults.error is None
        return self._occupancy.occupants(channel), is_well

    async def sweep(self) -> Sequence[Left]:
        self._check()
        return self._occupancy.sweep()

    @property
    def _occupancy(self) -> Occupancy:
        return (self._faults or faults_of(self.url)).occupancy(self.options.prefix)

    @property
    def log_bytes(self) -> int:
        return self._logs.size

    async def read(self, channel: str, after: int, limit: int, max_size: int) -> Log:
        self._check()
        return self._logs.read(channel, after, limit, max_size)

    async def touch(self, channel: str, seconds: float) -> Position:
        self._check()
        return self._logs.touch(channel, seconds)

    async def forget(self, channel: str) -> None:
        self._check()
        position = self._logs.forget(channel)
        self._carry([KeptRecord(Kind.MESSAGE, (channel,), position=position)])

    async def describe(self, text: str) -> None:
        self._check()
        self._logs.description = text

    async def description(self) -> str | None:
        self._check()
        return self._logs.description

    @property
    def _logs(self) -> MemoryLogs:
        return (self._faults or faults_of(self.url)).logs(self.options.prefix)

    async def workers(self) -> int:
        started = self._faults.started(self.options.prefix) if self._faults is not None else ()
        return sum(ALL in backplane._channels for backplane in started)

    def _check(self) -> None:
        if self._faults is not None and self._faults.error is not None:
            raise BackplaneUnavailable(f"{self.url}: {self._faults.error}")

    def tell(self, error: str | None, gap: bool) -> None:
        """Tell the worker how the backplane is, and whether something may be missing."""
        with suppress(RuntimeError):  # its loop is closed
            self._loop.call_soon_threadsafe(self._tell, error, gap)

    def _tell(self, error: str | None, gap: bool) -> None:
        self._inbox.health(error)
        if gap:
            self._inbox.gap()
