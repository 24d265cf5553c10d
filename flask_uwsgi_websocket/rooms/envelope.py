"""The envelope: JSON around what goes to a client that resumes, for it to know what came whence.

Only on routes with ``resume=True``, and only for clients that offer :data:`SUBPROTOCOL`. Each text
message to such a client is one object::

    {"hello": {"id": "…", "ping": 25}}                   first of all; ping: seconds, 0 for never
    {"in": "chat/a", "at": "k3v9.16", "recovered": true} it has joined; before what it has missed
    {"room": "chat/a", "at": "k3v9.17", "text": "hi"}    from a room; or "json", or "b64" for bytes
    {"room": "chat/a", "at": "k3v9.18"}                  one that is not for it: only the position
    {"text": "hi"}                                       to it alone, its user or all; or "json"
    {"presence": {"room": "chat/a", "count": 2, "join": [{"user": "7", "info": {}}], "leave": []}}
                                                         or, of many members, "count" alone
    {"out": "chat/a"}                                    it has left
    {}                                                   a sign of life

``at`` is there for rooms that are kept, ``recovered`` where the client has said how far it had got.
Binary messages to it alone, its user or all have no envelope, and nothing has that it sends.
"""

from __future__ import annotations

import json
from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, unquote_plus

from ..codec.frames import BINARY, TEXT
from ..connection.connection import Connection
from ..exceptions import ConnectionClosed
from .channels import room_of
from .positions import Position
from .record import KeptRecord, Kind, Record

SUBPROTOCOL = "flask-uwsgi-rooms.v1"

#: Bytes of positions that are read from the URL of a client: uWSGI reads 4 KiB of a request.
MAX_SINCE = 1500

#: Tells a page, which sees no pings, that the server is there.
ALIVE = "{}"


class Enveloped(str):
    """A text that is in an envelope already."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Withheld(KeptRecord):
    """A message that a client is not to get: only that it has been."""


def withhold(record: KeptRecord) -> Withheld:
    """Keep from a client what a message says."""
    return Withheld(Kind.MESSAGE, record.channels, position=record.position)


def as_seen_by(connection: Connection, record: KeptRecord) -> KeptRecord:
    """Withhold a message from a client for which it was not, under the id that it had then."""
    former_id = getattr(connection.client, "former_id", "")
    return withhold(record) if former_id and former_id in record.exclude else record


def is_enveloped(connection: Connection) -> bool:
    """Return whether a client wants envelopes."""
    return getattr(connection.client, "enveloped", False)


def tell(connection: Connection, text: Enveloped) -> None:
    """Send a client what is in an envelope, without waiting."""
    with suppress(ConnectionClosed):
        connection.post_nowait(None, str(text))


def hello(id: str, ping: float) -> Enveloped:
    """Make the first message to a client.

    :param ping: the seconds between signs of life; 0 for none.
    """
    return _object(hello={"id": id, "ping": ping})


def direct_text(text: str) -> Enveloped:
    """Put a text into an envelope that is to one client alone."""
    return Enveloped(f'{{"text":{_dumps(text)}}}')


def direct_json(value: str) -> Enveloped:
    """Put a value, of which this is the JSON, into an envelope that is to one client alone."""
    return Enveloped(f'{{"json":{value}}}')


def encode_joined(
    room: str, position: Position | None = None, recovered: bool | None = None
) -> Enveloped:
    """Make what tells a client that it has joined a room.

    :param position: the one before the first message that it gets, if the room is kept.
    :param recovered: whether it misses none, if it has asked.
    """
    at = {} if position is None else {"at": str(position)}
    return _object(**{"in": room}, **at, **({} if recovered is None else {"recovered": recovered}))


def encode_left(room: str) -> Enveloped:
    """Make what tells a client that it has left a room."""
    return _object(out=room)


def encode_presence(room: str, count: int, join: Any = None, leave: Any = None) -> Enveloped:
    """Make what tells members of a room how many users are there, and who has come and gone."""
    presence = {"room": room, "count": count}
    if join is not None:
        presence |= {"join": join, "leave": leave}
    return _object(presence=presence)


def encode_message(record: Record, channel: str) -> tuple[int, bytes]:
    """Put a message into the envelope of a client; return opcode and payload.

    :param channel: the one of the record's that the client is in.
    """
    if record.kind is Kind.PRESENCE:
        return TEXT, record.data  # it is in its envelope
    room = room_of(channel)
    if room is None:
        return (TEXT, b"{%b}" % _content(record)) if record.text else (BINARY, record.data)
    content = b"" if isinstance(record, Withheld) else b"," + _content(record)
    return TEXT, b"{%b%b}" % (_source(record, room), content)


def _source(record: Record, room: str) -> bytes:
    source = f'"room":{_dumps(room)}'
    if isinstance(record, KeptRecord) and record.position is not None:
        source += f',"at":"{record.position}"'
    return source.encode()


def _content(record: Record) -> bytes:
    if record.json:  # as it is: what others get is not encoded twice either
        return b'"json":' + record.data
    if record.text:
        return b'"text":' + _dumps(record.data.decode()).encode()
    return b'"b64":"%b"' % b64encode(record.data)


def _object(**members: Any) -> Enveloped:
    return Enveloped(_dumps(members))


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def positions_of(query: str) -> dict[str, str]:
    """Return how far a client has got in rooms, as its URL says: ``?_since=room:position,...``.

    In names of rooms ``%``, ``,`` and ``:`` are escaped once more. What is beyond
    :data:`MAX_SINCE` is not read, as if it had not been asked for.
    """
    value = _parameter(query, "_since")
    if len(value) > MAX_SINCE:
        value = value[:MAX_SINCE].rpartition(",")[0]
    each = [one.rpartition(":") for one in unquote_plus(value).split(",")]
    return {unquote(room): position for room, colon, position in each if colon}


def former_id_of(query: str) -> str:
    """Return the id that a client had before it connected again: ``?_was=id``; "" for none."""
    return unquote_plus(_parameter(query, "_was"))


def _parameter(query: str, name: str) -> str:
    fields = [field.partition("=") for field in query.split("&")]
    return next((value for key, _, value in fields if key == name), "")
