"""Flask-Sock, for gunicorn: on threads, or on gevent, whose worker patches what it needs."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import Any

from flask import Flask
from flask_sock import Sock
from simple_websocket import ConnectionClosed

TICK = float(os.environ["BENCHMARK_TICK"])

app = Flask(__name__)
sock = Sock(app)
listening: set[Any] = set()
ticker: list[threading.Thread] = []


@sock.route("/echo")  # type: ignore[untyped-decorator]
def echo(ws: Any) -> None:
    while True:
        ws.send(ws.receive())


@sock.route("/tick")  # type: ignore[untyped-decorator]
def tick(ws: Any) -> None:
    if not ticker:
        ticker.append(threading.Thread(target=tick_for_ever, daemon=True))
        ticker[0].start()
    listening.add(ws)
    try:
        while True:
            ws.receive()
    finally:
        listening.discard(ws)


def tick_for_ever() -> None:
    while True:
        time.sleep(TICK)
        now = str(time.monotonic_ns())
        for ws in list(listening):
            with contextlib.suppress(ConnectionClosed, OSError):
                ws.send(now)
