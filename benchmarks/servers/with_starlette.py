"""Starlette, for uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

TICK = float(os.environ["BENCHMARK_TICK"])

listening: set[WebSocket] = set()


async def echo(ws: WebSocket) -> None:
    await ws.accept()
    async for message in ws.iter_text():
        await ws.send_text(message)


async def tick(ws: WebSocket) -> None:
    await ws.accept()
    listening.add(ws)
    async for _ in ws.iter_text():
        pass
    listening.discard(ws)


async def tick_always() -> None:
    while True:
        await asyncio.sleep(TICK)
        now = str(time.monotonic_ns())
        for ws in list(listening):
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await ws.send_text(now)


@contextlib.asynccontextmanager
async def ticking(app: Starlette) -> AsyncIterator[None]:
    task = asyncio.create_task(tick_always())
    yield
    task.cancel()


app = Starlette(
    routes=[WebSocketRoute("/echo", echo), WebSocketRoute("/tick", tick)], lifespan=ticking
)
