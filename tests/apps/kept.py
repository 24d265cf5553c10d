"""Rooms that keep what is sent to them, over several workers, and what it costs these."""

import os
import signal
import time

from flask import jsonify, request

from flask_uwsgi_websocket import BackplaneUnavailable, Room
from flask_uwsgi_websocket.rooms.local.store import Store
from tests.apps.kit import make_app, make_extension

app = make_app("kept")
websocket = make_extension(app)
websocket.room("chat/few", history=Room.history(count=5))
websocket.room("chat/*", history=Room.history(count=10_000))

#: The longest that a use of the store has held up this worker, in seconds: by the clock, which
#: counts what other processes do meanwhile, and by its own work.
held_up = [0.0, 0.0]
_explained = Store._explained


def _measured(self, attempt, work):
    begin = time.perf_counter(), time.thread_time()
    try:
        return _explained(self, attempt, work)
    finally:
        took = time.perf_counter() - begin[0], time.thread_time() - begin[1]
        held_up[:] = map(max, held_up, took)


Store._explained = _measured


@websocket.route("/chat/<room>", resume=True)
async def chat(ws, room):
    await ws.join(f"chat/{room}")
    async for message in ws:
        await ws.to(f"chat/{room}").send(message)


@websocket.route("/plain/<room>")
async def plain(ws, room):
    """Tell which worker this is; then join as the query asks for, and tell that."""
    await ws.send(f"worker {os.getpid()}")
    replay = request.args.get("replay", 0, int)
    joined = await ws.join(f"chat/{room}", since=request.args.get("since"), replay=replay)
    await ws.send(f"joined {joined.position} {joined.recovered} {joined.replayed}")
    async for message in ws:
        await ws.to(f"chat/{room}").send(message)


@app.post("/publish/<room>/<tag>/<int:first>/<int:count>")
def publish(room, tag, first, count):
    """Publish numbered messages, which may be done again; tell which were refused."""
    refused = []
    for number in range(first, first + count):
        message = f"{tag} {number} "
        try:
            websocket.to(f"chat/{room}").send(message.ljust(100, "."), key=message)
        except BackplaneUnavailable as error:
            refused.append([number, str(error)])
    return jsonify(refused)


@app.get("/position/<room>")
def position(room):
    return websocket.position(f"chat/{room}")


@app.get("/history/<room>")
def history(room):
    past = websocket.history(f"chat/{room}", request.args.get("after"), 10_000)
    texts = [each.data for each in past.messages]
    return jsonify(texts=texts, position=past.position, complete=past.complete)


@app.post("/forget/<room>")
def forget(room):
    websocket.forget(f"chat/{room}")
    return "", 204


@app.get("/facts")
def facts():
    figures = websocket._rooms.of(app).snapshot()
    return jsonify(pid=os.getpid(), held_up=held_up, figures=figures)


@app.post("/kill")
def kill():
    """End this worker at once."""
    os.kill(os.getpid(), signal.SIGKILL)
