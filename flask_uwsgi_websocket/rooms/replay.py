"""What a client has missed of a room that it joins: all of it, or it is told that some is gone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..helpers.checks import whole
from .backplane import Log
from .channels import room_of
from .positions import Joined, Position
from .record import KeptRecord

#: Messages that a client gets of the past, and bytes of them: to load a room anew is cheaper than
#: more.
REPLAYED = 1000
REPLAYED_SIZE = 1 << 20
#: How many somebody may ask for.
NUMBER = whole(0, float("inf"), " of messages")


class Incomplete(Exception):
    """What was read and what was heard do not meet: it has to be read again."""


class Entry(NamedTuple):
    """How a client comes into a kept room.

    :param missed: what it gets of the past.
    :param position: of the last message before those that all members get.
    :param recovered: see :class:`.Joined`.
    """

    channel: str
    missed: list[KeptRecord]
    position: Position
    recovered: bool | None

    @property
    def begin(self) -> Position:
        """The position before the first message that the client gets."""
        return Position(self.position.epoch, self.position.offset - len(self.missed))

    @property
    def joined(self) -> Joined:
        """What its handler is told."""
        room = room_of(self.channel) or ""
        return Joined(room, str(self.position), self.recovered, len(self.missed))


class Wanted(NamedTuple):
    """What a client wants to have of the past.

    :param since: the position that it had; None if it has told none that can be one.
    :param has_asked: whether it has told one at all.
    :param last: how many of the last messages, for one that has not.
    """

    since: Position | None
    has_asked: bool
    last: int

    @classmethod
    def of(cls, since: object, replay: int) -> Wanted:
        """Read the arguments of a join, of which the first may come from the client.

        :raises ValueError: for a number that is none of messages.
        """
        if replay:
            NUMBER.check("replay", replay)
        last = 0 if since is not None or not replay else min(replay, REPLAYED)
        return cls(Position.parse(since), since is not None, last)

    @property
    def is_nothing(self) -> bool:
        """Whether nothing has to be read for it."""
        return self.since is None and not self.last

    def is_in_vain(self, top: Position) -> bool:
        """Return whether a log is known to have more than is replayed, being at a position."""
        since = self.since
        if since is None or since.epoch != top.epoch:
            return False
        return top.offset - since.offset > REPLAYED

    def begin(self, top: Position) -> int:
        """Return the offset after which a log has to be read, that ends at a position or later."""
        if self.since is None:
            return max(0, top.offset - self.last)
        return min(self.since.offset, top.offset) if self.since.epoch == top.epoch else top.offset

    def recovered(self, missed: list[KeptRecord] | None) -> bool | None:
        """Return whether a client gets all that it has missed; None where it has not asked."""
        return missed is not None and self.since is not None if self.has_asked else None


NOTHING = Wanted(None, False, 0)


def select(
    wanted: Wanted, log: Log, heard: Iterable[KeptRecord], end: Position
) -> list[KeptRecord] | None:
    """Choose the messages up to a position that a client gets; None where some are gone.

    :param log: what was read.
    :param heard: what was passed on since reading began.
    :param end: up to where messages have been passed on to others.
    :raises Incomplete: where not all of it is there, though it may be in the log.
    """
    if log.epoch != end.epoch:
        raise Incomplete
    there = {each.position.offset: each for each in (*log.entries, *heard) if each.position}
    if wanted.since is None:
        return _last(there, end.offset, wanted.last)
    begin = wanted.since.offset
    if wanted.since.epoch != log.epoch or begin > log.top or end.offset - begin > REPLAYED:
        return None
    if begin > end.offset:
        raise Incomplete
    if begin < log.top and begin + 1 not in there:  # it was trimmed
        return None
    missed = _last(there, end.offset, end.offset - begin)
    if len(missed) == end.offset - begin:
        return missed
    if len(log.entries) < log.top - begin:  # they are more than is replayed
        return None
    raise Incomplete


def _last(there: dict[int, KeptRecord], end: int, count: int) -> list[KeptRecord]:
    """Return the last messages without holes, as far as they are not too large."""
    found: list[KeptRecord] = []
    size = 0
    while len(found) < count and (record := there.get(end - len(found))):
        size += len(record.data)
        if size > REPLAYED_SIZE:
            break
        found.append(record)
    return found[::-1]
