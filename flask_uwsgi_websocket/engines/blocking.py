"""What the engines share whose waiting blocks the calling thread or greenlet.

Their waiting happens inside the rules, which therefore never suspend: :func:`complete` runs them
in one go.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from .connection import Connection, Message

T = TypeVar("T")


def complete(rules: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine whose waiting blocks inside, and which therefore never suspends."""
    try:
        rules.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    rules.close()
    raise RuntimeError("a coroutine function was used where a plain function is needed")


class BlockingConnection(Connection):
    """A connection whose waiting blocks the caller."""

    __slots__ = ()

    @abstractmethod
    def _block_for_input(self, ready: Callable[[], bool], deadline: float | None) -> None:
        """As ``_wait_input``."""

    @abstractmethod
    def _block_for_output(self, ready: Callable[[], bool], deadline: float | None) -> None:
        """As ``_wait_output``."""

    async def _wait_input(self, ready: Callable[[], bool], deadline: float | None) -> None:
        self._block_for_input(ready, deadline)

    async def _wait_output(self, ready: Callable[[], bool], deadline: float | None) -> None:
        self._block_for_output(ready, deadline)

    def run(self, rules: Coroutine[Any, Any, T]) -> T:
        """Run rules of this connection for a blocking handler."""
        return complete(rules)

    def receive_blocking(self, timeout: float | None = None) -> Message | None:
        """:meth:`receive`, with nothing on the stack of a handler that waits but this."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (message := self.take()) is None and self._wants_more():
            self._block_for_input(self._receivable, deadline)
        return self.take() if message is None else message
