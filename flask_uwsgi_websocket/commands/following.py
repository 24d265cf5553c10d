"""Follow a kept room from a position on: what it has kept first, then what comes, each once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from ..exceptions import RoomError
from ..rooms.backplane import Backplane, Log
from ..rooms.exchange import Exchange
from ..rooms.positions import Position
from ..rooms.reader import Passed, Reader, Resync
from ..rooms.record import KeptRecord, Record

#: Messages, and bytes of them, that are read in one go.
_COUNT, _SIZE = 500, 1 << 20
#: Seconds before the next attempt to read.
_PAUSE = 0.5

_MISSING = "(messages are missing: the room does not keep them any more)"


class Following:
    """Follows a room; all on the backplane's loop but :meth:`begin`.

    :param show: is called with each record, and with a line where some are missing.
    """

    def __init__(self, channel: str, since: Position, show: Callable[[Record | str], None]) -> None:
        self._channel = channel
        self._reader = Reader(since)
        self._show = show
        self._exchange: Exchange | None = None
        self._is_reading = False

    def begin(self, exchange: Exchange) -> None:
        """Read what is kept, by an exchange that is subscribed to the room."""
        self._exchange = exchange
        self._reader.doubt()
        exchange.run_soon(self._read_on)

    def receive(self, record: Record) -> None:
        """Take a record."""
        if not isinstance(record, KeptRecord):
            self._show(record)
            return
        self._pass(self._reader.hear(record))
        if self._reader.is_behind and self._exchange is not None:
            self._exchange.run_soon(self._read_on)

    def _pass(self, passed: Iterable[Passed]) -> None:
        for each in passed:
            self._show(_MISSING if isinstance(each, Resync) else each)

    async def _read_on(self) -> None:
        if self._is_reading:
            return
        self._is_reading = True
        while self._reader.is_behind:
            asked = self._reader.start_reading()
            try:
                log = await self._read(asked.offset)
            except RoomError:
                log = None
            if log is not None and log.epoch:
                self._pass(self._reader.take(log, asked))
            else:
                self._reader.doubt()
                await asyncio.sleep(_PAUSE)
        self._is_reading = False

    async def _read(self, after: int) -> Log:
        async def read(backplane: Backplane) -> Log:
            return await backplane.read(self._channel, after, _COUNT, _SIZE)

        assert self._exchange is not None
        return await self._exchange.call("history", read)
