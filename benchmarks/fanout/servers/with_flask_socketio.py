"""Flask-SocketIO, for gunicorn's gevent worker and for uWSGI with gevent."""

from __future__ import annotations

import os

from flask import Flask
from flask_socketio import SocketIO, emit, join_room

app = Flask(__name__)
socketio = SocketIO(
    app, async_mode=os.environ["BENCHMARK_MODE"], message_queue=os.environ["BENCHMARK_REDIS"]
)


@socketio.on("join")  # type: ignore[untyped-decorator]
def join(room: str) -> None:
    join_room(room)


@socketio.on("say")  # type: ignore[untyped-decorator]
def say(room: str, message: str) -> None:
    emit("said", message, to=room)
