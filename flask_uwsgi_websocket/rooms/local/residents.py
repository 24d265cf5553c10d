"""Who is in the rooms of an app, in the store of a machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ..presence.members import Left, Occupant
from .store import Store

if TYPE_CHECKING:
    from sqlite3 import Connection

TABLES = (
    # `ends` is when the grace of a user ends who has no connection there, by the clock that all
    # processes of a machine share until it starts anew.
    """CREATE TABLE IF NOT EXISTS resident (
        channel TEXT, user TEXT, info TEXT NOT NULL, since REAL NOT NULL, grace REAL NOT NULL,
        ends REAL, PRIMARY KEY (channel, user)) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS resident_ends ON resident (ends) WHERE ends IS NOT NULL",
    """CREATE TABLE IF NOT EXISTS occupant (
        channel TEXT, connection TEXT, user TEXT NOT NULL, worker TEXT NOT NULL,
        PRIMARY KEY (channel, connection)) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS occupant_user ON occupant (channel, user)",
    "CREATE INDEX IF NOT EXISTS occupant_worker ON occupant (worker)",
)

#: How many are written in one transaction: others wait for it, as does the loop.
SLICE = 500

#: Those whose grace is over. After a start of the machine the clock has begun anew.
_OVER = "(ends <= :now OR ends > :now + grace + 1)"


class Residents:
    """Does what a backplane with presence promises.

    :param own: what this worker has entered, by channel and connection: it lasts as long as the
        worker, whatever becomes of the store.
    """

    def __init__(self, store: Store, own: dict[tuple[str, str], Occupant]) -> None:
        self._store = store
        self._own = own

    async def enter(self, occupants: Sequence[Occupant], worker: str) -> list[bool | None]:
        """Do :meth:`.Backplane.enter`.

        :param worker: the name by which others find out whether this one lives.
        """
        results = await self._store.write(partial(_enter, occupants, worker))
        for occupant, is_new in zip(occupants, results, strict=True):
            if is_new is not None:
                self._own[occupant.channel, occupant.connection] = occupant
        return results

    async def leave(self, leaving: Sequence[tuple[str, str]]) -> None:
        """Do :meth:`.Backplane.leave`."""
        for key in leaving:
            self._own.pop(key, None)
        await self._store.write(partial(_leave, leaving))

    async def occupants(self, channel: str) -> list[Occupant]:
        """Do :meth:`.Backplane.occupants`."""
        return await self._store.read(partial(_occupants, channel))

    async def sweep(self, worker: str | None, lives: Callable[[str], bool]) -> list[Left]:
        """Do :meth:`.Backplane.sweep`.

        :param worker: see :meth:`enter`; None for one that is not known to others.
        :param lives: tells whether another worker lives.
        """
        numbers = await self._store.read(_count_by_worker)
        if worker is not None and numbers.get(worker, 0) != len(self._own):
            await self._restore(worker)
        for name in numbers:
            if name != worker and not lives(name):
                while await self._store.write(partial(_remove_worker, name)) == SLICE:
                    await asyncio.sleep(0)  # others have their turn
        if await self._store.read(_is_anybody_over):
            # One slice alone: what is removed must be returned, whatever becomes of the next one.
            return await self._store.write(_remove_those_over)
        return []

    async def _restore(self, worker: str) -> None:
        """Enter our own again, where they were taken for a dead worker's, or are in a lost file."""
        keys = list(self._own)
        for first in range(0, len(keys), SLICE):
            some = keys[first : first + SLICE]
            await self._store.write(partial(_restore, some, self._own, worker))
            await asyncio.sleep(0)


def _enter(occupants: Iterable[Occupant], worker: str, connection: Connection) -> list[bool | None]:
    return [_enter_one(each, worker, connection) for each in occupants]


def _restore(
    keys: Iterable[tuple[str, str]],
    own: Mapping[tuple[str, str], Occupant],
    worker: str,
    connection: Connection,
) -> None:
    """Enter those again that have not left by now, when it is our turn to write."""
    _enter([replace(own[key], limit=0) for key in keys if key in own], worker, connection)


