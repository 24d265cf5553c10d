"""aiohttp's own server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator

from aiohttp import web

PORT = int(os.environ["BENCHMARK_PORT"])
TICK = float(os.environ["BENCHMARK_TICK"])

listening: set[web.WebSocketResponse] = set()


async def echo(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    async for message in ws:
        await ws.send_str(message.data)
    return ws


async def tick(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    listening.add(ws)
    async for _ in ws:
        pass
    listening.discard(ws)
    return ws


async def tick_always() -> None:
    while True:
        await asyncio.sleep(TICK)
        now = str(time.monotonic_ns())
        for ws in list(listening):
            with contextlib.suppress(ConnectionError):
                await ws.send_str(now)


async def ticking(app: web.Application) -> AsyncIterator[None]:
    task = asyncio.create_task(tick_always())
    yield
    task.cancel()


app = web.Application()
app.add_routes([web.get("/echo", echo), web.get("/tick", tick)])
app.cleanup_ctx.append(ticking)

loop: asyncio.AbstractEventLoop | None = None
if os.environ.get("BENCHMARK_UVLOOP") == "1":
    import uvloop

    loop = uvloop.new_event_loop()
web.run_app(app, host="127.0.0.1", port=PORT, print=None, access_log=None, loop=loop)
