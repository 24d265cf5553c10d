"""What the workers of one machine keep in their directory: opened when there is use for it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from ...exceptions import BackplaneUnavailable
from ..backplane import Backplane, BackplaneOptions, Log
from ..positions import Position
from ..presence.members import Left, Occupant
from ..record import KeptRecord
from . import log, residents
from .directory import STORE, Directory, explained
from .log import Logs
from .residents import Residents
from .store import Store

#: Of the description of rooms, which whoever publishes from outside reads without a database.
_DESCRIPTION = f"{STORE}.json"


class Keeping(Backplane):
    """The half of the local backplane that keeps something; the other one carries records."""

    def __init__(self, url: str, options: BackplaneOptions) -> None:
        super().__init__(url, options)
        self._store: Store | None = None
        self._logs: Logs | None = None
        self._residents: Residents | None = None
        #: What this worker has entered, which another store may have to be told.
        self._own: dict[tuple[str, str], Occupant] = {}
        self._description: str | None = None

    def _open(self) -> Directory:
        """Return the directory; BackplaneUnavailable where there can be none."""
        raise NotImplementedError

    def _name_of_worker(self) -> str | None:
        """Return the name of the mark of this worker, if others see it."""
        raise NotImplementedError

    @property
    def log_bytes(self) -> int:
        """Bytes of the store, of which all workers of the instance have the same one."""
        return self._store.size if self._store is not None else 0

    def _opened_store(self) -> Store:
        """Return the store in the directory that is ours now."""
        directory = self._open()
        if self._store is None:
            tables = (*log.TABLES, *residents.TABLES)
            self._store = Store(directory, tables, self.options.timeout)
        return self._store

    def _opened_logs(self) -> Logs:
        store = self._opened_store()
        if self._logs is None:
            self._logs = Logs(store, self.options.store_size)
        return self._logs

    def _opened_residents(self) -> Residents:
        store = self._opened_store()
        if self._residents is None:
            self._residents = Residents(store, self._own)
        return self._residents

    def _close_store(self) -> None:
        """Close it, before its directory."""
        if self._store is not None:
            self._store.close()
        self._store = self._logs = self._residents = None

    def leave_store_to_parent(self) -> None:
        """Give it up in a child."""
        if self._store is not None:
            self._store.leave_to_parent()
        self._store = self._logs = self._residents = None
        self._own = {}

    async def _append(
        self, records: Sequence[KeptRecord]
    ) -> list[KeptRecord | Position | BaseException]:
        """Append records; return each as it is in its log, where an earlier one is, or why not."""
        refused = [self._too_large(record.body()) for record in records]
        taken = [each for each, error in zip(records, refused, strict=True) if error is None]
        try:
            appended: Iterator[Any] = iter(await self._opened_logs().append(taken))
        except BackplaneUnavailable as error:
            appended = iter([BackplaneUnavailable(str(error)) for _ in taken])
        return [next(appended) if error is None else error for error in refused]

    def _too_large(self, data: bytes) -> ValueError | None:
        if len(data) <= self.options.max_size:
            return None
        return ValueError(f"a record of {len(data)} bytes; the limit is {self.options.max_size}")

    async def read(self, channel: str, after: int, limit: int, max_size: int) -> Log:
        """Read a log, in some 20 microseconds and 5 for each message."""
        return await self._opened_logs().read(channel, after, limit, max_size)

    async def touch(self, channel: str, seconds: float) -> Position:
        """Return the end of a log; write only where that is due."""
        return await self._opened_logs().touch(channel, seconds)

    async def enter(self, occupants: Sequence[Occupant]) -> Sequence[bool | None]:
        """Write them, in some 30 microseconds each."""
        worker = self._name_of_worker()
        if worker is None:
            raise BackplaneUnavailable("this worker is not known to others yet")
        return await self._opened_residents().enter(occupants, worker)

    async def leave(self, leaving: Sequence[tuple[str, str]]) -> None:
        """Write that, too."""
        await self._opened_residents().leave(leaving)

    async def occupants(self, channel: str) -> tuple[Sequence[Occupant], bool]:
        """Read them; without the store these are our own."""
        try:
            return await self._opened_residents().occupants(channel), True
        except BackplaneUnavailable:
            return [each for each in self._own.values() if each.channel == channel], False

    async def sweep(self) -> Sequence[Left]:
        """Look who lives, by the marks of workers."""
        worker = self._name_of_worker()
        return await self._opened_residents().sweep(worker, self._open().has_owner)

    async def describe(self, text: str) -> None:
        """Write it into a file."""
        self._description = text
        self._write_description(self._open())

    def _write_description(self, directory: Directory) -> None:
        """Do so again in a new directory."""
        if self._description is None:
            return
        hidden = f"{_DESCRIPTION}.{os.getpid()}"
        with explained(directory.path):
            with os.fdopen(
                directory.open(hidden, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), "w"
            ) as file:
                file.write(self._description)
            directory.rename(hidden, _DESCRIPTION)

    async def description(self) -> str | None:
        """Read the file."""
        try:
            with os.fdopen(self._open().open(_DESCRIPTION, os.O_RDONLY)) as file:
                return file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BackplaneUnavailable(f"what rooms there are cannot be read: {error}") from None
