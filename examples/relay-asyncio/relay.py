r"""A relay on asyncio: each WebSocket is joined to a TCP connection of its own, and waits for both.

Start it from the repository's root, then talk to whatever listens on RELAY_TO::

    python examples/relay-asyncio/relay.py

or let uWSGI start it itself, as you would in production::

    uwsgi --master --http localhost:5000 --http-websockets --http-buffer-size 32768 \
        --processes 2 --asyncio 100 --greenlet --chdir examples/relay-asyncio --wsgi relay:app

Two tasks wait, one for each connection; whichever ends first ends the other. RELAY_TO names the
service, as in RELAY_TO=localhost:6379 for Redis; PORT=8080 another port for the relay.
"""

import asyncio
import os

from flask import Flask, abort

from flask_uwsgi_websocket import AsyncioWebSocket, ConnectionClosed

app = Flask(__name__)
websocket = AsyncioWebSocket(app)

HOST, _, SERVICE_PORT = os.environ.get("RELAY_TO", "localhost:6379").partition(":")


@app.route("/")
def index():
    return f"ws://.../relay speaks to {HOST}:{SERVICE_PORT}: try flask websocket echo /relay\n"


# Lazy: the handshake waits until ws is used, so that the client may be refused with HTTP.
@websocket.route("/relay", lazy=True)
async def relay(ws):
    try:
        opening = asyncio.open_connection(HOST, SERVICE_PORT)
        reader, writer = await asyncio.wait_for(opening, timeout=0.9)
    except (OSError, asyncio.TimeoutError) as error:
        app.logger.error("No service at %s:%s: %r", HOST, SERVICE_PORT, error)
        abort(502)
    tasks = [
        asyncio.create_task(pass_in(ws, writer)),
        asyncio.create_task(pass_on(reader, ws)),
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        writer.close()


async def pass_in(ws, writer):
    try:
        async for message in ws:
            writer.write(message.encode() if isinstance(message, str) else message)
            await writer.drain()  # waits for a service that reads slowly, and so the client waits
    except OSError:
        pass  # the service has gone: pass_on has noticed, and closes


async def pass_on(reader, ws):
    try:
        while data := await reader.read(65536):
            await ws.send(data)
        await ws.close()
    except ConnectionClosed:
        pass
    except OSError:
        await ws.close(1011, "the service broke off")


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")), asyncio=100, processes=2)
