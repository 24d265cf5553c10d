"""The ways of 0.6, for apps that set ``UWSGI_WEBSOCKET_LEGACY``.

Every message arrives as bytes, bytes go out as text, and what is sent to a client that has left is
dropped. 0.6 also gave empty messages, after each batch of others and every few seconds, which
handlers had to pass over. These stay away: many handlers sent them on, to everybody.
"""

from __future__ import annotations

from collections.abc import Awaitable
from functools import cache
from inspect import iscoroutinefunction
from typing import Any

from ..connection.base import Message
from ..connection.connection import Connection
from ..exceptions import ConnectionClosed
from ..helpers.threads import caller
from ..session.lazy import Unopened
from .asyncio import AsyncioWebSocketClient
from .base import BaseClient, Data
from .blocking import WebSocketClient

#: Messages that a handler may send in vain without receiving one. To send a history to somebody who
#: has left is no reason to break it off, but a loop that does nothing else would never end.
DROPS = 1000


@cache
def legacy_class(client_class: type[Any]) -> type[Any]:
    """Derive the class whose clients behave as those of 0.6."""
    ways = _AsyncioWays if iscoroutinefunction(client_class.receive) else _BlockingWays
    return type(client_class.__name__, (ways, client_class), {})


class _Ways(BaseClient[Any]):
    """What blocking clients and those of asyncio have in common."""

    _bytes_are_text = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._handler = caller()
        self._drops = 0

    def send_nb(self, msg: Data, binary: bool | None = None) -> None:
        """As in 1.0, but drop what is for a client that has left."""
        try:
            super().send_nb(msg, binary)
        except ConnectionClosed as closed:
            self._drop(closed)

    def _in_handler(self) -> bool:
        """Tell whether it is this client's own handler that calls.

        That one waits for a client that reads slowly, and is broken off where it does nothing but
        send in vain. Others send to many: in 0.6 no such loop ever waited, or was broken off.
        """
        return not self._connection.released and caller() == self._handler

    def _drop(self, closed: ConnectionClosed) -> None:
        """Pass over a message for a client that has left.

        :raises ConnectionClosed: in a handler that does not notice the end.
        """
        connection: Connection | Unopened = self._connection
        if isinstance(connection, Unopened):
            raise closed  # there is no WebSocket, and there will be none
        if self._in_handler():
            self._drops += 1
            if self._drops > DROPS or connection.overdue:
                raise closed

    def _in_bytes(self, message: Message | None) -> Message | None:
        self._drops = 0
        return message.encode() if isinstance(message, str) else message


class _BlockingWays(_Ways, WebSocketClient):
    def receive(self, timeout: float | None = None) -> Message | None:
        """As in 1.0, in bytes."""
        return self._in_bytes(super().receive(timeout))

    recv = receive

    def recv_nb(self) -> Message | None:
        """As in 1.0, in bytes; ``b""`` where there is no message."""
        return self._in_bytes(super().recv_nb())

    def send(self, msg: Data, binary: bool | None = None) -> None:
        """As in 1.0, but drop what is for a client that has left."""
        if not self._in_handler():
            return self.send_nb(msg, binary)
        try:
            super().send(msg, binary)
        except ConnectionClosed as closed:
            self._drop(closed)


class _AsyncioWays(_Ways, AsyncioWebSocketClient):
    async def receive(self, timeout: float | None = None) -> Message | None:
        """As in 1.0, in bytes."""
        return self._in_bytes(await super().receive(timeout))

    recv = a_recv = receive

    def recv_nb(self) -> Message | None:
        """As in 1.0, in bytes; ``''`` where there is no message."""
        message = self._in_bytes(super().recv_nb())
        return "" if message == b"" else message

    async def send(self, msg: Data, binary: bool | None = None) -> None:
        """As in 1.0, but drop what is for a client that has left."""
        if not self._in_handler():
            return self.send_nb(msg, binary)
        try:
            await super().send(msg, binary)
        except ConnectionClosed as closed:
            self._drop(closed)

    a_send = send

    def __anext__(self) -> Awaitable[Message]:
        return self._next_in_bytes()

    async def _next_in_bytes(self) -> Message:
        message = await super().__anext__()
        return message.encode() if isinstance(message, str) else message
