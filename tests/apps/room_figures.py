"""Rooms of several patterns, and what is counted of them."""

import os

from flask import jsonify, request

from flask_uwsgi_websocket import Room
from tests.apps.kit import make_app, make_extension

app = make_app("room_figures")
websocket = make_extension(app)
websocket.room("chat/*", slow="latest")
websocket.room("kept/*", history=Room.history(count=5))
websocket.room("here/*", presence=Room.presence(grace=0))


@websocket.route("/join/<path:room>")
async def join(ws, room):
    """Tell which worker this is, and join; then publish what comes."""
    await ws.send(f"worker {os.getpid()}")
    joined = await ws.join(room, since=request.args.get("since"))
    await ws.send(f"joined {joined.position}")
    async for message in ws:
        await ws.to(room).send(message)


@app.post("/publish/<int:count>/<path:room>")
def publish(count, room):
    for number in range(count):
        websocket.to(room).send(f"x {number}")
    return "", 204


@app.post("/to-all")
def to_all():
    websocket.to_all().send("all 0")
    return "", 204


@app.get("/stats")
def stats():
    return jsonify(asked=os.getpid(), **websocket.stats())


@app.get("/figures")
def figures():
    return jsonify(pid=os.getpid(), **websocket._metrics.snapshot()["rooms"])
