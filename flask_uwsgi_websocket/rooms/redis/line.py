"""A connection that is kept up: made again, with patience, whenever it is lost."""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod

from ...helpers.waiting import within
from .link import Link

#: Seconds before the first new attempt, and at most, before jitter; and by what they grow. Whoever
#: was away for a while is back within half of that again: what others publish meanwhile is missed.
_FIRST, _MOST, _GROWTH = 0.1, 5.0, 1.3
#: Seconds that an attempt is apart from the last one at least where somebody waits for it.
_WANTED = 0.5
#: Seconds after which a connection was a good one, so that patience begins anew.
_GOOD = 5.0


class Events(ABC):
    """Takes what happens at the servers."""

    @abstractmethod
    def message(self, data: bytes) -> None:
        """Take what was published."""

    @abstractmethod
    def gap(self) -> None:
        """Take note that messages may be missing."""

    @abstractmethod
    def changed(self, line: object, error: BaseException | None) -> None:
        """Take note that a line is up (None), or why it is not."""

    @abstractmethod
    def moved(self) -> None:
        """Take note that a channel is at another server now."""


class Line(ABC):
    """Keeps a :class:`~.link.Link` up, from when it is first wanted."""

    def __init__(self, events: Events) -> None:
        self.events = events
        self._link: Link | None = None
        self._task: asyncio.Task[None] | None = None
        self._up = asyncio.Event()
        self._called = asyncio.Event()
        self._waiting = 0
        #: Why it is down.
        self.error: BaseException | None = None
        #: Bytes of the messages that the last link brought.
        self.volume = 0

    @abstractmethod
    async def dial(self) -> Link:
        """Open a link, and do there what there is to do before it counts as up."""

    def open(self) -> None:
        """Begin to keep a link up."""
        if self._task is None:
            self._task = asyncio.ensure_future(self._keep())

    def hurry(self) -> None:
        """Try again at once: there are signs that it might work."""
        self._called.set()

    async def link(self) -> Link:
        """Return the link, as soon as it is up."""
        self.open()
        self._waiting += 1
        self._called.set()
        try:
            while self._link is None:
                await self._up.wait()
            return self._link
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            try:
                link = await self.dial()
            except Exception as error:
                self._fail(error)
            else:
                began = loop.time()
                self._fail(await self._hold(link))
                if loop.time() - began > _GOOD:
                    failures = 0
            await self._pause(random.uniform(0, min(_MOST, _FIRST * _GROWTH**failures)))
            failures = min(failures + 1, 20)

    async def _hold(self, link: Link) -> BaseException | None:
        """Lend the link to all until it is over; return why it is."""
        self._link, self.error = link, None
        self._up.set()
        self.events.changed(self, None)
        try:
            await link.over.wait()
        finally:
            self._link = None
            self._up.clear()
            self.volume = link.volume
            await link.close()
        return link.error

    def _fail(self, error: BaseException | None) -> None:
        self.error = error
        self.events.changed(self, error)

    async def _pause(self, delay: float) -> None:
        """Wait; not so long when somebody waits for the link."""
        if not self._waiting:
            self._called.clear()
        await asyncio.sleep(min(delay, _WANTED))
        if delay > _WANTED:
            try:
                await within(delay - _WANTED, self._called.wait())
            except asyncio.TimeoutError:
                return
