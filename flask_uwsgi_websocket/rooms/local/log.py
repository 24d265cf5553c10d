"""The logs of rooms, in the store of a machine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ..backplane import Log
from ..positions import Position, new_epoch
from ..record import BadRecord, KeptRecord, kept
from ..retention import KEY_TIME, OVERHEAD, life, trim
from .store import Store

if TYPE_CHECKING:
    from sqlite3 import Connection

TABLES = (
    # `top` is the offset of the last message, and `used` when that came. A log is known by its id,
    # which no other one ever has.
    """CREATE TABLE IF NOT EXISTS log (
        id INTEGER PRIMARY KEY AUTOINCREMENT, channel TEXT NOT NULL UNIQUE, epoch TEXT NOT NULL,
        top INTEGER NOT NULL, bytes INTEGER NOT NULL, seconds REAL NOT NULL, used REAL NOT NULL,
        expires REAL NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS log_used ON log (used)",
    "CREATE INDEX IF NOT EXISTS log_expires ON log (expires)",
    """CREATE TABLE IF NOT EXISTS entry (
        log INTEGER, position INTEGER, time REAL NOT NULL, body BLOB NOT NULL,
        PRIMARY KEY (log, position)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS idempotence (
        log INTEGER, key TEXT, position INTEGER NOT NULL, time REAL NOT NULL,
        PRIMARY KEY (log, key)) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS idempotence_time ON idempotence (time)",
    # Logs whose entries are still to be deleted: not all in one go, which would take too long.
    "CREATE TABLE IF NOT EXISTS garbage (log INTEGER PRIMARY KEY)",
    "CREATE TABLE IF NOT EXISTS size (bytes INTEGER NOT NULL)",
    "INSERT INTO size SELECT 0 WHERE NOT EXISTS (SELECT * FROM size)",
)

#: Entries that are deleted in one go, and logs: more of them have to wait for the next message.
_SLICE = 500
#: Bytes that a log costs besides its messages: whoever may choose a room's name can have one made.
_LOG_OVERHEAD = 500


class _Row(NamedTuple):
    """What the table has of a log."""

    id: int
    epoch: str
    top: int
    bytes: int
    seconds: float
    used: float
    expires: float


_COLUMNS = ", ".join(_Row._fields)


class Logs:
    """The logs of all rooms of an app.

    :param limit: bytes of all of them: above it go those that were not used for longest.
    """

    def __init__(self, store: Store, limit: int) -> None:
        self._store = store
        self._limit = limit

    async def append(self, records: Sequence[KeptRecord]) -> list[KeptRecord | Position]:
        """Append records, all of them or none.

        :return: each as it is in its log now; or the position of an earlier one with its key.
        :raises BackplaneUnavailable: when that is impossible, or took too long.
        """
        return await self._store.write(partial(_append, records, self._limit))

    async def read(self, channel: str, after: int, limit: int, max_size: int) -> Log:
        """Read a log; see :meth:`.Backplane.read`."""
        return await self._store.read(partial(_read, channel, after, limit, max_size))

    async def touch(self, channel: str, seconds: float) -> Position:
        """Return the last position of a log; see :meth:`.Backplane.touch`."""
        row = await self._store.read(partial(_find, channel))
        if row is None or row.seconds != seconds or row.expires < _now() + 0.9 * life(seconds):
            row = await self._store.write(partial(_renew, channel, seconds, self._limit))
        return Position(row.epoch, row.top)

    async def forget(self, channel: str) -> Position:
        """Begin a log anew; return its position."""
        return await self._store.write(partial(_forget, channel))


def _now() -> float:
    """Return the time to the millisecond, since a record has no more of it."""
    return round(time.time(), 3)


def _find(channel: str, connection: Connection) -> _Row | None:
    found = connection.execute(
        f"SELECT {_COLUMNS} FROM log WHERE channel = ? AND expires > ?", (channel, _now())
    ).fetchone()
    return None if found is None else _Row(*found)


def _find_or_make(channel: str, seconds: float, connection: Connection) -> _Row:
    row = _find(channel, connection)
    if row is not None:
        return row
    now = _now()
    over = connection.execute(
        "SELECT id, bytes FROM log WHERE channel = ? UNION SELECT * FROM "
        "(SELECT id, bytes FROM log WHERE expires <= ? ORDER BY expires LIMIT ?)",
        (channel, now, _SLICE),
    )
    _delete(over.fetchall(), connection)
    connection.execute(
        "INSERT INTO log VALUES (NULL, ?, ?, 0, ?, ?, ?, ?)",
        (channel, new_epoch(), _LOG_OVERHEAD, seconds, now, now + life(seconds)),
    )
    connection.execute("UPDATE size SET bytes = bytes + ?", (_LOG_OVERHEAD,))
    made = _find(channel, connection)
    assert made is not None
    return made


def _append(
    records: Sequence[KeptRecord], limit: int, connection: Connection
) -> list[KeptRecord | Position]:
    numbers: dict[str, list[int]] = {}
    for number, record in enumerate(records):
        numbers.setdefault(record.channels[0], []).append(number)
    results: list[KeptRecord | Position] = list(records)
    for channel, own in numbers.items():
        appended = _append_to(channel, [records[number] for number in own], connection)
        for number, result in zip(own, appended, strict=True):
            results[number] = result
    _make_room(limit, connection)
    _collect_garbage(connection)
    return results


def _append_to(
    channel: str, records: Sequence[KeptRecord], connection: Connection
) -> Iterator[KeptRecord | Position]:
    """Append records to one log; yield what becomes of each."""
    history = records[-1].history
    row = _find_or_make(channel, history.seconds, connection)
    # A clock that is put back must not make holes in what is kept by time.
    now = max(_now(), row.used)
    top, added = row.top, 0
    for record in records:
        if record.key and (offset := _known(row.id, record.key, top + 1, now, connection)):
            yield Position(row.epoch, offset)
            continue
        top += 1
        body = record.body()
        connection.execute("INSERT INTO entry VALUES (?, ?, ?, ?)", (row.id, top, now, body))
        added += len(body) + OVERHEAD
        yield replace(record, position=Position(row.epoch, top), time=now)
    last, freed = trim(_oldest(row.id, connection), top, row.bytes + added, history, now)
    if last:
        connection.execute("DELETE FROM entry WHERE log = ? AND position <= ?", (row.id, last))
    _save(row, top, added - freed, history.seconds, now, connection)


def _known(log: int, key: str, offset: int, now: float, connection: Connection) -> int | None:
    """Return the offset of an earlier message with a key; or remember that of this one."""
    connection.execute("DELETE FROM idempotence WHERE time <= ?", (now - KEY_TIME,))
    inserted = connection.execute(
        "INSERT INTO idempotence VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (log, key, offset, now),
    )
    if inserted.rowcount:
        return None
    query = "SELECT position FROM idempotence WHERE log = ? AND key = ?"
    return int(connection.execute(query, (log, key)).fetchone()[0])


def _oldest(log: int, connection: Connection) -> Iterator[tuple[int, float, int]]:
    return connection.execute(
        "SELECT position, time, length(body) FROM entry WHERE log = ? ORDER BY position LIMIT ?",
        (log, _SLICE),
    )


def _save(
    row: _Row, top: int, added: int, seconds: float, now: float, connection: Connection
) -> None:
    """Write down how long a log is now."""
    connection.execute(
        "UPDATE log SET top = ?, bytes = bytes + ?, seconds = ?, used = ?, expires = ? "
        "WHERE id = ?",
        (top, added, seconds, now, now + life(seconds), row.id),
    )
    connection.execute("UPDATE size SET bytes = bytes + ?", (added,))


def _make_room(limit: int, connection: Connection) -> None:
    """Delete the logs that were not used for longest, until all are within the limit."""
    too_much = connection.execute("SELECT bytes FROM size").fetchone()[0] - limit
    if too_much <= 0:
        return
    oldest: list[tuple[int, int]] = []
    query = "SELECT id, bytes FROM log ORDER BY used LIMIT ?"
    for id, freed in connection.execute(query, (_SLICE,)).fetchall():
        if too_much > 0:
            oldest.append((id, freed))
            too_much -= freed
    _delete(oldest, connection)


def _delete(logs: Sequence[tuple[int, int]], connection: Connection) -> None:
    """Delete logs, of which the ids and the bytes are given."""
    ids = [(id,) for id, _ in logs]
    connection.executemany(
        "INSERT INTO garbage SELECT ?1 WHERE EXISTS (SELECT * FROM entry WHERE log = ?1)", ids
    )
    connection.executemany("DELETE FROM log WHERE id = ?", ids)
    freed = sum(bytes for _, bytes in logs)
    connection.execute("UPDATE size SET bytes = bytes - ?", (freed,))


def _collect_garbage(connection: Connection) -> None:
    found = connection.execute("SELECT log FROM garbage LIMIT 1").fetchone()
    if found is None:
        return
    deleted = connection.execute(
        "DELETE FROM entry WHERE log = :log AND position < :slice + "
        "(SELECT min(position) FROM entry WHERE log = :log)",
        {"log": found[0], "slice": _SLICE},
    )
    if not deleted.rowcount:
        connection.execute("DELETE FROM garbage WHERE log = ?", found)


def _read(channel: str, after: int, limit: int, max_size: int, connection: Connection) -> Log:
    row = _find(channel, connection)
    if row is None:
        return Log("", 0)
    found = connection.execute(
        "SELECT position, time, body FROM entry WHERE log = ? AND position > ? AND time > ? "
        "ORDER BY position LIMIT ?",
        (row.id, after, _now() - row.seconds, limit),
    )
    entries: list[KeptRecord] = []
    size = 0
    for offset, when, body in found:
        try:
            record = kept(body, Position(row.epoch, offset), when)
        except BadRecord:  # of another release: a hole, and what is before it counts as trimmed
            entries.clear()
            continue
        size += len(record.data)
        if entries and size > max_size:
            break
        entries.append(record)
    return Log(row.epoch, row.top, tuple(entries))


def _renew(channel: str, seconds: float, limit: int, connection: Connection) -> _Row:
    _make_room(limit, connection)
    row = _find_or_make(channel, seconds, connection)
    connection.execute(
        "UPDATE log SET seconds = ?, expires = ? WHERE id = ?",
        (seconds, _now() + life(seconds), row.id),
    )
    return row


def _forget(channel: str, connection: Connection) -> Position:
    row = _find(channel, connection)
    if row is not None:
        _delete([(row.id, row.bytes)], connection)
    row = _find_or_make(channel, row.seconds if row else 0.0, connection)
    return Position(row.epoch, row.top)
