"""Clients that behave as those of 0.6, for apps that set ``UWSGI_WEBSOCKET_LEGACY``.

Every message arrives as bytes, bytes go out as text, and what is sent to a client that has left is
dropped. In 0.6 handlers also got empty messages, after each batch of others and every few seconds,
and had to skip them. These are not imitated: many handlers sent them on, to everybody.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from ..connection.base import Message
from ..connection.connection import Connection
from ..exceptions import ConnectionClosed
from ..helpers.threads import caller
from ..session.lazy import Unopened
from .base import BaseClient, Data
from .client import AsyncioWebSocketClient, WebSocketClient
from .deriving import derived_class

#: Messages that a handler may send in vain without receiving one. Sending a history to somebody who
#: has left is no reason to stop it, but a loop that does nothing else would never end.
DROPS = 1000


def legacy_class(client_class: type[Any]) -> type[Any]:
    """Derive the class whose clients behave as those of 0.6."""
    return derived_class(client_class, _LegacyBlockingClient, _LegacyAsyncioClient)


class _LegacyClient(BaseClient[Any]):
    """The members that the blocking and the asyncio clients have in common."""

    _bytes_are_text = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._handler = caller()
        self._drops = 0

    def send_nb(self, msg: Data, binary: bool | None = None) -> None:
        """Send as in 1.0, but drop what is for a client that has left."""
        try:
            super().send_nb(msg, binary)
        except ConnectionClosed as closed:
            self._drop(closed)

    def recv_nb(self) -> Message | None:
        """Receive as in 1.0, in bytes; return ``b""`` where there is no message."""
        return self._in_bytes(super().recv_nb())

    def _in_handler(self) -> bool:
        """Return whether it is this client's own handler that calls.

        It waits for a client that reads slowly, and is stopped if it does nothing but send in vain.
        Others send to many: in 0.6 no such loop ever waited, or was stopped.
        """
        return not self._connection.released and caller() == self._handler

    def _drop(self, closed: ConnectionClosed) -> None:
        """Drop a message for a client that has left.

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


class _LegacyBlockingClient(_LegacyClient, WebSocketClient):
    def receive(self, timeout: float | None = None) -> Message | None:
        return self._in_bytes(super().receive(timeout))

    recv = receive

    def send(self, msg: Data, binary: bool | None = None) -> None:
        if not self._in_handler():
            return self.send_nb(msg, binary)
        try:
            super().send(msg, binary)
        except ConnectionClosed as closed:
            self._drop(closed)


class _LegacyAsyncioClient(_LegacyClient, AsyncioWebSocketClient):
    async def receive(self, timeout: float | None = None) -> Message | None:
        return self._in_bytes(await super().receive(timeout))

    recv = a_recv = receive

    def recv_nb(self) -> Message | None:
        """Receive as in 1.0, in bytes; return ``''`` where there is no message."""
        message = super().recv_nb()
        return "" if message == b"" else message

    async def send(self, msg: Data, binary: bool | None = None) -> None:
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
