"""Routes whose clients may send so and so much, or open so and so many connections."""

import os
from contextlib import suppress
from functools import wraps

from flask import abort, jsonify, request

from tests.apps.kit import make_app, make_extension, record, sleep

app = make_app(__name__)
websocket = make_extension(app)

#: At a time, and within half a second.
QUICK = (10, 0.5)
#: The bucket is empty for good, as far as a test goes, when it is.
SLOW = (1, 3600)


async def receive(ws):
    return await ws.receive()


async def receive_with_timeout(ws):
    return await ws.receive(timeout=60)


async def iterate(ws):
    async for msg in ws:
        return msg
    return None


async def poll(ws):
    while True:
        msg = ws.recv_nb()
        if msg is None or len(msg):
            return msg
        await sleep(0.01)


ways = {way.__name__: way for way in (receive, receive_with_timeout, iterate, poll)}


@websocket.route("/quick/<way>", max_rate=QUICK, compression=True)
async def quick(ws, way):
    """Tell the client how large each of its messages is."""
    while (msg := await ways[way](ws)) is not None:
        await ws.send(str(len(msg)))


@websocket.route("/slow/<token>", max_rate=SLOW)
async def slow(ws, token):
    """Tell how the connection has ended."""
    while (msg := await ws.receive()) is not None:
        await ws.send(msg)
    record(token, code=ws.close_code, reason=ws.close_reason)


@websocket.route("/slow/timeout", max_rate=SLOW)
async def slow_with_timeout(ws):
    """Wait in vain for the second message, then close."""
    await ws.send(await ws.receive())
    for _ in range(3):
        try:
            await ws.receive(timeout=0.1)
        except TimeoutError:
            await ws.send("none")
    await ws.close(4000)


@websocket.route("/busy", max_rate=QUICK)
async def busy(ws):
    """Be elsewhere at first."""
    await ws.receive()
    await sleep(1)
    while (msg := await ws.receive()) is not None:
        await ws.send(msg)


@websocket.route("/default")
@websocket.route("/any", max_rate=False)
async def echo(ws):
    while (msg := await ws.receive()) is not None:
        await ws.send(msg)


@websocket.identify
def user():
    return request.args.get("user")


def refusing(handler):
    """Refuse those who say so, before the handler runs."""

    @wraps(handler)
    def wrapper(*args, **kwargs):
        if "refused" in request.args:
            abort(403)
        return handler(*args, **kwargs)

    return wrapper


@app.after_request
def refuse_late(response):
    if "refused-late" in request.args:
        response.status_code = 403
    return response


@websocket.route("/three", max_connections=3)
async def three(ws):
    while (msg := await ws.receive()) is not None:
        await ws.send(f"{os.getpid()} {msg}")


@websocket.route("/three/decorated", max_connections=3)
@refusing
async def decorated(ws):
    await ws.send("hello")
    await ws.receive()


@websocket.route("/three/heedless", max_connections=3)
async def heedless(ws):
    """Go on after the end."""
    await ws.receive()
    with suppress(ConnectionError):
        await sleep(0.5)


@app.get("/refused")
def refused():
    """How many connections the worker that answers has refused."""
    routes = websocket._metrics.snapshot()["routes"]
    return jsonify({name: route["refused"] for name, route in routes.items()})
