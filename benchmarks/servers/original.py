"""Flask-uWSGI-WebSocket 0.6.1, on Python 3.8: not of this package, and not imported by it.

``websocket=True`` is for Werkzeug, which since 1.0 answers 404 to a WebSocket without it.
"""

import os
import threading
import time

from flask import Flask

from flask_uwsgi_websocket import GeventWebSocket, WebSocket

TICK = float(os.environ["BENCHMARK_TICK"])

app = Flask(__name__)
websocket = (GeventWebSocket if os.environ["BENCHMARK_ENGINE"] == "gevent" else WebSocket)(app)
listening = set()
ticker = []


@websocket.route("/echo", websocket=True)
def echo(ws):
    while True:
        message = ws.receive()
        if message is None:
            break
        if message:  # empty ones come in between
            ws.send(message)


@websocket.route("/tick", websocket=True)
def tick(ws):
    if not ticker:
        ticker.append(threading.Thread(target=tick_for_ever, daemon=True))
        ticker[0].start()
    listening.add(ws)
    while ws.receive() is not None:
        pass
    listening.discard(ws)


def tick_for_ever():
    while True:
        time.sleep(TICK)
        now = str(time.monotonic_ns()).encode()
        for ws in list(listening):
            ws.send(now)
