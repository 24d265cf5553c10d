"""asyncio beside a server that has no loop: that of the whole process, in a native thread.

The thread of a request waits while the handler of its WebSocket runs as a Task on the loop.
"""

from __future__ import annotations

import asyncio
from _socket import socket as Socket
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from ..codec import Protocol
from ..connection.base import Limits
from ..connection.connection import Connection
from ..connection.worker import Worker
from .asyncio import AsyncioEngine
from .asyncio_worker import AsyncioWorker

T = TypeVar("T")


class AsyncioThreadWorker(AsyncioWorker):
    """The connections of the loop. Signals are the server's own business."""

    def start(self) -> None:
        Worker.start(self)


class AsyncioThreadEngine(AsyncioEngine):
    """A Task for each handler, on the loop of :mod:`.async_thread`."""

    def _make_worker(self) -> AsyncioThreadWorker:
        async def make() -> AsyncioThreadWorker:
            return AsyncioThreadWorker(self.process)

        return asyncio.run_coroutine_threadsafe(make(), self.async_loop()).result()

    def open(self, sock: Socket, protocol: Protocol, limits: Limits) -> Connection:
        if self.worker().on_loop():
            return super().open(sock, protocol, limits)

        async def open_there() -> Connection:
            return self.open(sock, protocol, limits)

        return self.wait_for(open_there())

    def wait_for(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Block this thread until a Task has run the coroutine, in this thread's context."""
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self.worker().loop).result()
        except CancelledError:
            raise asyncio.CancelledError from None
