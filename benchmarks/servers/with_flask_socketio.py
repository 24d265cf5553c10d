"""Flask-SocketIO, for gunicorn's gevent worker: events of Socket.IO over WebSockets."""

from __future__ import annotations

import os
import time

from flask import Flask
from flask_socketio import SocketIO, emit, join_room

TICK = float(os.environ["BENCHMARK_TICK"])

app = Flask(__name__)
# Its limit of 1,000,000 bytes is less than our largest message.
socketio = SocketIO(app, async_mode="gevent", max_http_buffer_size=1 << 22)
ticker: list[object] = []


@socketio.on("echo")  # type: ignore[untyped-decorator]
def echo(message: str) -> None:
    emit("echo", message)


@socketio.on("listen")  # type: ignore[untyped-decorator]
def listen(message: str) -> None:
    if not ticker:
        ticker.append(socketio.start_background_task(tick_for_ever))
    join_room("listening")
    emit("listen", message)


def tick_for_ever() -> None:
    while True:
        socketio.sleep(TICK)
        socketio.emit("tick", str(time.monotonic_ns()), to="listening")
