"""The channels that a worker is subscribed to, each for as long as somebody wants it."""

from __future__ import annotations

import time
from _thread import RLock
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any

from .futures import settle, uncancellable

#: Seconds for which a channel that nobody wants is kept: a page that is loaded anew needs it again.
KEEP_TIME = 1.0

_Change = Callable[[Collection[str]], Awaitable[None]]
#: Has the loop run a coroutine function after some seconds; from any thread.
_Start = Callable[[Callable[[], Coroutine[Any, Any, None]], float], None]


class _Channel:
    """A channel that is wanted, or was until a moment ago."""

    __slots__ = ("count", "expires", "subscribing")

    def __init__(self) -> None:
        #: By how many it is wanted.
        self.count = 0
        #: When it may be unsubscribed from, while nobody wants it.
        self.expires = 0.0
        #: Told when the subscription is in force; None once it is.
        self.subscribing: Future[None] | None = None


class Subscriptions:
    """Counts who wants which channel, and subscribes for the first and unsubscribes after the last.

    One change after the other, on the loop, so that they cannot pass each other.

    :param subscribe: see :meth:`.Backplane.subscribe`; so for ``unsubscribe``.
    :param start: see :data:`_Start`.
    """

    def __init__(self, subscribe: _Change, unsubscribe: _Change, start: _Start) -> None:
        self._subscribe, self._unsubscribe = subscribe, unsubscribe
        self._start = start
        #: The latest that :meth:`add` has returned: done when all before it are.
        self.newest: Future[None] | None = None
        self._lock = RLock()
        self._channels: dict[str, _Channel] = {}
        self._wanted: list[str] = []
        self._expiring: deque[tuple[float, str]] = deque()
        self._will_change = self._will_look = False  # what has been asked of the loop
        self._is_changing = False  # on the loop

    def __len__(self) -> int:
        return len(self._channels)

    def add(self, channel: str, again: bool = False) -> Future[None] | None:
        """Want a channel; from any thread.

        :param again: whether to subscribe anew, since it may not be in force any more.
        :return: what is told when it is in force, or why it is not; None when it is already.
        """
        is_wanted = False
        try:
            with self._lock:
                waiting = self._want(channel, again)
                if waiting is None:
                    return None
                is_wanted = True
                starts, self._will_change = not self._will_change, True
            if starts:
                self._start(self._change_all, 0.0)
        except BaseException:  # a thread that is interrupted: whoever comes next starts it
            self._will_change = False
            if is_wanted:
                self.remove(channel)
            raise
        return waiting

    def _want(self, channel: str, again: bool) -> Future[None] | None:
        entry = self._channels.get(channel) or _Channel()
        waiting = entry.subscribing
        if waiting is None and channel in self._channels and not again:
            entry.count += 1
            return None
        is_new = waiting is None or waiting.done()  # done: it was in vain
        if waiting is None or is_new:
            waiting = uncancellable()
            self._wanted.append(channel)
            entry.subscribing = waiting
        entry.count += 1
        self._channels[channel] = entry  # last: what is in there is, or will be, subscribed to
        if is_new:
            self.newest = waiting
        return waiting

    def remove(self, channel: str) -> None:
        """Want a channel no longer; from any thread."""
        try:
            with self._lock:
                entry = self._channels[channel]
                entry.count -= 1
                if entry.count:
                    return
                entry.expires = time.monotonic() + KEEP_TIME
                self._expiring.append((entry.expires, channel))
                starts, self._will_look = not self._will_look, True
            if starts:
                self._start(self._look_for_expired, KEEP_TIME)
        except BaseException:  # as above
            self._will_look = False
            raise

    async def _look_for_expired(self) -> None:
        self._will_look = False
        await self._change_all()

    async def _change_all(self) -> None:
        """Make the changes that are due, and those that come meanwhile; on the loop."""
        if self._is_changing:
            return
        self._is_changing = True
        try:
            while (changes := self._take()) != ([], []):
                await self._change(*changes)
        finally:
            self._is_changing = False

    def _take(self) -> tuple[list[str], list[str]]:
        """Take what is to be subscribed to, and unsubscribed from."""
        now = time.monotonic()
        with self._lock:
            expired = dict(self._expired(now))
            wanted = [
                channel for channel in dict.fromkeys(self._wanted) if channel in self._channels
            ]
            self._wanted, self._will_change = [], False
            looks = bool(self._expiring) and not (wanted or expired or self._will_look)
            self._will_look |= looks
        if looks:
            self._start(self._look_for_expired, self._expiring[0][0] - now)
        for future in expired.values():
            if future is not None and not future.done():  # what is published waits for it
                future.set_result(None)
        return wanted, list(expired)

    def _expired(self, now: float) -> Iterator[tuple[str, Future[None] | None]]:
        """Forget the channels that nobody has wanted for a while."""
        while self._expiring and self._expiring[0][0] <= now:
            expires, channel = self._expiring.popleft()
            entry = self._channels.get(channel)
            if entry is not None and not entry.count and entry.expires == expires:
                del self._channels[channel]
                yield channel, entry.subscribing

    async def _change(self, wanted: list[str], unwanted: list[str]) -> None:
        if unwanted:
            await self._unsubscribe(unwanted)
        if not wanted:
            return
        error: BaseException | None = RuntimeError("it was interrupted")
        try:
            await self._subscribe(wanted)
            error = None
        except Exception as failure:
            error = failure
        finally:
            self._tell(wanted, error)

    def _tell(self, channels: list[str], error: BaseException | None) -> None:
        for channel in channels:
            with self._lock:
                entry = self._channels[channel]
                future = entry.subscribing
                if error is None:
                    entry.subscribing = None
            settle(future, error)

    def leave_to_parent(self) -> None:
        """Forget all, in a child process."""
        self._lock = RLock()
        self._channels.clear()
