"""The asyncio server of the package ``websockets``."""

from __future__ import annotations

import asyncio
import os

from websockets.asyncio.server import ServerConnection, broadcast, serve

PORT = int(os.environ["BENCHMARK_PORT"])

listening: set[ServerConnection] = set()


async def handle(ws: ServerConnection) -> None:
    if ws.request is not None and ws.request.path == "/all":
        listening.add(ws)
        async for message in ws:
            broadcast(listening, message)
        listening.discard(ws)
        return
    async for message in ws:
        await ws.send(message)


async def main() -> None:
    async with serve(handle, "127.0.0.1", PORT) as server:
        await server.serve_forever()


asyncio.run(main())
