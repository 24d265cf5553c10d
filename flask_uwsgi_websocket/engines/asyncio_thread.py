"""asyncio beside a server that has no loop: one in a daemon thread, for the whole process.

The thread of a request waits while the handler of its WebSocket runs as a Task on the loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from _socket import socket as Socket
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from ..codec import Protocol
from ..connection.base import Limits
from ..connection.connection import Connection
from ..connection.worker import Worker
from .asyncio import AsyncioConnection, AsyncioEngine, AsyncioWorker

T = TypeVar("T")


class AsyncioThreadWorker(AsyncioWorker):
    """The connections of the loop. Signals are the server's own business."""

    def start(self) -> None:
        Worker.start(self)


class AsyncioThreadEngine(AsyncioEngine):
    """A Task for each handler, on a loop in a thread of its own."""

    def _make_worker(self) -> AsyncioThreadWorker:
        loop = asyncio.SelectorEventLoop()  # Windows' default one cannot watch descriptors
        threading.Thread(target=loop.run_forever, name="websocket-loop", daemon=True).start()

        async def make() -> AsyncioThreadWorker:
            return AsyncioThreadWorker(self.process)

        return asyncio.run_coroutine_threadsafe(make(), loop).result()

    def open(self, sock: Socket, protocol: Protocol, limits: Limits) -> Connection:
        worker = self.worker()
        assert isinstance(worker, AsyncioThreadWorker)
        if worker.on_loop():
            return super().open(sock, protocol, limits)

        async def make() -> Connection:
            connection = AsyncioConnection(sock, protocol, limits, worker)
            worker.add(connection)
            return connection

        return asyncio.run_coroutine_threadsafe(make(), worker.loop).result()

    def wait_for(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Block this thread until a Task has run the coroutine, in this thread's context."""
        worker = self.worker()
        assert isinstance(worker, AsyncioThreadWorker)
        result: Future[T] = Future()
        task: asyncio.Task[T]

        def finish(task: asyncio.Task[T]) -> None:
            if task.cancelled():
                result.set_exception(asyncio.CancelledError())
            elif (error := task.exception()) is not None:
                result.set_exception(error)
            else:
                result.set_result(task.result())

        def start() -> None:
            nonlocal task  # the loop itself holds tasks weakly
            task = worker.loop.create_task(coroutine)
            task.add_done_callback(finish)

        worker.loop.call_soon_threadsafe(start, context=contextvars.copy_context())
        return result.result()
