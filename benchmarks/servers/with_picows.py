"""picows' own server on uvloop: frames, no messages, nothing around it. The ceiling."""

from __future__ import annotations

import asyncio
import os
import time

import picows
import uvloop

PORT = int(os.environ["BENCHMARK_PORT"])
TICK = float(os.environ["BENCHMARK_TICK"])

listening: set[picows.WSTransport] = set()


class Echo(picows.WSListener):
    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type == picows.WSMsgType.CLOSE:
            transport.send_close(picows.WSCloseCode.OK)
            transport.disconnect()
        else:
            transport.send(frame.msg_type, frame.get_payload_as_bytes())


class Tick(Echo):
    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        listening.add(transport)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        listening.discard(transport)


def choose(request: picows.WSUpgradeRequest) -> picows.WSListener:
    return Tick() if request.path == b"/tick" else Echo()


async def main() -> None:
    server = await picows.ws_create_server(choose, "127.0.0.1", PORT)
    async with server:
        while True:
            await asyncio.sleep(TICK)
            now = str(time.monotonic_ns()).encode()
            for transport in list(listening):
                transport.send(picows.WSMsgType.TEXT, now)


uvloop.run(main())
