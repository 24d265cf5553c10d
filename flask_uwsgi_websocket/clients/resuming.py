"""Clients that get what is sent to them in envelopes: see :mod:`~.rooms.envelope`."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from ..connection.connection import Connection
from ..rooms.envelope import (
    ALIVE,
    Enveloped,
    direct_json,
    direct_text,
    former_id_of,
    hello,
    positions_of,
    tell,
)
from ..rooms.positions import Joined
from .base import BaseClient, Data, decode_text
from .client import AsyncioWebSocketClient, WebSocketClient
from .deriving import derived_class


def enveloped_class(client_class: type[Any]) -> type[Any]:
    """Derive the class whose clients get envelopes."""
    return derived_class(client_class, _EnvelopedBlockingClient, _EnvelopedAsyncioClient)


class _EnvelopedClient(BaseClient[Any]):
    """The members that the blocking and the asyncio clients have in common."""

    enveloped = True
    #: Sent with each ping, which a page does not see.
    sign_of_life = ALIVE

    @cached_property
    def former_id(self) -> str:
        """Its id before it connected again, as it says; "" for none."""
        return former_id_of(self.environ.get("QUERY_STRING", ""))

    @cached_property
    def _positions(self) -> dict[str, str]:
        return positions_of(self.environ.get("QUERY_STRING", ""))

    def _since(self, room: str, since: str | None) -> str | None:
        """Return where a join goes on: where its handler says, or else, once, the client itself."""
        return self._positions.get(room) if since is None else since

    def _went_on(self, joined: Joined) -> Joined:
        """Take note that a join has gone on; one that failed may be tried again."""
        self._positions.pop(joined.room, None)
        return joined

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
    def join(
        self, room: str, info: Any = None, since: str | None = None, replay: int = 0
    ) -> Joined:
        return self._went_on(super().join(room, info, self._since(room, since), replay))

    def send(self, msg: Data, binary: bool | None = None) -> None:
        super().send(self._wrap(msg, binary), binary)


class _EnvelopedAsyncioClient(_EnvelopedClient, AsyncioWebSocketClient):
    async def join(
        self, room: str, info: Any = None, since: str | None = None, replay: int = 0
    ) -> Joined:
        return self._went_on(await super().join(room, info, self._since(room, since), replay))

    async def send(self, msg: Data, binary: bool | None = None) -> None:
        await super().send(self._wrap(msg, binary), binary)

    a_send = send
