"""socketify: uWebSockets, in C++, with handlers in Python."""

from __future__ import annotations

import os
from typing import Any

from socketify import App, CompressOptions

app = App()
compressed = os.environ["BENCHMARK_COMPRESSION"] == "1"
settings: dict[str, Any] = {
    "compression": CompressOptions.SHARED_COMPRESSOR if compressed else CompressOptions.DISABLED,
    "max_payload_length": 1 << 21,
    "max_backpressure": 1 << 23,
}


def echo(ws: Any, message: Any, opcode: Any) -> None:
    ws.send(message, opcode, compressed)


def join(ws: Any) -> None:
    ws.subscribe("all")


def send_to_all(ws: Any, message: Any, opcode: Any) -> None:
    app.publish("all", message, opcode)


app.ws("/echo", {**settings, "message": echo})
app.ws("/all", {**settings, "open": join, "message": send_to_all})
app.listen(int(os.environ["BENCHMARK_PORT"]))
app.run()
