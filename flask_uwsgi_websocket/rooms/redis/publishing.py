"""Publishing at one server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from .errors import Lost, NotAnswering
from .line import Events, Line, Message
from .link import Command, Link, Pushes
from .waiting import within


class Publishing(Line):
    """The connection that one server is published at, and asked by.

    :param on_up: is called when it is there.
    """

    def __init__(
        self,
        dial: Callable[[Pushes], Awaitable[Link]],
        events: Events,
        timeout: float,
        on_up: Callable[[], None],
    ) -> None:
        super().__init__(events)
        self._dial = dial
        self._timeout = timeout
        self._on_up = on_up
        self._lock = asyncio.Lock()

    async def dial(self) -> Link:
        link = await self._dial(Pushes())
        self._on_up()
        return link

    async def publish(self, verb: bytes, messages: Sequence[Message]) -> list[BaseException | None]:
        """Publish messages in one go; return for each None, or what is wrong.

        None is sent twice: a connection that is lost meanwhile, or a server that is too slow,
        may have taken it.
        """
        commands = [(verb, name, data) for name, data in messages]
        try:
            replies = await self.call(commands)
        except asyncio.TimeoutError:
            replies = [self.error or NotAnswering()] * len(commands)
        except Lost as lost:
            came = lost.replies or []
            replies = came + [lost.error] * (len(commands) - len(came))
        return [reply if isinstance(reply, BaseException) else None for reply in replies]

    async def call(self, commands: Sequence[Command]) -> list[Any]:
        """Return the reply to each command; within the timeout, in the order of the callers."""
        return await within(self._timeout, self._call(commands))

    async def _call(self, commands: Sequence[Command]) -> list[Any]:
        async with self._lock:
            while True:
                link = await self.link()
                try:
                    return await link.call(commands)
                except Lost as lost:
                    if lost.replies is not None:
                        raise
                    await asyncio.sleep(0)  # it was over before: the line has yet to notice
