"""The worker's loop as what else runs in a worker uses it, and frames pushed to connections."""

import os
from functools import partial

from flask_uwsgi_websocket.codec import encode_message
from tests.apps.kit import make_app, make_extension, os_thread, record, sleep

#: What makes a message long enough to be compressed.
LONG = " " * 200

app = make_app(__name__)
websocket = make_extension(app)


@websocket.route("/in-order/<token>")
async def in_order(ws, token):
    worker = ws._connection.worker
    seen = []

    def call(count):
        for number in range(count):
            worker.call_soon(partial(seen.append, number))
        worker.call_soon(lambda: seen.append(worker.on_loop()))

    os_thread(call, 1000)
    while len(seen) <= 1000:
        await sleep(0.01)
    os_thread(worker.call_later, 0.1, partial(seen.append, "later"))
    worker.call_soon(partial(seen.append, "soon"))
    while "later" not in seen:
        await sleep(0.01)
    record(token, in_order=seen[:1000] == list(range(1000)), then=seen[1000:])


@websocket.route("/pipe/<token>/<kind>")
async def pipe(ws, token, kind):
    worker = ws._connection.worker
    seen = []
    ends = readable, writable = os.pipe2(os.O_NONBLOCK)

    def read():
        seen.append((os.read(readable, 1).decode(), worker.on_loop()))

    def write():
        seen.append(("room", worker.on_loop()))
        worker.unwatch(writable)

    async def see(count):
        while len(seen) < count:
            await sleep(0.01)
        await sleep(0.05)  # nothing more comes

    def do(*calls):
        for call in calls:
            call()

    call = do if kind == "here" else partial(os_thread, do)
    call(partial(worker.watch, readable, read))
    os.write(writable, b"ab")
    await see(2)
    call(partial(worker.watch, writable, None, write))
    await see(3)
    call(partial(worker.unwatch, readable), partial(worker.call_soon, partial(seen.append, "over")))
    await see(4)
    os.write(writable, b"c")
    await see(4)
    for end in ends:
        os.close(end)
    record(token, seen=seen)


@websocket.route("/pushed/<int:count>")
@websocket.route("/pushed-compressed/<int:count>", compression=True)
async def pushed(ws, count):
    """Sends and pushes in turn, and has another thread push meanwhile."""
    connection = ws._connection

    def push():
        for number in range(count):
            connection.push(encode_message(f"other {number}" + LONG))

    await ws.receive()
    os_thread(push)
    for number in range(count):
        if number % 3:
            assert connection.push(encode_message(f"{number}" + LONG))
        else:
            await ws.send(f"{number}" + LONG)
    await ws.receive()


@websocket.route("/burst/<token>/<int:count>/<int:size>")
async def burst(ws, token, count, size):
    """Pushes to everybody, faster than the loop has a turn."""
    await ws.send("ready")
    if await ws.receive() is None:
        return
    alive = [client._connection for client in websocket.clients]
    for _ in range(count):
        frames = encode_message("x" * size)
        alive = [connection for connection in alive if connection.push(frames)]
    record(token, alive=len(alive), all=len(websocket.clients))
    await ws.receive()


@websocket.route("/drained/<token>")
async def drained(ws, token):
    """Tells when its queue is half empty again; the client reads when the queue is full."""
    connection = ws._connection
    seen = []
    connection.on_drained(partial(seen.append, "at once"))
    frames = encode_message("x" * 65536)
    count = 0
    while not connection.congested:
        connection.push(frames)
        count += 1
        await sleep(0.001)
    connection.on_drained(lambda: seen.append(connection.congested))
    connection.on_drained(lambda: connection.push(encode_message("drained")))
    record(token, seen=seen, count=count)
    await ws.receive()
    record(token, seen=seen)


@websocket.route("/flood/<token>")
async def flood(ws, token):
    """Pushes until that is refused; the client does not read."""
    connection = ws._connection
    count = 0
    frames = encode_message(bytes(65536))
    while connection.push(frames):
        count += 1
        await sleep(0.001)
    record(token, pushed=count, code=ws.close_code, again=connection.push(frames))
