"""Messages to several rooms, of which each that is kept has a log of its own."""

from __future__ import annotations

from dataclasses import replace

from .channels import room_of
from .options import RoomPatterns
from .record import KeptRecord, Kind, Record, to_be_kept


def divide(record: Record, patterns: RoomPatterns) -> list[Record]:
    """Make one record for each kept room that a message is to, and one for all else.

    :raises ValueError: for a message with a key that is to something else.
    """
    if record.kind is not Kind.MESSAGE:
        return [record]
    key = record.key if isinstance(record, KeptRecord) else ""
    divided: list[Record] = []
    others = []
    for channel in record.channels:
        room = room_of(channel)
        history = None if room is None else patterns.of(room).history
        if history is None:
            others.append(channel)
        else:
            divided.append(to_be_kept(record, channel, history, key))
    if key and others:
        raise ValueError(
            "what has a key can only be sent to rooms that keep messages, whose options, "
            f"websocket.room(...), have history=True: {room_of(others[0]) or others[0]!r} does not"
        )
    if others:
        divided.append(replace(record, channels=tuple(others)) if divided else record)
    return divided
