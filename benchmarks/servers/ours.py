"""Ours, on the engine that ``BENCHMARK_ENGINE`` names; run as a script, through ``app.run``."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask

from flask_uwsgi_websocket import (
    AsyncioWebSocket,
    GeventWebSocket,
    WebSocket,
)

ENGINE = os.environ["BENCHMARK_ENGINE"]

app = Flask(__name__)
app.config["UWSGI_WEBSOCKET_COMPRESSION"] = os.environ.get("BENCHMARK_COMPRESSION") == "1"
classes: dict[str, type[Any]] = {
    "threads": WebSocket,
    "gevent": GeventWebSocket,
    "asyncio": AsyncioWebSocket,
}
websocket: Any = classes[ENGINE](app)


if ENGINE == "asyncio":

    @websocket.route("/echo")  # type: ignore[untyped-decorator]
    async def echo(ws: Any) -> None:
        async for message in ws:
            await ws.send(message)

    @websocket.route("/all")  # type: ignore[untyped-decorator]
    async def to_all(ws: Any) -> None:
        async for message in ws:
            websocket.send_to_all(message)

else:

    @websocket.route("/echo")  # type: ignore[untyped-decorator]
    def echo_blocking(ws: Any) -> None:
        for message in ws:
            ws.send(message)

    @websocket.route("/all")  # type: ignore[untyped-decorator]
    def to_all_blocking(ws: Any) -> None:
        for message in ws:
            websocket.send_to_all(message)


if __name__ == "__main__":
    port = os.environ["BENCHMARK_PORT"]
    front: dict[str, Any] = {"host": "127.0.0.1", "port": port}
    if os.environ["BENCHMARK_FRONT"] == "http-socket":
        front = {"http_socket": f"127.0.0.1:{port}"}
    cores = int(os.environ["BENCHMARK_CORES"])
    websocket.run(disable_logging=True, **front, **{ENGINE: cores})
