"""Clients that get what is sent to them in envelopes: see :mod:`~.rooms.envelope`."""

from __future__ import annotations

from functools import cache
from inspect import iscoroutinefunction
from typing import Any

from ..connection.connection import Connection
from ..rooms.envelope import ALIVE, Enveloped, direct_json, direct_text, hello, tell
from .base import BaseClient, Data, decode_text
from .client import AsyncioWebSocketClient, WebSocketClient


@cache
def enveloped_class(client_class: type[Any]) -> type[Any]:
    """Derive the class whose clients get envelopes."""
    asynchronous = iscoroutinefunction(client_class.receive)
    enveloped = _EnvelopedAsyncioClient if asynchronous else _EnvelopedBlockingClient
    return type(client_class.__name__, (enveloped, client_class), {})


class _EnvelopedClient(BaseClient[Any]):
    """The members that the blocking and the asyncio clients have in common."""

    enveloped = True
    #: Sent with each ping, which a page does not see.
    sign_of_life = ALIVE

    def _opened(self, connection: Connection) -> None:
        tell(connection, hello(self.id, connection.limits.ping_interval))  # before all others know
        super()._opened(connection)

    def _wrap(self, msg: Data, binary: bool | None) -> Data:
        """Put into an envelope what goes as text."""
        if isinstance(msg, Enveloped):
            return str(msg)
        if isinstance(msg, str):
            return msg if binary else str(direct_text(msg))
        is_bytes = isinstance(msg, (bytes, bytearray, memoryview))
        if is_bytes and (self._bytes_are_text if binary is None else not binary):
            return str(direct_text(decode_text(msg)))
        return msg

    def send_nb(self, msg: Data, binary: bool | None = None) -> None:
        """Send in an envelope without ever waiting."""
        super().send_nb(self._wrap(msg, binary), binary)

    def send_json(self, obj: Any) -> Any:
        """Send an object as a part of its envelope."""
        return self.send(direct_json(self._json.dumps(obj)), binary=False)


class _EnvelopedBlockingClient(_EnvelopedClient, WebSocketClient):
    def send(self, msg: Data, binary: bool | None = None) -> None:
        super().send(self._wrap(msg, binary), binary)


class _EnvelopedAsyncioClient(_EnvelopedClient, AsyncioWebSocketClient):
    async def send(self, msg: Data, binary: bool | None = None) -> None:
        await super().send(self._wrap(msg, binary), binary)

    a_send = send
