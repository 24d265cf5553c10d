"""Messages to rooms, for what the clients of one worker get of them, and when."""

import json

from flask import request

from tests.apps.kit import make_app, make_extension, os_thread

#: What makes a message long enough to be compressed.
LONG = " and more" * 20

app = make_app(__name__)
websocket = make_extension(app)
for slow in ("close", "latest", "drop-oldest"):
    websocket.room(f"{slow}/*", slow=slow)


@websocket.route("/room/<path:room>")
@websocket.route("/compressed/<path:room>", compression=True)
async def join(ws, room):
    await ws.join(room)
    await ws.send(ws.id)
    while (msg := await ws.receive()) is not None:
        await ws.send(msg)


@websocket.route("/in-order/<room>/<int:count>")
@websocket.route("/in-order-compressed/<room>/<int:count>", compression=True)
async def in_order(ws, room, count):
    """Sends directly, and by way of the room, in turn."""
    await ws.join(room)
    await ws.receive()
    for number in range(count):
        await ws.send(f"direct {number}{LONG}")
        for part in range(3):
            await websocket.to(room).send(f"room {number}.{part}{LONG}")
        await ws.send(f"direct again {number}{LONG}")
    await ws.receive()


@app.post("/publish/<path:room>/<int:count>")
def publish(room, count):
    """Have threads send so many numbered messages each to the room."""
    size, threads = int(request.args.get("size", 1)), int(request.args.get("threads", 1))
    first = int(request.args.get("first", 0))
    target = websocket.to(room, exclude=request.args.getlist("exclude"))

    def run(name):
        for number in range(first, first + count):
            target.send_nowait(json.dumps([name, number]).ljust(size))

    for name in range(threads):
        os_thread(run, name)
    return ""


@app.post("/bytes/<room>")
def publish_bytes(room):
    for data in ("caf\xe9".encode(), b"\xff"):
        websocket.to(room).send(data)
    return ""


@app.post("/close/<path:room>")
def close(room):
    websocket.to(room).close(4001, "over")
    return ""


@app.get("/figures")
def figures():
    return websocket._rooms.of(app).snapshot()
