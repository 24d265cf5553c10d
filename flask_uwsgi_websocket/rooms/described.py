"""Publishing for an app that runs elsewhere: its backplane tells which of its rooms are kept."""

from __future__ import annotations

import time
from _thread import RLock
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TypeVar

from ..exceptions import BackplaneUnavailable, RoomError
from ..helpers.log import RateLimit, logger
from .dividing import divide
from .exchange import Exchange
from .futures import all_done, settle, uncancellable
from .options import RoomPatterns
from .positions import Position
from .record import Record

T = TypeVar("T")

#: Seconds after which the options of rooms are asked for again: an app may be started anew.
_FRESH = 2.0


class Described:
    """An exchange whose rooms have the options that the app has described.

    From any thread. What is sent before these are known waits for them, in order.
    """

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        exchange.also_sends(lambda: bool(self._waiting))
        self._patterns: RoomPatterns | None = None
        self._fresh_until = 0.0
        self._is_asking = False
        self._waiting: list[tuple[Record, Future[Position | None] | None]] = []
        self._lock = RLock()
        self._warning = RateLimit()

    def send(self, record: Record) -> Future[Position | None]:
        """Publish a record; see :meth:`.Exchange.send`."""
        sent: Future[Position | None] = uncancellable()
        self._put(record, sent)
        return sent

    def send_nowait(self, record: Record) -> None:
        """Publish a record without waiting; see :meth:`.Exchange.send_nowait`."""
        self._put(record, None)

    async def patterns(self) -> RoomPatterns:
        """Return the options of rooms; ask for them, where they are not fresh."""
        if self._patterns is None or time.monotonic() > self._fresh_until:
            await self._ask()
        return self._patterns or RoomPatterns()

    async def ask(self, ask: Callable[[Exchange, RoomPatterns, str], Awaitable[T]], room: str) -> T:
        """Ask for something of one of the app's rooms."""
        return await ask(self.exchange, await self.patterns(), room)

    def _put(self, record: Record, sent: Future[Position | None] | None) -> None:
        with self._lock:
            if self._patterns is None or time.monotonic() > self._fresh_until:
                if not self._is_asking:
                    self._is_asking = True
                    self.exchange.run_soon(self._ask_and_send)
                self._waiting.append((record, sent))
            elif self._is_asking:  # behind those that wait
                self._waiting.append((record, sent))
            else:
                self._send(record, sent, self._patterns)

    def _send(
        self, record: Record, sent: Future[Position | None] | None, patterns: RoomPatterns
    ) -> None:
        try:
            records = divide(record, patterns)
        except ValueError as error:
            if sent is None:
                logger.warning("a message to rooms was not sent: %s", error)
            else:
                sent.set_exception(error)
            return
        if sent is None:
            for each in records:
                self.exchange.send_nowait(each)
        else:
            all_done([self.exchange.send(each) for each in records], sent)

    async def _ask_and_send(self) -> None:
        error: BaseException | None = RuntimeError("it was interrupted")
        try:
            await self._ask()
            error = None
        except Exception as failure:
            error = failure
        finally:
            self._send_waiting(error)

    def _send_waiting(self, error: BaseException | None) -> None:
        """Send what has waited for the options of rooms; or tell why they are not known."""
        with self._lock:
            self._is_asking = False
            waiting, self._waiting = self._waiting, []
            for record, sent in waiting:
                if self._patterns is not None:
                    self._send(record, sent, self._patterns)
                elif sent is not None:
                    settle(sent, error)
                elif self._warning.passes():
                    logger.warning("a message to rooms was not sent: %s", error)

    async def _ask(self) -> None:
        try:
            text = await self.exchange.call("history", lambda backplane: backplane.description())
        except BackplaneUnavailable:
            raise
        except RoomError:  # one without history
            text = None
        self._patterns = None  # what was told before counts no more, though this may be unreadable
        self._patterns = RoomPatterns() if text is None else RoomPatterns.described(text)
        self._fresh_until = time.monotonic() + _FRESH
