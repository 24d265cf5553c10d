"""Sanic's own server, on uvloop."""

from __future__ import annotations

import os
from typing import Any

from sanic import Sanic

app = Sanic("benchmark")
app.config.WEBSOCKET_MAX_SIZE = 1 << 21
listening: set[Any] = set()


@app.websocket("/echo")  # type: ignore[untyped-decorator, unused-ignore]
async def echo(request: Any, ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


@app.websocket("/all")  # type: ignore[untyped-decorator, unused-ignore]
async def send_to_all(request: Any, ws: Any) -> None:
    listening.add(ws)
    try:
        async for message in ws:
            for each in list(listening):
                await each.send(message)
    finally:
        listening.discard(ws)


if __name__ == "__main__":
    port = int(os.environ["BENCHMARK_PORT"])
    app.run(host="127.0.0.1", port=port, single_process=True, access_log=False, motd=False)
