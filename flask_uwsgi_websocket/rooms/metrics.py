"""What is counted in the rooms of a worker: by patterns of their names, and of the backplane.

Labels are the patterns of an app's options, never the names of rooms, of which there may be any
number. Each figure has one who counts it: a loop, or whoever has the lock.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from ..metrics.histogram import Histogram
from ..metrics.observers import Observers
from .channels import room_of

#: Stands for the pattern of rooms that match none, and of what is sent to users and to all.
OTHERS = "*"
#: Channels whose pattern is remembered: that of others is looked up anew.
_REMEMBERED = 1 << 14
#: Seconds; a message is with the clients of its own worker in a few tenths of a millisecond.
LAG_BOUNDS = (
    *(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)


class PatternMetrics:
    """The figures of the rooms of one pattern; its observers get each lag."""

    __slots__ = (
        *("_observers", "_pattern", "delivered", "joins", "lag", "leaves", "published"),
        *("recovered", "repairs", "replayed", "resync", "resyncs", "slow", "undelivered"),
    )

    def __init__(self, pattern: str = OTHERS, observers: Observers | None = None) -> None:
        self._pattern = pattern
        self._observers = Observers() if observers is None else observers
        self.joins = self.leaves = 0
        #: Messages that the backplane has taken from here; each once, for however many rooms.
        self.published = 0
        #: Messages to a client of ours each; and records that found the worker too busy.
        self.delivered = self.undelivered = 0
        #: Clients that were closed for reading too slowly, and messages that others did not get.
        self.slow = {"closed": 0, "dropped": 0, "conflated": 0}
        #: Clients that came back and got all that they had missed, and those who could not.
        self.recovered = self.resync = 0
        #: Messages that clients got of the past.
        self.replayed = 0
        #: How often a log was read since something was missing, and how often members were notified
        #: that this is lost.
        self.repairs = self.resyncs = 0
        #: Seconds from publishing to delivery, of the first message of each batch.
        self.lag = Histogram(LAG_BOUNDS)

    def lagged(self, seconds: float) -> None:
        """Count the lag of a batch."""
        self.lag.observe(seconds)
        self._observers.timed("lag", self._pattern, seconds)

    def snapshot(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        return {
            "joins": self.joins,
            "leaves": self.leaves,
            "published": self.published,
            "delivered": self.delivered,
            "undelivered": self.undelivered,
            "slow": dict(self.slow),
            "resumes": {"recovered": self.recovered, "resync": self.resync},
            "replayed": self.replayed,
            "repairs": self.repairs,
            "resyncs": self.resyncs,
            "lag": self.lag.snapshot(),
        }


class BackplaneMetrics:
    """The figures of the backplane."""

    __slots__ = ("failed", "gaps", "lost", "overflowed", "publish", "reconnects", "swept")

    def __init__(self) -> None:
        #: How often it has come back.
        self.reconnects = 0
        #: How often messages may have been missed; and how many are known to have been.
        self.gaps = self.lost = 0
        #: Records that it did not take, and that found the queue for it full.
        self.failed = self.overflowed = 0
        #: Users who were taken out of rooms by us, after their grace.
        self.swept = 0
        #: Seconds until it had a batch.
        self.publish = Histogram(LAG_BOUNDS)


class RoomsMetrics:
    """The figures of all rooms of an app in one process.

    :param pattern_of: returns the pattern that the name of a room matches, if any.
    :param observers: those who get each lag.
    """

    def __init__(
        self,
        pattern_of: Callable[[str], str | None] = lambda room: None,
        observers: Observers | None = None,
    ) -> None:
        self._pattern_of = pattern_of
        self._observers = Observers() if observers is None else observers
        self._patterns: dict[str, PatternMetrics] = {}
        #: Returns those of the pattern of a channel.
        self.of = lru_cache(_REMEMBERED)(self._find)
        self.backplane = BackplaneMetrics()
        #: Rooms that have members here.
        self.rooms = 0
        #: Calls that wrote messages to a client each: one may have those of several patterns.
        self.writes = 0

    def _find(self, channel: str) -> PatternMetrics:
        room = room_of(channel)
        pattern = None if room is None else self._pattern_of(room)
        name = pattern or OTHERS
        return self._patterns.setdefault(name, PatternMetrics(name, self._observers))

    def snapshot(self, is_up: bool = True, pending: int = 0, kept: int = 0) -> dict[str, Any]:
        """Return all as plain data.

        :param is_up: whether nothing is known to be wrong with the backplane.
        :param pending: bytes that wait for it.
        :param kept: bytes of all that rooms keep on this machine.
        """
        patterns = {pattern: each.snapshot() for pattern, each in tuple(self._patterns.items())}
        backplane = self.backplane
        members = sum(each["joins"] - each["leaves"] for each in patterns.values())
        return {
            # A thread that was interrupted may have joined uncounted; below zero is no figure.
            "rooms": max(self.rooms, 0),
            "members": max(members, 0),
            "writes": self.writes,
            "patterns": patterns,
            "backplane": {
                "up": int(is_up),
                "reconnects": backplane.reconnects,
                "gaps": backplane.gaps,
                "lost": backplane.lost,
                "failed": backplane.failed,
                "overflowed": backplane.overflowed,
                "pending_bytes": pending,
                "publish": backplane.publish.snapshot(),
                "presence_swept": backplane.swept,
                "log_bytes": kept,
            },
        }
