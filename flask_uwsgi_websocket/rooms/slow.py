"""What becomes of messages for clients that read too slowly, by the options of their room.

``close``: more than ``UWSGI_WEBSOCKET_SEND_QUEUE_SIZE`` bytes are queued, so the client is closed
with 1013. The others keep what is for a client, of whose queue more than half is taken, until that
has become less: ``latest`` the last message of each room, ``drop-oldest`` the last ones that fit.
What is queued already goes out in any case, since the first of it may be half sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ..codec import Frames
from ..connection.connection import Connection
from ..connection.worker import Worker
from ..helpers.log import RateLimit, logger
from .metrics import RoomsMetrics
from .options import Slow

#: Bytes of a replay that are pushed at once, to a client whose queue has room for them.
_AT_ONCE = 64 * 1024
#: Bytes that may wait for a client when another replay comes: one that joins and leaves, and does
#: not read, must not take all memory.
MAX_REPLAYED = 8 << 20


class Backlog:
    """What is kept for a client, in the order in which it goes out.

    :param limit: bytes of it, unless a single message is larger.
    """

    __slots__ = ("_frames", "_limit", "_number", "_usual", "is_strict", "size")

    def __init__(self, limit: int) -> None:
        self._limit = self._usual = limit
        #: In bytes.
        self.size = 0
        #: Whether nothing of it may be dropped.
        self.is_strict = False
        self._number = 0
        self._frames: dict[str | int, Frames] = {}

    def __bool__(self) -> bool:
        return bool(self._frames)

    @property
    def is_full(self) -> bool:
        """Whether it is above its limit."""
        return self.size > self._limit

    def replay(self, frames: Sequence[Frames]) -> None:
        """Keep all of some messages, and as many as usual of those that follow."""
        self.is_strict = True
        for each in frames:
            self._number += 1
            self._frames[self._number] = each
            self.size += len(each.plain)
        self._limit = self.size + self._usual

    def keep(self, frames: Frames, conflate: str | None = None) -> tuple[int, int]:
        """Keep a message; return how many gave way to it: older ones of its kind, and the oldest.

        :param conflate: takes the place of the message for which the same was given.
        """
        conflated = conflate is not None and self._forget(conflate)
        self._number += 1
        self._frames[self._number if conflate is None else conflate] = frames
        self.size += len(frames.plain)
        dropped = 0
        while self.is_full and len(self._frames) > 1 and not self.is_strict:
            self.next()
            dropped += 1
        return int(conflated), dropped

    def next(self) -> Frames:
        """Return the oldest message, and keep it no longer."""
        first = next(iter(self._frames))
        frames = self._frames[first]
        self._forget(first)
        if not self._frames:
            self.is_strict, self._limit = False, self._usual
        return frames

    def _forget(self, key: str | int) -> bool:
        frames = self._frames.pop(key, None)
        if frames is None:
            return False
        self.size -= len(frames.plain)
        return True


class SlowClients:
    """The clients that read too slowly, and what is kept for them; on the worker's loop alone.

    :param metrics: count them, and what they do not get.
    """

    def __init__(self, worker: Worker, metrics: RoomsMetrics) -> None:
        self._worker = worker
        self._metrics = metrics
        self._warnings = {key: RateLimit() for key in _WARNINGS}
        #: Of those that have been slow, until they are released.
        self.backlogs: dict[Connection, Backlog] = {}

    def push(self, connection: Connection, messages: Sequence[tuple[Frames, Slow, str]]) -> None:
        """Push messages to a connection, or keep them, as is said with each; and its channel."""
        for frames, slow, channel in messages:
            backlog = self.backlogs.get(connection)
            if backlog and backlog.is_strict:
                self._keep_or_close(connection, backlog, frames, channel)
            elif slow == "close":
                self._push_or_close(connection, frames, channel)
            elif self.backlogs.get(connection) or not connection.has_room():
                self._keep(connection, frames, slow, channel)
            else:
                connection.push(frames)

    def replay(self, connection: Connection, frames: Frames, channel: str) -> None:
        """Push messages, however many, before all that is delivered from now on."""
        at_once = min(_AT_ONCE, connection.limits.send_queue_size // 2)
        is_little = not self.backlogs.get(connection) and len(frames.plain) <= at_once
        if is_little and connection.has_room():
            connection.push(frames)
            return
        backlog = self._backlog(connection)
        if backlog is None:
            return
        if backlog.size > MAX_REPLAYED:
            self._close(connection, channel)
            return
        was_empty = not backlog
        backlog.replay(frames.apart())
        if was_empty:
            self._go_on(connection)

    def _keep_or_close(
        self, connection: Connection, backlog: Backlog, frames: Frames, channel: str
    ) -> None:
        """Keep a message behind those that are replayed, for one that still takes them."""
        backlog.keep(frames)
        if backlog.is_full and not connection.ended:
            self._close(connection, channel)

    def _close(self, connection: Connection, channel: str) -> None:
        connection.cut_slow()
        self._count("closed", 1, channel)

    def _push_or_close(self, connection: Connection, frames: Frames, channel: str) -> None:
        had_ended = connection.ended
        if not connection.push(frames) and not had_ended and connection.close_code == 1013:
            self._count("closed", 1, channel)

    def _keep(self, connection: Connection, frames: Frames, slow: Slow, channel: str) -> None:
        backlog = self._backlog(connection)
        if backlog is None:
            return
        was_empty = not backlog
        conflated, dropped = backlog.keep(frames, channel if slow == "latest" else None)
        if connection.route is not None and (conflated or dropped):
            connection.route.slowed("conflated", conflated)
            connection.route.slowed("dropped", dropped)
        self._count("conflated", conflated, channel)
        self._count("dropped", dropped, channel)
        if was_empty:
            self._wait_for_room(connection)

    def _backlog(self, connection: Connection) -> Backlog | None:
        """Return what is kept for a connection; None for one that has ended."""
        if connection.ended:
            return None
        backlog = self.backlogs.get(connection)
        if backlog is None:
            backlog = self.backlogs[connection] = Backlog(connection.limits.send_queue_size)
            connection.on_release(partial(self.backlogs.pop, connection, None))
        return backlog

    def _wait_for_room(self, connection: Connection) -> None:
        # Under threads the handler may be the one who makes room.
        go_on = partial(self._worker.call_soon, partial(self._go_on, connection))
        connection.on_drained(go_on)

    def _go_on(self, connection: Connection) -> None:
        """Push what is kept for a connection, as far as there is room."""
        backlog = self.backlogs.get(connection)
        while backlog and connection.has_room():
            if not connection.push(backlog.next()):
                return
        if backlog and not connection.ended:
            self._wait_for_room(connection)

    def _count(self, key: str, count: int, channel: str) -> None:
        if not count:
            return
        counts = self._metrics.of(channel).slow
        counts[key] += count
        if self._warnings[key].passes():
            logger.warning(_WARNINGS[key], channel, counts[key])


_WARNINGS = {
    "closed": "a client in %s reads too slowly and is closed with 1013: %d until now",
    "dropped": "a client in %s reads too slowly, and messages to it are dropped: %d until now",
    "conflated": "a client in %s reads too slowly, and gets the latest only: %d until now",
}
