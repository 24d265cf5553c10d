"""Starlette, for uvicorn."""

from __future__ import annotations

import contextlib

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

listening: set[WebSocket] = set()


async def echo(ws: WebSocket) -> None:
    await ws.accept()
    async for message in ws.iter_text():
        await ws.send_text(message)


async def send_to_all(ws: WebSocket) -> None:
    await ws.accept()
    listening.add(ws)
    async for message in ws.iter_text():
        for each in list(listening):
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await each.send_text(message)
    listening.discard(ws)


app = Starlette(routes=[WebSocketRoute("/echo", echo), WebSocketRoute("/all", send_to_all)])
