"""The open clients of this worker process, and one message for all of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Any

from .client import BaseClient, Data, decode_text
from .codec import SERVER, Protocol
from .engines.connection import Connection
from .engines.engine import Engine
from .engines.worker import Worker
from .exceptions import ConnectionClosed
from .unopened import Unopened


class Clients(Collection[Any]):
    """The open clients of an extension in this worker process, whichever of its apps they use.

    A client is here from the opening handshake until its connection ends. Iteration goes over a
    snapshot, so that clients may come and go meanwhile; any thread, greenlet or task may ask.

    :param extension: whose clients.
    """

    def __init__(self, extension: object) -> None:
        self._extension = extension
        self._engines: list[Engine] = []

    def look_in(self, engine: Engine) -> None:
        """Know an engine that runs handlers of the extension."""
        if engine not in self._engines:
            self._engines.append(engine)

    def __iter__(self) -> Iterator[Any]:
        connections: list[Connection] = []
        for worker in self._workers():
            connections += worker.connections  # at once: C code that lets no other thread run
        return iter([connection.client for connection in connections if self._has(connection)])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, client: object) -> bool:
        if not isinstance(client, BaseClient):
            return False
        connection: Connection | Unopened = client._connection
        return (
            not isinstance(connection, Unopened)
            and connection.worker in self._workers()
            and self._has(connection)
        )

    def _workers(self) -> list[Worker]:
        workers = [engine.running_worker() for engine in self._engines]
        return [worker for worker in workers if worker is not None]

    def _has(self, connection: Connection) -> bool:
        client = connection.client
        return client is not None and client._extension is self._extension and not connection.ended

    def __repr__(self) -> str:
        return f"<{len(self)} open clients>"


def send_to_all(
    clients: Clients, msg: Data, binary: bool | None, exclude: Collection[object]
) -> None:
    """Send a message to clients as ``send_nb`` does, and pass over those that have left.

    :param exclude: clients, or their ids, that shall not get it.
    :raises TypeError: when the message is neither str nor bytes.
    :raises ValueError: when it shall go as text, and is no UTF-8.
    """
    broadcast = _Broadcast(msg, binary)
    excluded = set(exclude)
    by_id = any(isinstance(one, str) for one in excluded)
    for client in clients:
        if client not in excluded and not (by_id and client.id in excluded):
            with suppress(ConnectionClosed):
                broadcast.send(client)


class _Broadcast:
    """One message for many clients: those without compression share its frame."""

    def __init__(self, msg: Data, binary: bool | None) -> None:
        if not isinstance(msg, (str, bytes, bytearray, memoryview)):
            raise TypeError(f"a message is str or bytes, not {type(msg).__name__}")
        self._is_text = isinstance(msg, str)
        self._data = msg.encode() if isinstance(msg, str) else bytes(msg)
        self._binary = binary
        self._shared: dict[bool, bytes] = {}
        self._frame(self._goes_as_text(False))  # what is wrong with it shows before anybody gets it

    def send(self, client: BaseClient) -> None:
        connection = client._connection
        as_text = self._goes_as_text(client._bytes_are_text)
        if connection.protocol.deflate is None:
            connection.post_nowait(bytes, self._frame(as_text))
        elif as_text:
            connection.post_nowait(client._text, decode_text(self._data))
        else:
            connection.post_nowait(client._binary, self._data)

    def _goes_as_text(self, bytes_are_text: bool) -> bool:
        if self._binary is None:
            return self._is_text or bytes_are_text
        return not self._binary

    def _frame(self, as_text: bool) -> bytes:
        frame = self._shared.get(as_text)
        if frame is None:
            protocol = Protocol(SERVER)
            if as_text:
                frame = protocol.text(decode_text(self._data))
            else:
                frame = protocol.binary(self._data)
            self._shared[as_text] = frame
        return frame
