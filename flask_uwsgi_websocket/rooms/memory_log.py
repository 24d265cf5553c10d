"""The logs of rooms within one process."""

from __future__ import annotations

import time
from _thread import RLock
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from .backplane import Log
from .options import History
from .positions import Position, new_epoch
from .record import KeptRecord
from .retention import KEY_TIME, OVERHEAD, life, trim


class _Log:
    """What is kept of one room."""

    def __init__(self, seconds: float) -> None:
        self.epoch = new_epoch()
        self.seconds = seconds
        self.top = self.size = 0
        self.used = 0.0
        self.expires = 0.0
        self.entries: deque[KeptRecord] = deque()
        self._keys: dict[str, tuple[int, float]] = {}

    def renew(self, seconds: float, now: float) -> None:
        """Use it: for how long it is kept counts from now."""
        self.seconds, self.expires = seconds, now + life(seconds)

    def append(self, record: KeptRecord, now: float) -> KeptRecord | Position:
        """Append a record; return what it is now, or where an earlier one with its key is."""
        now = self.used = max(now, self.used)  # clocks may be put back
        self.renew(record.history.seconds, now)
        if record.key:
            known, when = self._keys.pop(record.key, (0, 0.0))
            if known and when > now - KEY_TIME:
                self._keys[record.key] = known, when
                return Position(self.epoch, known)
            self._keys[record.key] = self.top + 1, now
        self.top += 1
        appended = replace(record, position=Position(self.epoch, self.top), time=now)
        self.entries.append(appended)
        self.size += len(record.data) + OVERHEAD
        self._trim(record.history, now)
        return appended

    def _trim(self, history: History, now: float) -> None:
        first = self.top - len(self.entries) + 1
        found = (
            (first + number, each.time, len(each.data)) for number, each in enumerate(self.entries)
        )
        last, freed = trim(found, self.top, self.size, history, now)
        for _ in range(last - first + 1):
            self.entries.popleft()
        self.size -= freed

    def read(self, after: int, limit: int, max_size: int, now: float) -> Log:
        """Return what comes after an offset."""
        entries: list[KeptRecord] = []
        size = 0
        for record in self.entries:
            is_wanted = record.position is not None and record.position.offset > after
            if not is_wanted or record.time <= now - self.seconds:
                continue
            size += len(record.data)
            if len(entries) >= limit or (entries and size > max_size):
                break
            entries.append(record)
        return Log(self.epoch, self.top, tuple(entries))


class MemoryLogs:
    """The logs of the rooms of one app, for all of its backplanes in this process."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._logs: dict[str, _Log] = {}
        self._many = 1000
        #: See :meth:`.Backplane.describe`.
        self.description: str | None = None

    def _find(self, channel: str, now: float) -> _Log | None:
        log = self._logs.get(channel)
        if log is not None and log.expires <= now:
            del self._logs[channel]
            return None
        return log

    def _find_or_make(self, channel: str, seconds: float, now: float) -> _Log:
        log = self._find(channel, now)
        if log is None:
            self._drop_expired(now)
            log = self._logs[channel] = _Log(seconds)
            log.renew(seconds, now)
        return log

    def _drop_expired(self, now: float) -> None:
        """Drop the logs that nobody has used for long, whenever there are twice as many."""
        if len(self._logs) >= self._many:
            self._logs = {name: log for name, log in self._logs.items() if log.expires > now}
            self._many = max(1000, 2 * len(self._logs))

    def append(self, records: Sequence[KeptRecord]) -> list[KeptRecord | Position]:
        """Append records; return each as it is now, or where an earlier one with its key is."""
        with self._lock:
            now = _now()
            return [
                self._find_or_make(record.channels[0], record.history.seconds, now).append(
                    record, now
                )
                for record in records
            ]

    def read(self, channel: str, after: int, limit: int, max_size: int) -> Log:
        """Read a log; see :meth:`.Backplane.read`."""
        with self._lock:
            now = _now()
            log = self._find(channel, now)
            return Log("", 0) if log is None else log.read(after, limit, max_size, now)

    def touch(self, channel: str, seconds: float) -> Position:
        """Return the end of a log; see :meth:`.Backplane.touch`."""
        with self._lock:
            now = _now()
            log = self._find_or_make(channel, seconds, now)
            log.renew(seconds, now)
            return Position(log.epoch, log.top)

    @property
    def size(self) -> int:
        """Bytes of them all."""
        return sum(log.size for log in tuple(self._logs.values()))

    def forget(self, channel: str) -> Position:
        """Begin a log anew; return its position."""
        with self._lock:
            log = self._logs.pop(channel, None)
            return self.touch(channel, 0.0 if log is None else log.seconds)


def _now() -> float:
    return round(time.time(), 3)
