"""Ours, on the engine that ``BENCHMARK_ENGINE`` names; run as a script, through ``app.run``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from typing import Any

from flask import Flask

from flask_uwsgi_websocket import (
    AsyncioWebSocket,
    ConnectionClosed,
    GeventWebSocket,
    WebSocket,
)

ENGINE = os.environ["BENCHMARK_ENGINE"]
TICK = float(os.environ["BENCHMARK_TICK"])

app = Flask(__name__)
app.config["UWSGI_WEBSOCKET_COMPRESSION"] = os.environ.get("BENCHMARK_COMPRESSION") == "1"
classes: dict[str, type[Any]] = {
    "threads": WebSocket,
    "gevent": GeventWebSocket,
    "asyncio": AsyncioWebSocket,
}
websocket: Any = classes[ENGINE](app)
listening: set[Any] = set()
ticker: list[Any] = []


def send_tick() -> None:
    now = str(time.monotonic_ns())
    for ws in list(listening):
        with contextlib.suppress(ConnectionClosed):
            ws.send_nb(now)


if ENGINE == "asyncio":

    @websocket.route("/echo")  # type: ignore[untyped-decorator]
    async def echo(ws: Any) -> None:
        async for message in ws:
            await ws.send(message)

    @websocket.route("/tick")  # type: ignore[untyped-decorator]
    async def tick(ws: Any) -> None:
        if not ticker:
            ticker.append(asyncio.create_task(tick_always()))
        listening.add(ws)
        async for _ in ws:
            pass
        listening.discard(ws)

    async def tick_always() -> None:
        while True:
            await asyncio.sleep(TICK)
            send_tick()

else:

    @websocket.route("/echo")  # type: ignore[untyped-decorator]
    def echo_blocking(ws: Any) -> None:
        for message in ws:
            ws.send(message)

    @websocket.route("/tick")  # type: ignore[untyped-decorator]
    def tick_blocking(ws: Any) -> None:
        if not ticker:
            ticker.append(threading.Thread(target=tick_for_ever, daemon=True))
            ticker[0].start()
        listening.add(ws)
        for _ in ws:
            pass
        listening.discard(ws)

    def tick_for_ever() -> None:
        while True:
            time.sleep(TICK)
            send_tick()


if __name__ == "__main__":
    port = os.environ["BENCHMARK_PORT"]
    front: dict[str, Any] = {"host": "127.0.0.1", "port": port}
    if os.environ["BENCHMARK_FRONT"] == "http-socket":
        front = {"http_socket": f"127.0.0.1:{port}"}
    cores = int(os.environ["BENCHMARK_CORES"])
    websocket.run(disable_logging=True, **front, **{ENGINE: cores})
