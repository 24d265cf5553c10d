"""Routes of which each is counted for itself, and the figures."""

import os

from flask import abort, jsonify, request

from flask_uwsgi_websocket.metrics.observers import Observer
from tests.apps.kit import Queue, make_app, make_extension

app = make_app("counters")
websocket = make_extension(app)
gates = {}


@websocket.route("/echo/<name>")
@websocket.route("/compressed", endpoint="compressed", compression=True)
@websocket.route("/origin", endpoint="origin", origins=["https://example.com"])
@websocket.route("/spoken", endpoint="spoken", subprotocols=["one"], require_subprotocol=True)
@websocket.route("/guarded", endpoint="guarded")
async def echo(ws, name=None):
    async for message in ws:
        await ws.send(message)


@websocket.route("/close/<int:code>")
async def close(ws, code):
    await ws.close(code, "by the app")


@websocket.route("/fail/<name>")
async def fail(ws, name):
    await ws.receive()
    raise LookupError("on purpose")


@websocket.route("/lazy", lazy=True)
async def lazy(ws):
    abort(403)


@websocket.route("/ahead/<int:count>/<int:size>")
async def ahead(ws, count, size):
    """Send so many messages without waiting, then echo."""
    for number in range(count):
        ws.send_nb(f"{number:09}" + "x" * (size - 9))
    async for message in ws:
        await ws.send(message)


@websocket.route("/held/<name>")
async def held(ws, name):
    """Neither receive nor send until the test opens the gate."""
    gate = gates.setdefault(name, Queue())
    value = gate.get()
    if hasattr(value, "__await__"):
        value = await value
    async for message in ws:
        await ws.send(message)


@app.post("/gates/<name>")
def open_gate(name):
    gate = gates.setdefault(name, Queue())
    getattr(gate, "put_nowait", gate.put)(True)
    return "", 204


@websocket.route("/room/<name>")
async def room(ws, name):
    await ws.join(name)
    await ws.send("joined")
    await ws.receive()


@app.post("/room/<name>/<int:count>")
def to_room(name, count):
    for number in range(count):
        websocket.to(name).send_nowait(f"number {number:03}")
    return "", 204


@websocket.route("/all")
async def everybody(ws):
    async for message in ws:
        websocket.send_to_all(message)


@app.before_request
def guard():
    if request.path == "/guarded":
        abort(401)


@app.get("/page")
def page():
    return "page"


@websocket.route("/limited", max_rate=(2, 0.2))
async def limited(ws):
    async for message in ws:
        await ws.send(message)


@app.get("/stats")
def stats():
    return jsonify(asked=os.getpid(), **websocket.stats())


@app.get("/figures")
def figures():
    return jsonify(pid=os.getpid(), **websocket._metrics.snapshot())


class Seen(Observer):
    """What an observer is told, by path."""

    def __init__(self):
        self.told = {}

    def _note(self, path, *what):
        self.told.setdefault(path, []).append(what)

    def opened(self, client):
        self._note(client.path, "opened")

    def closed(self, client, end):
        self._note(client.path, "closed", end._asdict())

    def refused(self, environ, refusal):
        self._note(environ["PATH_INFO"], "refused", refusal._asdict())


seen = Seen()
websocket._metrics.observers.append(seen)


@app.get("/told/<path:path>")
def told(path):
    return jsonify(seen.told.get(f"/{path}", []))
