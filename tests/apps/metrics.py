"""Figures: routes that do what a test counts, and the views that show it."""

import os

from tests.apps.kit import make_app, make_extension

app = make_app("metrics")
websocket = make_extension(app)
app.add_url_rule("/metrics", view_func=websocket.metrics_view)


@websocket.route("/echo", endpoint="echo")
@websocket.route("/visit", endpoint="visit")
async def echo(ws):
    """Tell who serves, then send back what comes."""
    await ws.send(str(os.getpid()))
    async for message in ws:
        await ws.send(message)


@websocket.route("/fail")
async def fail(ws):
    await ws.receive()
    raise ValueError("raised on purpose")


@websocket.route("/room/<name>")
async def room(ws, name):
    await ws.join(name)
    await ws.send("joined")
    async for message in ws:
        await websocket.to(name).send(message)
