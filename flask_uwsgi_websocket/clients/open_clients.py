"""The open clients of this worker process, and one message for all of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Any

from ..codec import Frames, encode_message
from ..connection.connection import Connection
from ..connection.worker import Worker
from ..engines.base import Engine
from ..exceptions import ConnectionClosed
from ..rooms.envelope import direct_text
from ..rooms.fan_out import send_to_many
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
        #: Those that have run handlers of the extension.
        self.engines: list[Engine] = []

    def look_in(self, engine: Engine) -> None:
        """Look among the connections of this engine, too: it runs handlers of the extension."""
        if engine not in self.engines:
            self.engines.append(engine)

    def __iter__(self) -> Iterator[Any]:
        extension = self._extension
        return iter(
            [
                client
                for connection in self.connections()
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

    def connections(self) -> list[Connection]:
        """Return all connections of the process that may be of the extension's clients."""
        connections: list[Connection] = []
        for worker in self._workers():
            connections += worker.connections  # in one step: no other thread runs meanwhile
        return connections

    def _workers(self) -> list[Worker]:
        workers = [engine.running_worker() for engine in self.engines]
        return [worker for worker in workers if worker is not None]

    def __repr__(self) -> str:
        return f"<{len(self)} open clients>"


def send_to_all(clients: Clients, msg: Data, binary: bool | None, exclude: Excluded) -> None:
    """Send a message to clients as ``send_nb`` does, and skip those that have left.

    :param exclude: those that are not to get it.
    :raises TypeError: when the message is neither str nor bytes.
    :raises ValueError: when it is to go as text, and is not UTF-8.
    """
    # Encoded before anybody gets it, so that what is wrong with it shows; and once for all, but
    # where some clients send bytes as text, or get envelopes, and others don't.
    frames = {_variant(BaseClient): _encode(msg, binary)}
    receivers: dict[type[BaseClient[Any]], list[Connection]] = {}
    for client in _without(clients, exclude) if exclude else clients:
        receivers.setdefault(type(client), []).append(client._connection)
    for variant in map(_variant, receivers):
        if variant not in frames:
            frames[variant] = _encode(msg, binary, *variant)
    for kind, connections in receivers.items():
        _send(frames[_variant(kind)], connections)


def _variant(kind: type[BaseClient[Any]]) -> tuple[bool, bool]:
    """Return what decides how a message is encoded for clients of a class."""
    return kind._bytes_are_text, kind.enveloped


def _send(frames: Frames, connections: list[Connection]) -> None:
    for left in send_to_many(frames, connections):
        for connection in left:
            with suppress(ConnectionClosed):
                connection.post_nowait(frames.for_, connection.protocol)


def _encode(
    msg: Data, binary: bool | None, bytes_are_text: bool = False, enveloped: bool = False
) -> Frames:
    if isinstance(msg, str):
        if binary:
            return encode_message(msg.encode())
        return encode_message(direct_text(msg) if enveloped else msg)
    if not isinstance(msg, (bytes, bytearray, memoryview)):
        raise TypeError(f"a message is str or bytes, not {type(msg).__name__}")
    as_text = bytes_are_text if binary is None else not binary
    return _encode(decode_text(msg), False, enveloped=enveloped) if as_text else encode_message(msg)


def _without(clients: Clients, exclude: Excluded) -> Iterator[Any]:
    # To iterate over a client would be to receive its messages.
    excluded = {exclude} if isinstance(exclude, (str, BaseClient)) else set(exclude)
    by_id = any(isinstance(one, str) for one in excluded)
    for client in clients:
        if client not in excluded and not (by_id and client.id in excluded):
            yield client
