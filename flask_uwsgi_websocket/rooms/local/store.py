"""One SQLite file for what the workers of an app keep: logs of rooms, and who is in them.

It is in their directory, which is in memory where the system has such. Nobody waits inside of
SQLite, which would block a loop: who writes has a lock on a file beside it, and who does not get
that tries again on the loop. A process that dies in the midst of writing leaves neither a lock nor
a part of what it wrote.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from ...exceptions import BackplaneUnavailable
from ...helpers.log import RateLimit, logger
from .directory import REMEDY, STORE, Directory, lock_file

if TYPE_CHECKING:
    import sqlite3

T = TypeVar("T")
#: Reads or writes, without waiting.
Work = Callable[["sqlite3.Connection"], T]

#: Of what the tables are, and mean. Whoever changes them counts it up.
VERSION = 1
#: RETURNING came with it.
OLDEST_SQLITE = (3, 35)
#: Seconds between two attempts: others write for some 50 microseconds at a time.
_PAUSES = (0.0, 0.0, 0.0005, 0.001, 0.002)
#: Bytes of the log of changes that SQLite may keep after it has taken them over.
_LOG_SIZE = 4 << 20


class _Busy(Exception):
    """Somebody else writes, or opens it."""


class _OfEarlierRelease(Exception):
    """The tables are not what they are now."""


class Store:
    """The store of one process, opened at the first use, and anew where the file has gone.

    All on the loop of the backplane.

    :param tables: the statements that make what is in it, where that is not there yet.
    :param timeout: seconds for which others are waited for.
    """

    def __init__(self, directory: Directory, tables: Sequence[str], timeout: float) -> None:
        self._directory = directory
        self._tables = tables
        self._timeout = timeout
        self._sqlite: Any = _load_sqlite()
        self._connection: sqlite3.Connection | None = None
        self._files: tuple[object, ...] = ()  # what tells that those that are open are in place
        self._lock: int = -1
        self._warning = RateLimit()
        #: For people.
        self.path = os.path.join(directory.path, STORE)

    async def write(self, work: Work[T]) -> T:
        """Do something in one transaction, which others see as a whole or not at all.

        :raises BackplaneUnavailable: when that cannot be within the timeout.
        """
        return await self._retried(self._write, work)

    async def read(self, work: Work[T]) -> T:
        """Read, in one transaction; raises as :meth:`write`."""
        return await self._retried(self._read, work)

    async def _retried(self, attempt: Callable[[Work[T]], T], work: Work[T]) -> T:
        deadline, attempts = None, 0
        loop = asyncio.get_running_loop()
        while True:
            try:
                return self._explained(attempt, work)
            except _Busy:
                deadline = deadline or loop.time() + self._timeout
                if loop.time() > deadline:
                    raise BackplaneUnavailable(
                        f"{self.path}: another process has had the lock on it for "
                        f"{self._timeout:g} s: is one stopped, as by a debugger?"
                    ) from None
            await asyncio.sleep(_PAUSES[min(attempts, len(_PAUSES) - 1)])
            attempts += 1

    def _explained(self, attempt: Callable[[Work[T]], T], work: Work[T]) -> T:
        """Make an attempt; say what is wrong as a backplane does."""
        try:
            return attempt(work)
        except self._sqlite.OperationalError as error:
            if "locked" in str(error):
                raise _Busy from None
            self.close()
            raise BackplaneUnavailable(
                f"{self.path} cannot be used: {error}; {_help(error)}"
            ) from None
        except BackplaneUnavailable:
            self.close()
            raise
        except OSError as error:
            self.close()
            reason = error.strerror or error
            raise BackplaneUnavailable(f"{self.path} cannot be used: {reason}; {REMEDY}") from None
        except self._sqlite.DatabaseError as error:
            if isinstance(error, self._sqlite.IntegrityError):
                raise
            self._discard(error)
            raise _Busy from None

    def _write(self, work: Work[T]) -> T:
        with self._locked():
            connection = self._opened()
            return self._transaction(connection, "BEGIN IMMEDIATE", work)

    def _read(self, work: Work[T]) -> T:
        if self._connection is None or not self._is_in_place():
            with self._locked():
                self._opened()
        assert self._connection is not None
        return self._transaction(self._connection, "BEGIN", work)

    def _transaction(self, connection: sqlite3.Connection, begin: str, work: Work[T]) -> T:
        connection.execute(begin)
        try:
            result = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            with suppress(self._sqlite.Error):  # it may have done so itself, as for a full disk
                connection.execute("ROLLBACK")
            raise
        return result

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if self._lock < 0:
            self._lock = self._directory.open(f"{STORE}.lock")
        if not lock_file(self._lock):
            raise _Busy
        try:
            yield
        finally:
            lock_file(self._lock, unlock=True)

    def _opened(self) -> sqlite3.Connection:
        """Return the connection; open it, under the lock, where it is none to the file in place."""
        if self._connection is not None:
            found = self._files_in_place()
            if found == self._files:
                return self._connection
            self.close(keep_lock=True)
            if found[0] == self._files[0]:  # only its log of changes was removed: it is broken
                self._remove()
        connection: sqlite3.Connection = self._sqlite.connect(
            self._directory.address(STORE), timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare(connection)
        except _OfEarlierRelease:
            connection.close()
            logger.warning("what rooms have kept is lost: %s is an earlier release's", self.path)
            self._remove()
            return self._opened()
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._files = self._files_in_place()
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        # What a crash of the machine would lose is in memory, and gone after it, anyway.
        for pragma in ("journal_mode=WAL", "synchronous=OFF", f"journal_size_limit={_LOG_SIZE}"):
            connection.execute(f"PRAGMA {pragma}").fetchall()

        self._transaction(connection, "BEGIN IMMEDIATE", self._make_tables)

    def _make_tables(self, connection: sqlite3.Connection) -> None:
        """Make them, in a file that is new.

        While workers are replaced by those of another release, both find what the other one made:
        so the later one begins anew, and the earlier one does without.
        """
        [version] = connection.execute("PRAGMA user_version").fetchone()
        [tables] = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version > VERSION:
            raise BackplaneUnavailable(
                f"{self.path} is a later release's: restart the workers of this one"
            )
        if version < VERSION and tables:
            raise _OfEarlierRelease
        for statement in self._tables:
            connection.execute(statement)
        if version < VERSION:
            connection.execute(f"PRAGMA user_version = {VERSION}")

    @property
    def size(self) -> int:
        """Bytes of its files, with what SQLite has yet to take over; from any thread."""
        return sum(self._directory.size(STORE + end) for end in ("", "-wal"))

    def _files_in_place(self) -> tuple[object, ...]:
        return self._directory.identity(STORE), self._directory.identity(f"{STORE}-wal")

    def _is_in_place(self) -> bool:
        """Return whether others would open the same files."""
        return self._files == self._files_in_place()

    def _discard(self, error: Exception) -> None:
        """Remove what is no database, or a broken one, so that another one can be made."""
        if self._warning.passes():
            logger.warning("what rooms have kept is lost: %s is broken: %s", self.path, error)
        self.close()
        with self._locked():
            self._remove()

    def _remove(self) -> None:
        for end in ("", "-wal", "-shm"):
            self._directory.unlink(STORE + end)

    def close(self, keep_lock: bool = False) -> None:
        """Close it; the next use opens it anew."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(self._sqlite.Error):
                connection.close()
        if self._lock >= 0 and not keep_lock:
            os.close(self._lock)
            self._lock = -1

    def leave_to_parent(self) -> None:
        """Forget it in a child: to close it there might remove what the parent needs."""
        if self._connection is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))
            self._connection = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _load_sqlite() -> Any:
    """Load what plain rooms do without."""
    remedy = "rooms with history or presence need it, or UWSGI_WEBSOCKET_BACKPLANE = 'redis://...'"
    try:
        sqlite = import_module("sqlite3")
    except ImportError as error:
        raise BackplaneUnavailable(f"this Python has no sqlite3 ({error}): {remedy}") from None
    if sqlite.sqlite_version_info < OLDEST_SQLITE:
        needed = ".".join(map(str, OLDEST_SQLITE))
        raise BackplaneUnavailable(
            f"SQLite here is {sqlite.sqlite_version}, older than {needed}: {remedy}"
        )
    return sqlite


def _help(error: Exception) -> str:
    if "full" in str(error):
        return "make room there, or set UWSGI_WEBSOCKET_ROOMS_STORE to fewer bytes"
    return REMEDY
