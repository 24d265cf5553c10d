"""The open clients of this worker process, and one message for all of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from ..codec import SERVER, Protocol
from ..connection.connection import Connection
from ..connection.worker import Worker
from ..engines.base import Engine
from ..exceptions import ConnectionClosed
from ..session.lazy import Unopened
from .base import BaseClient, Data, decode_text

#: A client or several, each by itself or by its id.
Excluded = BaseClient[Any] | str | Collection[BaseClient[Any] | str]


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
        extension = self._extension
        return iter(
            [
                client
                for connection in connections
                if (client := connection.client) is not None
                and client._extension is extension
                and not connection.ended
            ]
        )

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, client: object) -> bool:
        if not isinstance(client, BaseClient):
            return False
        connection: Connection | Unopened = client._connection
        return (
            not isinstance(connection, Unopened)
            and connection.worker in self._workers()
            and connection.client is client
            and client._extension is self._extension
            and not connection.ended
        )

    def _workers(self) -> list[Worker]:
        workers = [engine.running_worker() for engine in self._engines]
        return [worker for worker in workers if worker is not None]

    def __repr__(self) -> str:
        return f"<{len(self)} open clients>"


def send_to_all(clients: Clients, msg: Data, binary: bool | None, exclude: Excluded) -> None:
    """Send a message to clients as ``send_nb`` does, and pass over those that have left.

    :param exclude: those that shall not get it.
    :raises TypeError: when the message is neither str nor bytes.
    :raises ValueError: when it shall go as text, and is no UTF-8.
    """
    frames = _Frames(msg, binary)
    for client in _without(clients, exclude) if exclude else clients:
        connection: Connection = client._connection
        try:
            if connection.protocol.deflate is None:
                connection.post_nowait(bytes, frames[client._bytes_are_text])
            else:  # which goes by what it has sent before
                client.send_nb(msg, binary)
        except ConnectionClosed:
            pass


def _without(clients: Clients, exclude: Excluded) -> Iterator[Any]:
    # To iterate over a client would be to receive its messages.
    excluded = {exclude} if isinstance(exclude, (str, BaseClient)) else set(exclude)
    by_id = any(isinstance(one, str) for one in excluded)
    for client in clients:
        if client not in excluded and not (by_id and client.id in excluded):
            yield client


class _Frames(dict[bool, bytes]):
    """The frames of one message, by whether bytes shall go as text."""

    def __init__(self, msg: Data, binary: bool | None) -> None:
        if not isinstance(msg, (str, bytes, bytearray, memoryview)):
            raise TypeError(f"a message is str or bytes, not {type(msg).__name__}")
        self._msg, self._binary = msg, binary
        _ = self[False]  # what is wrong with it shows before anybody gets it

    def __missing__(self, bytes_are_text: bool) -> bytes:
        msg, binary, protocol = self._msg, self._binary, Protocol(SERVER)
        if binary is None:
            binary = not (isinstance(msg, str) or bytes_are_text)
        if isinstance(msg, str):
            frame = protocol.binary(msg.encode()) if binary else protocol.text(msg)
        else:
            frame = protocol.binary(msg) if binary else protocol.text(decode_text(msg))
        self[bytes_are_text] = frame
        return frame
