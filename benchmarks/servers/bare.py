"""uWSGI's own WebSocket API in a plain WSGI app, on threads or gevent.

A request can only send from within itself: each waits for the tick and sends it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from typing import Any

import uwsgi

TICK = float(os.environ["BENCHMARK_TICK"])

if os.environ["BENCHMARK_ENGINE"] == "gevent":
    from gevent.monkey import patch_all

    patch_all()

ticker: list[threading.Thread] = []
ticked: threading.Condition
now = b""


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    uwsgi.websocket_handshake()
    try:
        if environ["PATH_INFO"] == "/tick":
            tick()
        while True:
            uwsgi.websocket_send(uwsgi.websocket_recv())
    except OSError:
        return []


def tick() -> None:
    global ticked
    if not ticker:
        ticked = threading.Condition()
        ticker.append(threading.Thread(target=tick_for_ever, daemon=True))
        ticker[0].start()
    while True:
        with ticked:
            ticked.wait()
        uwsgi.websocket_send(now)


def tick_for_ever() -> None:
    global now
    while True:
        time.sleep(TICK)
        with ticked:
            now = str(time.monotonic_ns()).encode()
            ticked.notify_all()
