"""Ours, on the engine that ``BENCHMARK_ENGINE`` names; run as a script, through ``app.run``."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask

from flask_uwsgi_websocket import AsyncioWebSocket, GeventWebSocket, WebSocket

ENGINE = os.environ["BENCHMARK_ENGINE"]

app = Flask(__name__)
app.config["UWSGI_WEBSOCKET_BACKPLANE"] = os.environ.get("BENCHMARK_REDIS")
classes: dict[str, type[Any]] = {
    "threads": WebSocket,
    "gevent": GeventWebSocket,
    "asyncio": AsyncioWebSocket,
}
websocket: Any = classes[ENGINE](app)


if ENGINE == "asyncio":

    @websocket.route("/rooms/<name>")  # type: ignore[untyped-decorator]
    async def chat(ws: Any, name: str) -> None:
        await ws.join(name)
        async for message in ws:
            await websocket.to(name).send(message)

else:

    @websocket.route("/rooms/<name>")  # type: ignore[untyped-decorator]
    def chat_blocking(ws: Any, name: str) -> None:
        ws.join(name)
        for message in ws:
            websocket.to(name).send(message)


if __name__ == "__main__":
    ports = os.environ["BENCHMARK_PORTS"].split(",")
    websocket.run(
        http_socket=[f"127.0.0.1:{port}" for port in ports],
        # Each worker has a port to itself, so that the client can spread its connections evenly.
        map_socket=[f"{index}:{index + 1}" for index in range(len(ports))],
        processes=len(ports),
        disable_logging=True,
        **{ENGINE: int(os.environ["BENCHMARK_CORES"])},
    )
