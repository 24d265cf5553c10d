"""aiohttp's own server."""

from __future__ import annotations

import asyncio
import contextlib
import os

from aiohttp import web

PORT = int(os.environ["BENCHMARK_PORT"])

listening: set[web.WebSocketResponse] = set()


async def echo(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    async for message in ws:
        await ws.send_str(message.data)
    return ws


async def send_to_all(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    listening.add(ws)
    async for message in ws:
        for each in list(listening):
            with contextlib.suppress(ConnectionError):
                await each.send_str(message.data)
    listening.discard(ws)
    return ws


app = web.Application()
app.add_routes([web.get("/echo", echo), web.get("/all", send_to_all)])

loop: asyncio.AbstractEventLoop | None = None
if os.environ.get("BENCHMARK_UVLOOP") == "1":
    import uvloop

    loop = uvloop.new_event_loop()
web.run_app(app, host="127.0.0.1", port=PORT, print=None, access_log=None, loop=loop)
