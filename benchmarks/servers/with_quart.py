"""Quart, for hypercorn."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from quart import Quart, websocket

TICK = float(os.environ["BENCHMARK_TICK"])

app = Quart(__name__)
listening: set[Any] = set()


@app.websocket("/echo")
async def echo() -> None:
    while True:
        await websocket.send(await websocket.receive())


@app.websocket("/tick")
async def tick() -> None:
    ws = websocket._get_current_object()  # type: ignore[attr-defined]
    listening.add(ws)
    try:
        while True:
            await websocket.receive()
    finally:
        listening.discard(ws)


@app.before_serving
async def start() -> None:
    app.add_background_task(tick_always)


async def tick_always() -> None:
    while True:
        await asyncio.sleep(TICK)
        now = str(time.monotonic_ns())
        for ws in list(listening):
            await ws.send(now)
