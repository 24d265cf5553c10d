"""What is behind a URL: one server, or a cluster of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Collection, Sequence
from typing import Any, ClassVar

from .dialer import Dialer
from .line import Events
from .link import Command
from .publishing import Publishing
from .scripts import Call
from .subscription import Subscription


class Deployment(ABC):
    """Servers that channels are at."""

    #: The command that publishes.
    verb: ClassVar[bytes]

    @abstractmethod
    async def publish(self, calls: Sequence[Call]) -> list[Any]:
        """Run commands that publish, in their order; return for each the reply or what is wrong."""

    @abstractmethod
    async def query(self, calls: Sequence[Call]) -> list[Any]:
        """Run other commands; so, too."""

    @abstractmethod
    def subscribe(self, names: Collection[bytes]) -> Awaitable[None]:
        """Want what is published to channels, at once; return what waits until it comes."""

    @abstractmethod
    async def unsubscribe(self, names: Collection[bytes]) -> None:
        """Have it no longer."""

    @abstractmethod
    async def count(self, name: bytes) -> int:
        """Return how many subscribe to a channel; raises what :mod:`.errors` explains."""

    @abstractmethod
    async def ask(self, commands: Sequence[Command]) -> dict[str, list[Any]]:
        """Return by address what each server replies."""

    @abstractmethod
    async def close(self) -> None:
        """Close all connections."""


class OneServer(Deployment):
    """A single server, or the master that sentinels name."""

    verb = b"PUBLISH"

    def __init__(self, dialer: Dialer, events: Events, timeout: float) -> None:
        self._subscription = Subscription(dialer.dial, events)
        self._publishing = Publishing(dialer.dial, events, timeout, self._subscription.hurry)
        self._name = str(dialer.url)

    async def publish(self, calls: Sequence[Call]) -> list[Any]:
        return await self._publishing.publish(calls)

    async def query(self, calls: Sequence[Call]) -> list[Any]:
        return await self._publishing.query(calls)

    def subscribe(self, names: Collection[bytes]) -> Awaitable[None]:
        self._subscription.want(names)
        return self._subscription.settled()

    async def unsubscribe(self, names: Collection[bytes]) -> None:
        await self._subscription.unsubscribe(names)

    async def count(self, name: bytes) -> int:
        [reply] = await self._publishing.call([(b"PUBSUB", b"NUMSUB", name)])
        return number_of(reply)

    async def ask(self, commands: Sequence[Command]) -> dict[str, list[Any]]:
        return {self._name: await self._publishing.call(commands)}

    async def close(self) -> None:
        await self._publishing.close()
        await self._subscription.close()


def number_of(reply: Any) -> int:
    """Return the number in a reply to NUMSUB, which is a list, or with RESP3 a map."""
    if isinstance(reply, BaseException):
        raise reply
    return int(next(iter(reply.values())) if isinstance(reply, dict) else reply[1])
