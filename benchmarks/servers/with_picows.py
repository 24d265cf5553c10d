"""picows' own server on uvloop: frames, no messages, nothing around it. The ceiling."""

from __future__ import annotations

import os

import picows
import uvloop

PORT = int(os.environ["BENCHMARK_PORT"])

listening: set[picows.WSTransport] = set()


class Echo(picows.WSListener):
    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type == picows.WSMsgType.CLOSE:
            transport.send_close(picows.WSCloseCode.OK)
            transport.disconnect()
        else:
            self.answer(transport, frame)

    def answer(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        transport.send(frame.msg_type, frame.get_payload_as_bytes())


class ToAll(Echo):
    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        listening.add(transport)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        listening.discard(transport)

    def answer(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        payload = frame.get_payload_as_bytes()
        for each in list(listening):
            each.send(frame.msg_type, payload)


def choose(request: picows.WSUpgradeRequest) -> picows.WSListener:
    return ToAll() if request.path == b"/all" else Echo()


async def main() -> None:
    server = await picows.ws_create_server(choose, "127.0.0.1", PORT)
    async with server:
        await server.serve_forever()


uvloop.run(main())
