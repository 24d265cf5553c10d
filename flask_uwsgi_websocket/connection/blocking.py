"""The connection of engines whose waiting blocks the calling thread or greenlet.

``_wait_input``, ``_wait_output`` and ``_pause`` return :data:`DONE` when the wait is over. So the
rules, which await that, never suspend: :func:`run_to_end` runs them in one go.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Coroutine, Generator
from typing import Any, TypeVar

from .base import Message
from .connection import Connection

T = TypeVar("T")


class _Done(Awaitable[None]):
    """An awaitable that is over at once."""

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()


DONE = _Done()


def run_to_end(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine whose waiting blocks inside, and which therefore never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    coroutine.close()
    raise RuntimeError("a coroutine function was used where a plain function is needed")


class BlockingConnection(Connection):
    """A connection whose waiting blocks the caller."""

    __slots__ = ()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run rules of this connection for a blocking handler."""
        return run_to_end(coroutine)

    def receive_blocking(
        self, timeout: float | None = None, waited: bool = False
    ) -> Message | None:
        """Return the next message; None once the connection has ended.

        :param waited: whether the caller has waited for it already.
        :raises TimeoutError: when ``timeout`` seconds have passed without one.
        :raises ConnectionClosed: as :meth:`_tell_end`.
        """
        deadline = None
        if timeout is not None:
            deadline = time.monotonic() + timeout
            if timeout <= 0:
                self._pause(0)  # somebody who polls in a loop must let others run
        while (message := self.take()) is None and self._wants_more():
            waited = True
            self._wait_input(self._receivable, deadline)
        if message is None and (message := self.take()) is None:
            run_to_end(self._tell_end(waited))
        return message

    def receive_nowait(self) -> Message | None:
        message = self._take_or_read()
        if message is not None:
            return message
        if self.ended:
            run_to_end(self._tell_end())
            return None
        self._pause(0)  # somebody who polls in a loop must let others run
        return ""
