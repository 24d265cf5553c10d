"""Records: what travels between workers, and its form in bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial

from .clock import CLOCK
from .options import History
from .positions import Position

#: Of the form below. A record of another version is refused, not guessed at.
VERSION = 1

#: Version, kind, flags, origin, number, when it was sent by whose clock, length of channels and
#: excluded ids.
_HEAD = struct.Struct("!BBB8sQd4sI")
_TEXT, _SERVED, _JSON = 1, 2, 4
#: In the place of the version, of a record that is in a log: its stamp, a zero byte, the record.
_KEPT = b"K"
_USUAL = History()
#: Bytes of a key.
MAX_KEY = 255


class Kind(IntEnum):
    """What a record asks its receivers to do for the clients that it is to."""

    #: Send ``data``.
    MESSAGE = 1
    #: Close; ``data`` is the code, in two bytes, and the reason (RFC 6455 5.5.1).
    CLOSE = 2
    #: Join the room that ``data`` names.
    JOIN = 3
    #: Leave the room that ``data`` names.
    LEAVE = 4
    #: Answer what ``data`` asks, on the channel of the worker that is its origin.
    ASK = 5
    #: The answer, to one worker.
    ANSWER = 6
    #: Tell clients with envelopes what ``data`` is: who has come to the room and gone, in its
    #: envelope.
    PRESENCE = 7


class BadRecord(ValueError):
    """Bytes that are no record, or one of another version."""


@dataclass(frozen=True, slots=True)
class Record:
    """Something for the clients in one or more channels.

    :param channels: whose clients it is to; each of them gets it once.
    :param data: the message, in UTF-8 if it is text; else as :class:`Kind` says.
    :param text: whether a message is text, not binary.
    :param exclude: the ids of clients that are not to get it.
    :param origin: 8 bytes that no other worker or publisher has.
    :param number: counts the records of an origin, from 1 on.
    :param served: whether the origin has delivered it to its own clients already.
    :param json: whether a text is JSON that we have made of a value.
    :param sent: when, by ``time.monotonic()``; 0 where that is not known, or of another clock.
    """

    kind: Kind
    channels: tuple[str, ...]
    data: bytes = b""
    text: bool = False
    exclude: tuple[str, ...] = ()
    origin: bytes = bytes(8)
    number: int = 0
    served: bool = False
    json: bool = False
    sent: float = field(default=0.0, compare=False)

    @property
    def weight(self) -> int:
        """About the bytes of memory that it takes."""
        return 500 + len(self.data) + 100 * (len(self.channels) + len(self.exclude))

    def encode(self) -> bytes:
        """Return its form in bytes."""
        names = "\n".join(["\t".join(self.channels), "\t".join(self.exclude)]).encode()
        flags = _TEXT * self.text | _SERVED * self.served | _JSON * self.json
        when = self.sent, CLOCK
        head = _HEAD.pack(VERSION, self.kind, flags, self.origin, self.number, *when, len(names))
        return b"".join([head, names, self.data])


@dataclass(frozen=True, slots=True)
class KeptRecord(Record):
    """A message to a room that keeps what is sent to it: to exactly one channel.

    :param history: how much the room keeps; told to the backplane, and to nobody else.
    :param key: what makes it safe to repeat; so told. "" for none.
    :param position: its own, in the log; None before it is there.
    :param time: when it came there, in seconds since 1970, exact to the millisecond.
    """

    history: History = _USUAL
    key: str = ""
    position: Position | None = None
    time: float = 0.0

    def body(self) -> bytes:
        """Return what a log keeps besides position and time, which it gives."""
        # No super(): a dataclass with slots is another class than the one that is written here.
        return Record.encode(self)

    def encode(self) -> bytes:
        """Return its form in bytes, once it is in a log."""
        assert self.position is not None
        stamp = f"{self.position} {round(self.time * 1000)}".encode()
        return b"".join([_KEPT, stamp, b"\0", self.body()])


def _decode_kept(data: bytes) -> KeptRecord:
    stamp, _, body = data[len(_KEPT) :].partition(b"\0")
    text, _, milliseconds = stamp.decode().partition(" ")
    position = Position.parse(text)
    if position is None:
        raise BadRecord(f"a record with a position that is none: {text!a:.80}")
    return kept(body, position, int(milliseconds) / 1000)


def to_be_kept(record: Record, channel: str, history: History, key: str = "") -> KeptRecord:
    """Make what appends a message to the log of one channel.

    :raises ValueError: for a key that is too long.
    """
    if len(key.encode()) > MAX_KEY:
        raise ValueError(f"a key has {MAX_KEY} bytes of UTF-8 at most: {key!a:.80}")
    return KeptRecord(
        record.kind,
        (channel,),
        record.data,
        record.text,
        record.exclude,
        json=record.json,
        history=history,
        key=key,
    )


def kept(body: bytes, position: Position, time: float) -> KeptRecord:
    """Make the record of what a log has; raises as :func:`decode`."""
    make = partial(KeptRecord, position=position, time=time)
    record = None if body.startswith(_KEPT) else decode(body, make)
    if not isinstance(record, KeptRecord) or len(record.channels) != 1:
        raise BadRecord("a record that no log can have")
    return record


def decode(data: bytes, make: Callable[..., Record] = Record) -> Record:
    """Read a record; :exc:`BadRecord` where that is impossible."""
    try:
        version, kind, flags, origin, number, sent, whose, size = _HEAD.unpack_from(data)
        if version == _KEPT[0]:
            return _decode_kept(data)
        if version != VERSION:
            raise BadRecord(f"a record of version {version}: this release knows {VERSION}")
        begin = _HEAD.size + size
        if len(data) < begin:
            raise BadRecord("a record that was cut")
        channels, excluded = data[_HEAD.size : begin].decode().split("\n")
        return make(
            Kind(kind),
            tuple(channels.split("\t")) if channels else (),
            data[begin:],
            bool(flags & _TEXT),
            tuple(excluded.split("\t")) if excluded else (),
            origin,
            number,
            bool(flags & _SERVED),
            bool(flags & _JSON),
            sent=sent if whose == CLOCK else 0.0,
        )
    except (struct.error, ValueError) as error:
        raise error if isinstance(error, BadRecord) else BadRecord(str(error)) from None
