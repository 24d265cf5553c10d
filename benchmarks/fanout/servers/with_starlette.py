"""Starlette, for uvicorn, with Redis' pub/sub by hand."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import defaultdict
from collections.abc import AsyncIterator

from redis.asyncio import BlockingConnectionPool, Redis
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

# The pool that from_url makes by itself refuses more than 100 publishers at a time.
pool = BlockingConnectionPool.from_url(os.environ["BENCHMARK_REDIS"], decode_responses=True)
redis = Redis(connection_pool=pool)
subscription = redis.pubsub(ignore_subscribe_messages=True)
changing = asyncio.Lock()
rooms: defaultdict[str, set[WebSocket]] = defaultdict(set)


async def chat(ws: WebSocket) -> None:
    await ws.accept()
    name = ws.path_params["name"]
    rooms[name].add(ws)
    if len(rooms[name]) == 1:
        async with changing:
            await subscription.subscribe(name)
    try:
        async for message in ws.iter_text():
            await redis.publish(name, message)
    finally:
        rooms[name].discard(ws)


async def deliver() -> None:
    async for message in subscription.listen():
        for ws in list(rooms[message["channel"]]):
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await ws.send_text(message["data"])


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    await subscription.subscribe("")  # listen() ends where there is nothing to listen to
    task = asyncio.create_task(deliver())
    yield
    task.cancel()


app = Starlette(routes=[WebSocketRoute("/rooms/{name}", chat)], lifespan=lifespan)
