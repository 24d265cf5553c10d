"""What kept rooms have kept, for whoever asks: a view, a script, a terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from ..exceptions import RoomError
from .backplane import Backplane, Log
from .channels import room_channel
from .exchange import Exchange
from .options import MAX_KEPT, History, RoomPatterns
from .positions import Position
from .record import KeptRecord
from .replay import NUMBER

#: Messages that are read in one go: others of the loop have their turn between two.
_IN_ONE_GO = 500


class Message(NamedTuple):
    """A message that a room has kept.

    :param position: what ``join(since=)`` takes, for all that came after it.
    :param data: a str if it is text.
    :param time: when it was sent, in seconds since 1970.
    """

    position: str
    data: str | bytes
    time: float


class Past(NamedTuple):
    """What a room has kept.

    :param messages: the oldest first.
    :param position: of the last of them; where there is none, of the last that was sent.
    :param complete: whether none is missing of those that were asked for.
    """

    messages: list[Message]
    position: str
    complete: bool


def history_of(patterns: RoomPatterns, room: str) -> History:
    """Return how much a room keeps; RoomError where it keeps nothing."""
    room_channel(room)  # checks the name
    history = patterns.of(room).history
    if history is None:
        raise RoomError(
            f"{room!r} keeps no messages: its options, websocket.room(...), need history=True"
        )
    return history


async def position_of(exchange: Exchange, patterns: RoomPatterns, room: str) -> str:
    """Return the position of the last message of a room."""
    return str(await _end(exchange, patterns, room))


async def past_of(
    exchange: Exchange,
    patterns: RoomPatterns,
    room: str,
    after: str | None = None,
    limit: int = 100,
) -> Past:
    """Return messages of a room.

    :param after: a position; None: the last ones that there are.
    :param limit: how many at most.
    :raises ValueError: for a limit that is no number of messages.
    """
    NUMBER.check("limit", limit)
    end = await _end(exchange, patterns, room)
    known = Position.parse(after)
    is_of_it = known is not None and known.epoch == end.epoch and known.offset <= end.offset
    begin = known.offset if known is not None and is_of_it else max(0, end.offset - limit)
    found = await _read(exchange, room_channel(room), Position(end.epoch, begin), limit)
    last = found[-1].position if found else end
    first = found[0].position if found else Position(end.epoch, end.offset + 1)
    is_whole = first is not None and first.offset == begin + 1
    return Past(
        [_message(record) for record in found],
        str(last),
        is_whole and (after is None or is_of_it),
    )


async def forget(exchange: Exchange, patterns: RoomPatterns, room: str) -> None:
    """Have a room begin anew."""
    history_of(patterns, room)
    await exchange.call("history", lambda backplane: backplane.forget(room_channel(room)))


async def _end(exchange: Exchange, patterns: RoomPatterns, room: str) -> Position:
    seconds = history_of(patterns, room).seconds
    channel = room_channel(room)
    return await exchange.call("history", lambda backplane: backplane.touch(channel, seconds))


async def _read(
    exchange: Exchange, channel: str, after: Position, limit: int
) -> Sequence[KeptRecord]:
    """Read on until there is no more, or another log."""
    found: list[KeptRecord] = []
    while len(found) < limit:
        count = min(limit - len(found), _IN_ONE_GO)
        log = await exchange.call("history", partial(_part, channel, after.offset, count))
        if log.epoch != after.epoch or not log.entries:
            break
        found += log.entries
        after = log.entries[-1].position or after
        await asyncio.sleep(0)
    return found


async def _part(channel: str, after: int, count: int, backplane: Backplane) -> Log:
    return await backplane.read(channel, after, count, MAX_KEPT)


def _message(record: KeptRecord) -> Message:
    data = record.data.decode() if record.text else record.data
    return Message(str(record.position), data, record.time)
