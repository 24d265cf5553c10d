"""The reader of a log: it makes one stream of what is heard of it, without holes or doubles.

What a backplane announces is a hint: it may be lost, come twice, or in any order. The log alone
tells. So a reader passes on the message that is next, keeps for a while what has come too early,
and has the log read where something is missing. No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .backplane import Log
from .positions import Position
from .record import KeptRecord

#: Messages that came too early and are kept: what is beyond, is read.
AHEAD = 64


class Resync(NamedTuple):
    """Passed on where messages are missing that nobody has any more.

    :param position: from where on none is.
    """

    position: Position


#: What a reader passes on.
Passed = KeptRecord | Resync


class Reader:
    """Follows a log from a position on."""

    def __init__(self, position: Position) -> None:
        #: Up to which all was passed on.
        self.position = position
        self._ahead: dict[int, KeptRecord] = {}
        self._top = position.offset  # the highest offset that was heard of
        self._doubts = False

    @property
    def is_behind(self) -> bool:
        """Whether the log has to be read."""
        return self._doubts or self._top > self.position.offset

    def doubt(self) -> None:
        """Have the log read: hints may have been lost, or a reading has failed."""
        self._doubts = True

    def hear(self, record: KeptRecord) -> Iterator[Passed]:
        """Take a hint; yield what can be passed on."""
        position = record.position
        assert position is not None
        if position.epoch != self.position.epoch:
            self._doubts = True  # of an old one, which is late, or of a new one: the log tells
        elif position.offset > self.position.offset:
            self._top = max(self._top, position.offset)
            if len(self._ahead) < AHEAD or position.offset == self.position.offset + 1:
                self._ahead[position.offset] = record
            yield from self._pass()

    def start_reading(self) -> Position:
        """Return after which position, or one before it, the log is to be read.

        What was heard of before is in what will be read. Where it is not, it is lost.
        """
        self._ahead.clear()
        self._top = self.position.offset
        self._doubts = False
        return self.position

    def take(self, log: Log, asked: Position) -> Iterator[Passed]:
        """Take what was read; yield what can be passed on.

        :param asked: what :meth:`start_reading` returned before.
        """
        if asked.epoch != self.position.epoch or asked.offset > self.position.offset:
            self._doubts = True  # another reading, which ended first, went back: ours may be older
        elif log.epoch != asked.epoch:
            yield self._go_back(Position(log.epoch, 0))
        elif log.top < asked.offset:  # its end is lost, as where a server takes another's place
            yield self._go_back(Position(log.epoch, log.top))
        else:
            self._top = max(self._top, log.top)
            yield from self._take_entries(log)

    def _go_back(self, position: Position) -> Resync:
        """Begin anew; what was heard meanwhile may be of either log, so that it has to be read."""
        self.position = position
        self._ahead.clear()
        self._top = position.offset
        self._doubts = True
        return Resync(position)

    def _take_entries(self, log: Log) -> Iterator[Passed]:
        if not log.entries and log.top > self.position.offset:  # all of it was trimmed
            yield self._skip(Position(log.epoch, log.top))
        for record in log.entries:
            position = record.position
            assert position is not None
            if (
                position.offset > self.position.offset + 1
            ):  # what is between was trimmed, or is lost
                yield self._skip(Position(log.epoch, position.offset - 1))
            if position.offset == self.position.offset + 1:
                self.position = position
                yield record
        yield from self._pass()
        self._ahead = {n: each for n, each in self._ahead.items() if n > self.position.offset}

    def _skip(self, position: Position) -> Resync:
        self.position = position
        return Resync(position)

    def _pass(self) -> Iterator[KeptRecord]:
        """Yield what is next, as far as it has come."""
        while record := self._ahead.pop(self.position.offset + 1, None):
            assert record.position is not None
            self.position = record.position
            yield record
