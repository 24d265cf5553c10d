"""Handlers that go on as if their connection had not ended."""

import contextlib

from tests.apps.kit import ASYNC, make_app, make_extension, record, sleep

app = make_app(__name__)
websocket = make_extension(app)


async def receive(ws):
    return await ws.receive()


async def receive_with_timeout(ws):
    return await ws.receive(timeout=60)


async def receive_json(ws):
    return await ws.receive_json()


async def iterate(ws):
    async for msg in ws:
        return msg
    return None


async def poll(ws):
    msg = ws.recv_nb()
    if ASYNC:
        await sleep(0)
    return msg


ways = {way.__name__: way for way in (receive, receive_with_timeout, receive_json, iterate, poll)}


@websocket.route("/heedless/<way>/<token>")
async def heedless(ws, way, token):
    nones = 0
    try:
        while True:
            msg = await ways[way](ws)
            if not msg:
                nones += msg is None
                continue
            await ws.send(str(msg))
    except Exception as error:
        record(token, nones=nones, error=type(error).__name__)
        raise


@websocket.route("/timeout-zero")
async def timeout_zero(ws):
    """Poll, with a receive that may not wait."""
    while True:
        with contextlib.suppress(TimeoutError):
            msg = await ws.receive(timeout=0)
            if msg is None:
                break
            await ws.send(msg)


@websocket.route("/swallow/<way>")
async def swallow(ws, way):
    while True:
        try:
            msg = await ways[way](ws)
            if msg:
                await ws.send(str(msg))
        except Exception:
            continue


@websocket.route("/send-for-ever")
async def send_for_ever(ws):
    await ws.receive()
    await ws.receive()
    while True:
        with contextlib.suppress(Exception):
            await ws.send("x")


@websocket.server("/server")
class Swallowing:
    def __init__(self, ws):
        self.ws = ws

    def on_open(self):
        pass

    def on_message(self, message):
        self.ws.send(message)

    def on_close(self):
        while True:
            try:
                self.ws.client.recv_nb()
            except Exception:
                break
