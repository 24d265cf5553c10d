"""Flask-Sock, for gunicorn: on threads, or on gevent, whose worker patches what it needs."""

from __future__ import annotations

import contextlib
from typing import Any

from flask import Flask
from flask_sock import Sock
from simple_websocket import ConnectionClosed

app = Flask(__name__)
sock = Sock(app)
listening: set[Any] = set()


@sock.route("/echo")  # type: ignore[untyped-decorator]
def echo(ws: Any) -> None:
    while True:
        ws.send(ws.receive())


@sock.route("/all")  # type: ignore[untyped-decorator]
def send_to_all(ws: Any) -> None:
    listening.add(ws)
    try:
        while True:
            message = ws.receive()
            for each in list(listening):
                with contextlib.suppress(ConnectionClosed, OSError):
                    each.send(message)
    finally:
        listening.discard(ws)
