"""Flask-uWSGI-WebSocket 0.6.1, on Python 3.8: not of this package, and not imported by it.

``websocket=True`` is for Werkzeug, which since 1.0 answers 404 to a WebSocket without it.
"""

import os

from flask import Flask

from flask_uwsgi_websocket import GeventWebSocket, WebSocket

app = Flask(__name__)
websocket = (GeventWebSocket if os.environ["BENCHMARK_ENGINE"] == "gevent" else WebSocket)(app)
listening = set()


@websocket.route("/echo", websocket=True)
def echo(ws):
    while True:
        message = ws.receive()
        if message is None:
            break
        if message:  # empty ones come in between
            ws.send(message)


@websocket.route("/all", websocket=True)
def send_to_all(ws):
    listening.add(ws)
    while True:
        message = ws.receive()
        if message is None:
            break
        if message:
            for each in list(listening):
                each.send(message)
    listening.discard(ws)
