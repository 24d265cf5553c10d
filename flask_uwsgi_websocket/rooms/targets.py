"""Targets: to whom something is to be sent, wherever they are connected."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Iterable
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

from ..codec.frames import check_close, encode_text
from .channels import ALL, room_channel, user_channel
from .options import History
from .record import Kind, Record, to_be_kept

#: What a call gives when it has waited, or something to await for that: the position of a message
#: to a single kept room, else None.
Done = TypeVar("Done", bound=Awaitable[str | None] | str | None, covariant=True)


class Sender(Protocol[Done]):
    """What a target sends through: the backplane of a worker, or of a publisher."""

    @property
    def max_size(self) -> int:
        """Bytes of the largest message."""
        ...

    def send(self, record: Record) -> Done:
        """Publish a record; wait until the backplane has it, or give something to await."""
        ...

    def send_nowait(self, record: Record) -> None:
        """Queue a record."""
        ...

    def dumps(self, value: Any) -> str:
        """Return the JSON for a value."""
        ...


class Target(Generic[Done]):
    """The clients of some rooms, of some users, or all of them; each gets a message once.

    Its methods block, or are to be awaited where handlers are. They raise
    :exc:`~.exceptions.BackplaneUnavailable` when nobody, or an unknown part, got it.

    :param exclude: a client or several that are not meant, each by itself or by its id.
    """

    __slots__ = ("_channels", "_exclude", "_sender")

    def __init__(self, sender: Sender[Done], channels: Iterable[str], exclude: Any = ()) -> None:
        self._sender = sender
        self._channels = tuple(dict.fromkeys(channels))
        self._exclude = excluded_ids(exclude)

    def send(self, msg: Any, binary: bool | None = None, key: str | None = None) -> Done:
        """Send a message, and wait until the backplane has it.

        :param binary: whether it goes as binary; by default bytes do, and str does not.
        :param key: to rooms with ``history``, what makes it safe to send the message again: those
            that have got one with this key, within the last five minutes, do not get another.
        :return: its position, where it was to a single room with ``history``; else None.
        :raises ValueError: for a key with a message to others.
        """
        record = self._message(msg, binary)
        return self._sender.send(record if key is None else _repeatable(record, key))

    def send_json(self, obj: Any, key: str | None = None) -> Done:
        """Send an object as JSON, as :meth:`send` sends."""
        record = replace(self._message(self._sender.dumps(obj), None), json=True)
        return self._sender.send(record if key is None else _repeatable(record, key))

    def send_nowait(self, msg: Any, binary: bool | None = None) -> None:
        """Queue a message behind what this caller has sent; never wait.

        What the backplane cannot take is dropped, counted and logged.
        """
        self._sender.send_nowait(self._message(msg, binary))

    def close(self, code: int = 1000, reason: str = "") -> Done:
        """Close the connections.

        :raises LocalProtocolError: for a code or reason that must not be sent.
        """
        check_close(code, reason)
        data = struct.pack("!H", code) + encode_text(reason)
        return self._sender.send(self._record(Kind.CLOSE, data))

    def join(self, room: str) -> Done:
        """Have the clients join a room, those who may; it need not be in force on return."""
        return self._move(Kind.JOIN, room)

    def leave(self, room: str) -> Done:
        """Have the clients leave a room."""
        return self._move(Kind.LEAVE, room)

    def _move(self, kind: Kind, room: str) -> Done:
        room_channel(room)  # raises
        return self._sender.send(self._record(kind, room.encode()))

    def _message(self, msg: Any, binary: bool | None) -> Record:
        if isinstance(msg, str):
            data, text = encode_text(msg), not binary
        elif isinstance(msg, (bytes, bytearray, memoryview)):
            data, text = bytes(msg), binary is False
            if text:
                data.decode()  # raises UnicodeDecodeError: RFC 6455 5.6, text is UTF-8
        else:
            raise TypeError(f"a message is str or bytes, not {type(msg).__name__}")
        if len(data) > self._sender.max_size:
            raise ValueError(
                f"a message of {len(data)} bytes: to rooms go {self._sender.max_size} at most, "
                "UWSGI_WEBSOCKET_ROOM_MESSAGE_SIZE"
            )
        return self._record(Kind.MESSAGE, data, text)

    def _record(self, kind: Kind, data: bytes, text: bool = False) -> Record:
        return Record(kind, self._channels, data, text, self._exclude)


def _repeatable(record: Record, key: str) -> Record:
    """Make what can be sent again, which may still be to several channels."""
    if not isinstance(key, str) or not key:
        raise TypeError(f"a key is a str that is not empty, not {key!r:.80}")
    return replace(to_be_kept(record, ALL, History(), key), channels=record.channels)


class Targets(Generic[Done]):
    """What makes targets. A mixin for a :class:`Sender`, or its :meth:`_sender` returns one."""

    def _sender(self) -> Sender[Done]:
        raise NotImplementedError

    def to(self, *rooms: str, exclude: Any = ()) -> Target[Done]:
        """Return what sends to the members of one or several rooms.

        :raises ValueError: for a name that no room can have.
        """
        return Target(self._sender(), map(room_channel, rooms), exclude)

    def to_user(self, *users: str | int, exclude: Any = ()) -> Target[Done]:
        """Return what sends to all clients of one or several users, as ``identify`` names them."""
        return Target(self._sender(), map(user_channel, users), exclude)

    def to_all(self, *, exclude: Any = ()) -> Target[Done]:
        """Return what sends to all clients of the app."""
        return Target(self._sender(), (ALL,), exclude)


def excluded_ids(exclude: Any) -> tuple[str, ...]:
    """Return the ids of those to be excluded.

    :param exclude: a client or its id, or several; None and what can be no id are nobody's, since
        they may come from a header field that a browser sent, or not.
    :raises TypeError: for what is none of these.
    """
    # To iterate over a client would be to receive its messages.
    is_one = isinstance(exclude, str) or hasattr(exclude, "id")
    given: Iterable[Any] = [exclude] if is_one or exclude is None else exclude
    if isinstance(given, (bytes, bytearray)) or not isinstance(given, Iterable):
        raise TypeError(f"exclude is a client, its id, or several, not {type(exclude).__name__}")
    ids = (each if isinstance(each, str) else getattr(each, "id", None) for each in given)
    return tuple(id for id in ids if id and id.isascii() and id.isprintable())
