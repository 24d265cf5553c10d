"""The backplane within one process: what tests, and servers of one process, need no other for."""

from __future__ import annotations

import asyncio
import os
from _thread import RLock
from collections.abc import Collection, Sequence
from weakref import WeakSet, WeakValueDictionary

from .backplane import Backplane, BackplaneOptions, Inbox
from .channels import ALL
from .record import Record


class _Bus:
    """What the backplanes of one URL and prefix have in common."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._started: WeakSet[MemoryBackplane] = WeakSet()

    def add(self, backplane: MemoryBackplane) -> None:
        with self._lock:
            self._started.add(backplane)

    def discard(self, backplane: MemoryBackplane) -> None:
        with self._lock:
            self._started.discard(backplane)

    def started(self) -> list[MemoryBackplane]:
        with self._lock:
            return list(self._started)


#: By process, since a child has none of its parent's; URL and prefix.
_buses: WeakValueDictionary[tuple[int, str, str], _Bus] = WeakValueDictionary()


class MemoryBackplane(Backplane):
    """Reaches those in this process that name the same URL, with the same prefix.

    ``memory://`` may be followed by any name.
    """

    def __init__(self, url: str, options: BackplaneOptions) -> None:
        super().__init__(url, options)
        self._channels: set[str] = set()
        self._bus: _Bus | None = None

    async def start(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._loop = asyncio.get_running_loop()
        self._bus = _buses.setdefault((os.getpid(), self.url, self.options.prefix), _Bus())
        self._bus.add(self)

    async def stop(self) -> None:
        if self._bus is not None:
            self._bus.discard(self)

    async def subscribe(self, channels: Collection[str]) -> None:
        self._channels.update(channels)

    async def unsubscribe(self, channels: Collection[str]) -> None:
        self._channels.difference_update(channels)

    async def publish(self, records: Sequence[Record]) -> Sequence[BaseException | None]:
        for backplane in self._bus.started() if self._bus is not None else ():
            if backplane._loop is self._loop:
                backplane._take(records)
            elif not backplane._loop.is_closed():
                backplane._loop.call_soon_threadsafe(backplane._take, records)
        return [None] * len(records)

    def _take(self, records: Sequence[Record]) -> None:
        for record in records:
            if not self._channels.isdisjoint(record.channels):
                self._inbox.record(record)

    async def workers(self) -> int:
        started = self._bus.started() if self._bus is not None else ()
        return sum(ALL in backplane._channels for backplane in started)
