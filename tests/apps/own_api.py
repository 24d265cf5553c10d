"""Handlers on uWSGI's own WebSocket functions, which give bytes and take either."""

from flask import jsonify

from flask_uwsgi_websocket import UWSGIWebSocketClient
from tests.apps.kit import make_app, make_extension

app = make_app(__name__)
websocket = make_extension(app)
websocket.middleware.client = UWSGIWebSocketClient


@websocket.route("/echo")
def echo(ws):
    while (msg := ws.receive()) is not None:
        ws.send(msg)


@websocket.route("/binary")
def binary(ws):
    while (msg := ws.receive()) is not None:
        ws.send_binary(msg)


@websocket.route("/sharedarea")
def sharedarea(ws):
    import uwsgi

    uwsgi.sharedarea_write(0, 4090, b"shared")
    ws.send_from_sharedarea(0, 4090)
    ws.receive()


@websocket.route("/raise")
def raise_(ws):
    ws.receive()
    raise ValueError("raised on purpose")


@app.get("/figures")
def figures():
    return jsonify(websocket._metrics.snapshot()["routes"])
