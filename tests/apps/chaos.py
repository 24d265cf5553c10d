"""A kept room, for clients that resume, and those that send to it."""

from __future__ import annotations

from flask import jsonify

from flask_uwsgi_websocket import BackplaneUnavailable, Room
from flask_uwsgi_websocket.rooms.envelope import positions_of
from tests.apps.kit import make_app, make_extension

app = make_app("chaos")
websocket = make_extension(app)
websocket.room("chaos", history=Room.history(count=10_000, seconds=300))


@websocket.route("/chaos", resume=True)
async def chaos(ws):
    """Have a client in the room, and send there what it says."""
    try:
        since = positions_of(ws.environ["QUERY_STRING"]).get("chaos")
        await ws.join("chaos", since=since)
        async for text in ws:
            await websocket.to("chaos").send(text)
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