def _enter_one(occupant: Occupant, worker: str, connection: Connection) -> bool | None:
    channel, user = occupant.channel, occupant.user
    is_new = not connection.execute(
        "SELECT 1 FROM resident WHERE channel = ? AND user = ?", (channel, user)
    ).fetchall()
    if is_new and occupant.limit and _number(channel, connection) >= occupant.limit:
        return None
    connection.execute(
        "INSERT INTO resident VALUES (?, ?, ?, ?, ?, NULL) ON CONFLICT (channel, user) "
        "DO UPDATE SET info = excluded.info, grace = excluded.grace, ends = NULL",
        (channel, user, occupant.info, occupant.since, occupant.grace),
    )
    connection.execute(
        "INSERT OR REPLACE INTO occupant VALUES (?, ?, ?, ?)",
        (channel, occupant.connection, user, worker),
    )
    return is_new


def _number(channel: str, connection: Connection) -> int:
    [(number,)] = connection.execute("SELECT COUNT(*) FROM resident WHERE channel = ?", (channel,))
    return int(number)


def _leave(leaving: Iterable[tuple[str, str]], connection: Connection) -> None:
    for key in leaving:
        gone = connection.execute(
            "DELETE FROM occupant WHERE channel = ? AND connection = ? RETURNING channel, user", key
        ).fetchall()
        _begin_grace(gone, connection)


def _begin_grace(gone: Iterable[tuple[str, str]], connection: Connection) -> None:
    """Have the grace begin of those who have no connection left in a room."""
    now = time.monotonic()
    for channel, user in gone:
        connection.execute(
            "UPDATE resident SET ends = ?1 + grace WHERE channel = ?2 AND user = ?3 AND ends IS "
            "NULL AND NOT EXISTS (SELECT 1 FROM occupant WHERE channel = ?2 AND user = ?3)",
            (now, channel, user),
        )


def _remove_worker(worker: str, connection: Connection) -> int:
    """Remove a part of what a dead worker has entered; return how many."""
    gone = connection.execute(
        "DELETE FROM occupant WHERE (channel, connection) IN (SELECT channel, connection "
        "FROM occupant WHERE worker = ? LIMIT ?) RETURNING channel, user",
        (worker, SLICE),
    ).fetchall()
    _begin_grace(gone, connection)
    return len(gone)


def _count_by_worker(connection: Connection) -> dict[str, int]:
    return dict(
        connection.execute("SELECT worker, COUNT(*) FROM occupant GROUP BY worker").fetchall()
    )


def _is_anybody_over(connection: Connection) -> bool:
    found = connection.execute(
        f"SELECT 1 FROM resident WHERE ends IS NOT NULL AND {_OVER} LIMIT 1",
        {"now": time.monotonic()},
    )
    return bool(found.fetchall())


def _remove_those_over(connection: Connection) -> list[Left]:
    """Remove those who left first, and of them as many as go in one transaction."""
    gone = connection.execute(
        "DELETE FROM resident WHERE (channel, user) IN (SELECT channel, user FROM resident "
        f"WHERE ends IS NOT NULL AND {_OVER} ORDER BY ends LIMIT :slice) "
        "RETURNING ends, channel, user, info, since",
        {"now": time.monotonic(), "slice": SLICE},
    ).fetchall()
    left: list[Left] = []
    emptied: set[str] = set()
    for _, channel, user, info, since in sorted(gone, reverse=True):  # the last one first
        is_empty = channel not in emptied and not _number(channel, connection)
        emptied.add(channel)
        left.append(Left(channel, user, info, since, is_empty))
    return left[::-1]


def _occupants(channel: str, connection: Connection) -> list[Occupant]:
    found = connection.execute(
        "SELECT resident.channel, COALESCE(connection, ''), resident.user, info, since, grace "
        "FROM resident LEFT JOIN occupant USING (channel, user) WHERE resident.channel = ?",
        (channel,),
    )
    return [Occupant(*row) for row in found.fetchall()]
