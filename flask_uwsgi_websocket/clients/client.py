"""The clients that handlers get: those that block their thread or greenlet, and coroutines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from ..connection.base import Message
from ..connection.blocking import DONE, BlockingConnection
from ..connection.fast_io import send
from ..exceptions import ConnectionClosed
from ..rooms.positions import Joined
from ..rooms.targets import Target
from .base import BaseClient, Data

if TYPE_CHECKING:
    from ..engines.asyncio import AsyncioConnection

T = TypeVar("T")


class WebSocketClient(BaseClient[None]):
    """The client of a blocking handler; its methods may be called from any thread."""

    _connection: BlockingConnection

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._connection.run(coroutine)

    def receive(self, timeout: float | None = None) -> Message | None:
        return self._connection.receive_blocking(timeout)

    recv = receive

    def receive_json(self, timeout: float | None = None) -> Any:
        return self._loads(self.receive(timeout))

    def send(self, msg: Data, binary: bool | None = None) -> None:
        connection = self._connection
        encode: Callable[[Any], bytes] | None = None
        if binary or type(msg) is not str:
            encode = self._encoder(msg, binary)
        try:
            is_much: bool | None = False
            if encode is None and not connection._messages:
                is_much = send(connection, msg)  # at once, where nothing stands in the way
            if is_much is False:
                is_much = connection.post(encode, msg)
            if is_much:
                self._run(connection.drained())
        except ConnectionClosed:
            self._run(connection.send_failed())
            raise

    def join(
        self, room: str, info: Any = None, since: str | None = None, replay: int = 0
    ) -> Joined:
        self.accept()
        return self._rooms.join_and_wait(self._connection, room, info, since, replay)

    def leave(self, room: str) -> None:
        super().leave(room)

    def to(self, *rooms: str) -> Target[str | None]:
        """Return the target of all others in these rooms, on every worker; each gets it once.

        Also when this client is in none of them. Raises as :meth:`~.WebSocket.to`.
        """
        target: Target[str | None] = self._target(rooms)
        return target

    def close(self, code: int = 1000, reason: str = "") -> None:
        self._run(self._connection.close(code, reason))

    def __iter__(self) -> Iterator[Message]:
        while (message := self.receive()) is not None:
            yield message

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *error: object) -> None:
        self._close_after(exc_type)


class GeventWebSocketClient(WebSocketClient):
    """The client of a handler in a greenlet; its waiting lets other greenlets run."""


class AsyncWebSocketClient(WebSocketClient):
    """The client of a handler in a suspendable request."""


class AsyncioWebSocketClient(BaseClient[Coroutine[Any, Any, None]]):
    """The client of an ``async def`` handler.

    The members are those of :class:`WebSocketClient`; those that wait are coroutines.
    """

    _connection: AsyncioConnection

    async def receive(self, timeout: float | None = None) -> Message | None:
        if timeout is not None:
            return await self._connection.receive(timeout)
        try:  # without its coroutine, which each open connection would keep
            return await self._connection.next_message()
        except StopAsyncIteration:
            return None

    recv = a_recv = receive

    async def receive_json(self, timeout: float | None = None) -> Any:
        return self._loads(await self.receive(timeout))

    async def send(self, msg: Data, binary: bool | None = None) -> None:
        connection = self._connection
        encode: Callable[[Any], bytes] | None = None
        if binary or type(msg) is not str:
            encode = self._encoder(msg, binary)
        try:
            is_much: bool | None = False
            if encode is None and not connection._messages:
                is_much = send(connection, msg)  # at once, where nothing stands in the way
            if is_much is False:
                is_much = connection.post(encode, msg)
            if is_much:
                await connection.drained()
        except ConnectionClosed:
            await connection.send_failed()
            raise

    a_send = send

    async def join(
        self, room: str, info: Any = None, since: str | None = None, replay: int = 0
    ) -> Joined:
        self.accept()
        joining = self._rooms.join(self._connection, room, info, since, replay)
        return joining if isinstance(joining, Joined) else await joining

    def leave(self, room: str) -> Awaitable[None]:
        super().leave(room)
        return DONE

    def to(self, *rooms: str) -> Target[Awaitable[str | None]]:
        """Return the target of all others in these rooms, on every worker; each gets it once.

        Also when this client is in none of them. Raises as :meth:`~.WebSocket.to`.
        """
        target: Target[Awaitable[str | None]] = self._target(rooms)
        return target

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self._connection.close(code, reason)

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    def __anext__(self) -> Awaitable[Message]:
        # Neither an asynchronous generator nor a coroutine, which are slower.
        return self._connection.next_message()

    async def __aenter__(self: T) -> T:
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, *error: object) -> None:
        await self._close_after(exc_type)
