"""Rooms over several workers: members, and views and handlers that publish to them."""

import os
import time

from flask import jsonify, request

from tests.apps.kit import make_app, make_extension

app = make_app("rooms_workers")
websocket = make_extension(app)


@websocket.route("/member/<room>")
async def member(ws, room):
    """Join, and tell that; then publish what is asked for: the number of messages, and a tag."""
    await ws.join(room)
    await ws.send(f"joined {os.getpid()}")
    async for msg in ws:
        count, tag = msg.split(" ")
        for number in range(int(count)):
            await websocket.to(room).send(f"{tag} {number}")


@app.get("/publish/<room>")
def publish(room):
    longest, began = 0.0, time.monotonic()
    count, tag, size = (request.args.get(name, "1") for name in ("count", "tag", "size"))
    for number in range(int(count)):
        before = time.monotonic()
        websocket.to(room).send(f"{tag} {number} ".ljust(int(size), "."))
        longest = max(longest, time.monotonic() - before)
    return jsonify(pid=os.getpid(), longest=longest, seconds=time.monotonic() - began)


@app.get("/fork/<room>")
def fork(room):
    """Have a child publish, which lives on for a while."""
    child = os.fork()
    if child:
        return jsonify(pid=os.getpid(), child=child)
    try:
        websocket.to(room).send("child 0")
        websocket.to(room).send("child 1")
        time.sleep(20)
    finally:
        os._exit(0)


@app.get("/count/<room>")
def count(room):
    found = websocket.count(room)
    return jsonify(connections=found.connections, complete=found.complete)


@app.get("/figures")
def figures():
    return jsonify(pid=os.getpid(), **websocket._rooms.of(app).snapshot())
