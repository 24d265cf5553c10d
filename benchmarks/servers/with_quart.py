"""Quart, for hypercorn."""

from __future__ import annotations

from typing import Any

from quart import Quart, websocket

app = Quart(__name__)
listening: set[Any] = set()


@app.websocket("/echo")
async def echo() -> None:
    while True:
        await websocket.send(await websocket.receive())


@app.websocket("/all")
async def send_to_all() -> None:
    ws = websocket._get_current_object()  # type: ignore[attr-defined]
    listening.add(ws)
    try:
        while True:
            message = await websocket.receive()
            for each in list(listening):
                await each.send(message)
    finally:
        listening.discard(ws)
