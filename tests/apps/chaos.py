"""Kept rooms, for clients that resume, and those that send to them."""

from __future__ import annotations

from flask import jsonify

from flask_uwsgi_websocket import BackplaneUnavailable, Room
from tests.apps.kit import make_app, make_extension

app = make_app("chaos")
websocket = make_extension(app)
websocket.room("*", history=Room.history(count=10_000, seconds=300))


@websocket.route("/in/<room>", resume=True)
async def come_in(ws, room):
    """Have a client in a room, and send there what it says."""
    try:
        await ws.join(room)
        async for text in ws:
            await websocket.to(room).send(text)
    except BackplaneUnavailable:
        await ws.close(1013, "come back later")


@app.post("/send/<name>/<int:first>/<int:count>")
def send(name, first, count):
    """Send numbered messages; tell the position of each, or None where nobody knows."""
    positions = []
    for number in range(first, first + count):
        try:
            positions.append(websocket.to("chaos").send(f"{name} {number}"))
        except BackplaneUnavailable:
            positions.append(None)
    return jsonify(positions)
