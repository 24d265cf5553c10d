"""Subscribing at one server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from itertools import islice

from redis.exceptions import RedisError

from .errors import Lost
from .line import Events, Line
from .link import Link, Pushes

#: Channels in one command, so that others have their turn at the server.
_CHUNK = 500


class Subscription(Line, Pushes):
    """The connection that one server's messages come by, and which channels are wanted of it.

    They stay wanted when the connection is lost: a new one counts as up only when it has them all.
    """

    def __init__(self, dial: Callable[[Pushes], Awaitable[Link]], events: Events) -> None:
        super().__init__(events)
        self._dial = dial
        self._lock = asyncio.Lock()
        self._wanted: set[bytes] = set()
        #: Those of the wanted that the present link has not yet.
        self._missing: set[bytes] = set()
        self._was_up = False

    async def dial(self) -> Link:
        link = await self._dial(self)
        try:
            async with self._lock:
                self._missing = set(self._wanted)
                await self._settle(link)
        except BaseException:
            await link.close()
            raise
        if self._was_up:
            self.events.gap()
        self._was_up = True
        return link

    def message(self, data: bytes) -> None:
        self.events.message(data)

    def want(self, names: Collection[bytes]) -> None:
        """Want these channels' messages."""
        self._missing.update(name for name in names if name not in self._wanted)
        self._wanted.update(names)

    async def settled(self) -> None:
        """Return when the messages of all that is wanted come, however long it takes."""
        while True:
            link = await self.link()
            with suppress(Lost):
                async with self._lock:
                    await self._settle(link)
                return
            await asyncio.sleep(0)  # the line has yet to notice

    async def unsubscribe(self, names: Collection[bytes]) -> None:
        """Have their messages no longer; never raises."""
        self._wanted.difference_update(names)
        async with self._lock:
            gone = {name for name in names if name not in self._wanted}
            held = gone - self._missing
            self._missing -= gone
            if held and self._link is not None:
                with suppress(Lost, RedisError):
                    await self._link.change(b"UNSUBSCRIBE", held)

    async def _settle(self, link: Link) -> None:
        """Subscribe to all that is missing, whoever asked for it; needs the lock."""
        while self._missing:
            chunk = list(islice(self._missing, _CHUNK))
            await link.change(b"SUBSCRIBE", chunk)
            self._missing.difference_update(chunk)
