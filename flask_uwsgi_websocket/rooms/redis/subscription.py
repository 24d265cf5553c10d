"""Subscribing at one server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from itertools import groupby, islice

from redis.crc import key_slot
from redis.exceptions import RedisError

from .errors import Lost
from .line import Events, Line
from .link import Link, Pushes

#: Channels subscribed to at a time, so that others have their turn at the server.
_CHUNK = 500


class Subscription(Line, Pushes):
    """The connection that one server's messages come by, and which channels are wanted of it.

    They stay wanted when the connection is lost: a new one counts as up only when it has them all.

    :param sharded: whether channels are those of a cluster's shards.
    """

    def __init__(
        self, dial: Callable[[Pushes], Awaitable[Link]], events: Events, sharded: bool = False
    ) -> None:
        super().__init__(events)
        self._dial = dial
        self._sharded = sharded
        self._lock = asyncio.Lock()
        #: The channels whose messages are wanted.
        self.wanted: set[bytes] = set()
        #: Those of the wanted that the present link has not yet.
        self._missing: set[bytes] = set()
        self._was_up = False

    async def dial(self) -> Link:
        link = await self._dial(self)
        try:
            async with self._lock:
                self._missing = set(self.wanted)
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

    def moved(self, channel: bytes) -> None:
        if channel in self.wanted:
            self._missing.add(channel)
            self.events.moved()

    def want(self, names: Collection[bytes]) -> None:
        """Want these channels' messages."""
        self._missing.update(name for name in names if name not in self.wanted)
        self.wanted.update(names)

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
        self.wanted.difference_update(names)
        async with self._lock:
            gone = {name for name in names if name not in self.wanted}
            held = gone - self._missing
            self._missing -= gone
            if held and self._link is not None:
                with suppress(Lost, RedisError):
                    await self._change(self._link, b"UNSUBSCRIBE", held)

    async def keep(self, names: set[bytes], moved: bool) -> None:
        """Want these, and no others; without waiting for a server that is not there.

        :param moved: whether some were at another server before: messages of theirs may be missing.
        """
        self.want(names)
        self._was_up = self._was_up or moved
        if names:
            self.open()
        await self.unsubscribe(self.wanted - names)
        if self._link is not None:
            await self.settled()
            if moved:
                self.events.gap()

    async def _settle(self, link: Link) -> None:
        """Subscribe to all that is missing, whoever asked for it; needs the lock."""
        while self._missing:
            await self._change(link, b"SUBSCRIBE", set(islice(self._missing, _CHUNK)))

    async def _change(self, link: Link, verb: bytes, names: Collection[bytes]) -> None:
        """Subscribe or unsubscribe; raises what went wrong with any of the channels."""
        groups = [tuple(names)]
        if self._sharded:  # each command has the channels of one slot
            verb = b"S" + verb
            ordered = sorted(names, key=key_slot)
            groups = [tuple(group) for _, group in groupby(ordered, key_slot)]
        changes = [link.change(verb, group) for group in groups]
        results = await asyncio.gather(*changes, return_exceptions=True)
        for group, result in zip(groups, results, strict=True):
            if result is None:
                self._missing.difference_update(group)
        for result in results:
            if result is not None:
                raise result
