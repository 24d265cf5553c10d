"""Rooms over several instances, for who is in them and for what is published to them."""

import json
import os

from flask import jsonify

from flask_uwsgi_websocket import BackplaneUnavailable
from tests.apps.kit import make_app, make_extension

app = make_app(__name__)
websocket = make_extension(app)


@websocket.route("/room/<name>")
async def room(ws, name):
    await ws.join(name)
    await ws.send(f"pid {os.getpid()}")
    while await ws.receive() is not None:
        figures = websocket._rooms.of(app).snapshot()
        await ws.send("figures " + json.dumps(figures))


@app.post("/publish/<name>/<publisher>/<int:first>/<int:count>")
def publish(name, publisher, first, count):
    """Send numbered messages; tell which the backplane did not take."""
    refused = []
    for number in range(first, first + count):
        try:
            websocket.to(name).send(f"{publisher} {number}")
        except BackplaneUnavailable:
            refused.append(number)
    return jsonify(refused)
