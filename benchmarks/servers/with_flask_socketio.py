"""Flask-SocketIO, for gunicorn's gevent worker: events of Socket.IO over WebSockets."""

from __future__ import annotations

from flask import Flask
from flask_socketio import SocketIO, emit, join_room

app = Flask(__name__)
# Its limit of 1,000,000 bytes is less than our largest message.
socketio = SocketIO(app, async_mode="gevent", max_http_buffer_size=1 << 22)


@socketio.on("echo")  # type: ignore[untyped-decorator]
def echo(message: str) -> None:
    emit("echo", message)


@socketio.on("listen")  # type: ignore[untyped-decorator]
def listen(message: str) -> None:
    join_room("all")


@socketio.on("all")  # type: ignore[untyped-decorator]
def send_to_all(message: str) -> None:
    emit("all", message, to="all")
