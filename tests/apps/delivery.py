"""Records delivered to the clients of a worker, as a backplane would bring them."""

import json

from flask import request

from flask_uwsgi_websocket.rooms.delivery import Delivery
from flask_uwsgi_websocket.rooms.options import RoomPatterns
from flask_uwsgi_websocket.rooms.record import Kind, Record
from tests.apps.kit import make_app, make_extension, os_thread, record, sleep

#: What makes a message long enough to be compressed.
LONG = " and more" * 20

app = make_app(__name__)
websocket = make_extension(app)


class Members:
    """Who is in which channel."""

    def __init__(self):
        self.channels = {}

    def members(self, channel):
        return list(self.channels.get(channel, ()))

    def join(self, connection, room):
        self.channels.setdefault(f"room:{room}", {})[connection] = None

    def leave(self, connection, room):
        self.channels[f"room:{room}"].pop(connection)


members = Members()
patterns = RoomPatterns()
for slow in ("latest", "drop-oldest"):
    patterns.add(f"{slow}/*", slow=slow)
deliveries = []


def delivery(ws):
    if not deliveries:
        deliveries.append(Delivery(members, patterns, ws._connection.worker))
    return deliveries[0]


def message(room, text, exclude=()):
    return Record(Kind.MESSAGE, (f"room:{room}",), text.encode(), True, tuple(exclude))


@websocket.route("/room/<path:room>")
@websocket.route("/compressed/<path:room>", compression=True)
async def join(ws, room):
    delivery(ws)
    connection = ws._connection
    members.join(connection, room)
    connection.on_release(lambda: members.leave(connection, room))
    await ws.send(ws.id)
    while (msg := await ws.receive()) is not None:
        await ws.send(msg)


@websocket.route("/in-order/<room>/<int:count>")
@websocket.route("/in-order-compressed/<room>/<int:count>", compression=True)
async def in_order(ws, room, count):
    """Sends directly, and by way of the room, in turn; the handler has others to answer."""
    await ws.receive()
    connection = ws._connection
    members.join(connection, room)
    connection.on_release(lambda: members.leave(connection, room))
    for number in range(count):
        await ws.send(f"direct {number}{LONG}")
        delivered = []
        os_thread(deliver_some, delivery(ws), room, number, delivered)
        while not delivered:
            await sleep(0.001)
        await ws.send(f"direct again {number}{LONG}")
    await ws.receive()


def deliver_some(delivery, room, number, delivered):
    for part in range(3):
        delivery.receive(message(room, f"room {number}.{part}{LONG}"))
    delivery.then(lambda: delivered.append(True))


@app.post("/publish/<path:room>/<int:count>")
def publish(room, count):
    """Have threads receive so many numbered messages each, for the room."""
    size, threads = int(request.args.get("size", 1)), int(request.args.get("threads", 1))
    first = int(request.args.get("first", 0))
    exclude = request.args.getlist("exclude")

    def run(name):
        for number in range(first, first + count):
            text = json.dumps([name, number]).ljust(size)
            deliveries[0].receive(message(room, text, exclude))
        record(request_token, name=name)

    request_token = request.args["token"]
    for name in range(threads):
        os_thread(run, name)
    return ""


@app.post("/close/<path:room>")
def close(room):
    deliveries[0].receive(Record(Kind.CLOSE, (f"room:{room}",), b"\x0f\xa1over"))
    return ""


@app.get("/counters")
def counters():
    return dict(deliveries[0].counters) if deliveries else {}
