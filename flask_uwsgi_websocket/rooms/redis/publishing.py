"""Publishing at one server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any

from redis.exceptions import NoScriptError

from ...helpers.waiting import within
from .errors import Lost, NotAnswering, is_replica
from .line import Events, Line
from .link import Command, Link, Pushes
from .scripts import Call, commands_of, with_text


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

    async def publish(self, calls: Sequence[Call]) -> list[Any]:
        """Run commands in one go, in the order of the callers; return what comes of each.

        That is the reply, or what is wrong: None is sent twice, since a connection that is lost
        meanwhile, or a server that is too slow, may have taken it.
        """
        return await self._attempt(calls, self.call)

    async def query(self, calls: Sequence[Call]) -> list[Any]:
        """Do the same without waiting for what others publish."""
        return await self._attempt(calls, self._call_now)

    async def _attempt(
        self,
        calls: Sequence[Call],
        call: Callable[[Sequence[Command]], Coroutine[Any, Any, list[Any]]],
    ) -> list[Any]:
        replies = await self._answers(call(commands_of(calls)), len(calls))
        errors = [n for n, reply in enumerate(replies) if isinstance(reply, BaseException)]
        # Whose script the server has lost, it has done nothing of.
        unknown = [n for n in errors if isinstance(replies[n], NoScriptError)]
        if unknown:
            again = await self._answers(call([with_text(calls[n]) for n in unknown]), len(unknown))
            for number, reply in zip(unknown, again, strict=True):
                replies[number] = reply
        self._leave_replica(replies[n] for n in errors)
        return replies

    async def _answers(self, call: Coroutine[Any, Any, list[Any]], count: int) -> list[Any]:
        try:
            return await call
        except asyncio.TimeoutError:
            return [self.error or NotAnswering()] * count
        except Lost as lost:
            came = lost.replies or []
            return came + [lost.error] * (count - len(came))

    def _leave_replica(self, errors: Iterable[object]) -> None:
        """Look for the master again, where the server is none any more."""
        error = next(filter(is_replica, errors), None)
        if error is not None and self._link is not None:
            self._link.give_up(error)

    async def call(self, commands: Sequence[Command]) -> list[Any]:
        """Return the reply to each command; within the timeout, in the order of the callers."""
        return await within(self._timeout, self._call(commands))

    async def _call_now(self, commands: Sequence[Command]) -> list[Any]:
        return await within(self._timeout, self._call_link(commands))

    async def _call(self, commands: Sequence[Command]) -> list[Any]:
        async with self._lock:
            return await self._call_link(commands)

    async def _call_link(self, commands: Sequence[Command]) -> list[Any]:
        while True:
            link = await self.link()
            try:
                return await link.call(commands)
            except Lost as lost:
                if lost.replies is not None:
                    raise
                await asyncio.sleep(0)  # it was over before: the line has yet to notice
