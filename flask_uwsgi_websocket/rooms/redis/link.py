"""One connection to one server: commands out, replies in their order, messages in between."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from ...helpers.waiting import within
from .errors import Lost, NotAnswering

#: Seconds between two PINGs, and how many without an answer mean that nobody is there. A server
#: that is stopped, or whose host has gone, is noticed by nothing else.
PING_INTERVAL, PINGS_MISSED = 1.0, 3

#: Replies read before others on the loop have their turn.
_TURN = 100

Command = tuple[bytes | str | float, ...]


class _Request:
    """What waits for a number of replies.

    :param acks: the kind of those replies, where a single command has several.
    :param names: the channels that they name.
    """

    __slots__ = ("acks", "future", "left", "names", "replies")

    def __init__(self, left: int, acks: bytes = b"", names: Collection[bytes] = ()) -> None:
        self.future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self.left = left
        self.acks = acks
        self.names = names
        self.replies: list[Any] = []


class Pushes:
    """Takes what a server sends unasked."""

    def message(self, data: bytes) -> None:
        """Take the payload of a message."""

    def moved(self, channel: bytes) -> None:
        """Take note that a channel is now another server's, of the cluster."""


class Link:
    """A connection from its greeting to its first error: it is never connected again.

    The client's own ``PubSub`` and pools connect again by themselves, without a word of what was
    missed meanwhile, and may repeat a command. Hence this one, on a bare connection.
    """

    def __init__(self, connection: AbstractConnection, pushes: Pushes) -> None:
        self._connection = connection
        self._pushes = pushes
        self._requests: deque[_Request] = deque()
        self._unanswered = 0
        #: Bytes of the messages that it has brought.
        self.volume = 0
        self.error: BaseException | None = None
        self.over = asyncio.Event()
        self._tasks = [asyncio.ensure_future(run()) for run in (self._read, self._ping)]

    async def call(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands at once; return a reply to each, which may be an error of the server's.

        :raises Lost: when the connection is over before; has the replies until then.
        """
        return await self._send(commands, _Request(len(commands)))

    async def change(self, verb: bytes, names: Collection[bytes]) -> None:
        """Subscribe to channels, or unsubscribe; return when that is in force.

        :param verb: SUBSCRIBE, UNSUBSCRIBE, or those of shards.
        :raises Lost: as above.
        :raises ResponseError: as the server says.
        """
        request = _Request(len(names), verb.lower(), frozenset(names))
        for reply in await self._send([(verb, *names)], request):
            if isinstance(reply, ResponseError):
                raise reply

    async def _send(self, commands: Sequence[Command], request: _Request) -> list[Any]:
        """Send. Nothing waits before it is written, so the order of calls is kept."""
        if self.error is not None or not self._connection.is_connected:
            raise Lost(self.error or NotAnswering(), None)
        packed = self._connection.pack_commands(commands)
        self._requests.append(request)
        try:
            await self._connection.send_packed_command(packed, check_health=False)
        except (RedisError, OSError) as error:
            self._end(error)
        return await asyncio.shield(request.future)

    async def _read(self) -> None:
        read = self._connection.read_response
        try:
            while True:
                for _ in range(_TURN):
                    try:
                        reply = await read(disconnect_on_error=False, push_request=True)
                    except ResponseError as error:
                        reply = error
                    self._take(reply)
                await asyncio.sleep(0)
        except Exception as error:
            self._end(error)

    def _take(self, reply: Any) -> None:
        self._unanswered = 0
        if isinstance(reply, list) and len(reply) == 3:  # hiredis has a class of its own
            kind, channel, data = reply
            if kind in (b"message", b"smessage"):
                self.volume += len(data)
                self._pushes.message(data)
                return
            if kind == b"sunsubscribe" and not self._asked_for(channel):
                self._pushes.moved(channel)
                return
        self._answer(reply)

    def _asked_for(self, channel: bytes) -> bool:
        request = self._requests[0] if self._requests else None
        return request is not None and request.acks == b"sunsubscribe" and channel in request.names

    def _answer(self, reply: Any) -> None:
        if not self._requests:
            return  # to what nobody asked: nothing that we know of
        request = self._requests[0]
        request.replies.append(reply)
        request.left -= 1
        # One error answers a whole SUBSCRIBE, however many channels it names.
        if request.left == 0 or (request.acks and isinstance(reply, ResponseError)):
            self._requests.popleft()
            if not request.future.done():
                request.future.set_result(request.replies)

    async def _ping(self) -> None:
        await asyncio.sleep(PING_INTERVAL)
        while self._unanswered < PINGS_MISSED:
            self._unanswered += 1
            await asyncio.gather(self._ping_once(), asyncio.sleep(PING_INTERVAL))
        self._end(NotAnswering())

    async def _ping_once(self) -> None:
        with suppress(Lost, asyncio.TimeoutError):
            await within(PING_INTERVAL, self.call([(b"PING",)]))

    def _end(self, error: BaseException) -> None:
        if self.error is not None:
            return
        self.error = error
        self.over.set()
        while self._requests:
            request = self._requests.popleft()
            if not request.future.done():
                request.future.set_exception(Lost(error, request.replies))
                request.future.exception()  # whoever asked may have given up

    def give_up(self, error: BaseException) -> None:
        """Have it be over for a reason that its user knows."""
        self._end(error)

    async def close(self) -> None:
        """End it; safe at any time."""
        self._end(NotAnswering())
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await hang_up(self._connection)


async def hang_up(connection: AbstractConnection) -> None:
    """Close a connection at once: one with TLS would wait half a minute for a server that hangs."""
    writer = getattr(connection, "_writer", None)
    await connection.disconnect(nowait=True)
    if writer is not None:
        writer.transport.abort()
