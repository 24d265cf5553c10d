"""The asyncio server of the package ``websockets``."""

from __future__ import annotations

import asyncio
import os
import time

from websockets.asyncio.server import ServerConnection, broadcast, serve

PORT = int(os.environ["BENCHMARK_PORT"])
TICK = float(os.environ["BENCHMARK_TICK"])

listening: set[ServerConnection] = set()


async def handle(ws: ServerConnection) -> None:
    if ws.request is not None and ws.request.path == "/tick":
        listening.add(ws)
        await ws.wait_closed()
        listening.discard(ws)
        return
    async for message in ws:
        await ws.send(message)


async def main() -> None:
    async with serve(handle, "127.0.0.1", PORT):
        while True:
            await asyncio.sleep(TICK)
            broadcast(listening, str(time.monotonic_ns()))


asyncio.run(main())
