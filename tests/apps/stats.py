"""What is counted, as the app sees it in whichever worker is asked."""

import os
import time

from flask import Flask, jsonify
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from tests.apps.kit import make_app, make_extension

app = make_app("stats")
websocket = make_extension(app)
#: Served by the same extension, and counted by itself.
other = Flask("other")
websocket.init_app(other)
websocket.app = app  # for what is asked outside of both
app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/other": other.wsgi_app})


@websocket.route("/echo")
@websocket.route("/echo/<name>")
async def echo(ws, name=""):
    """Say who serves, then send back what comes."""
    await ws.send(str(os.getpid()))
    async for msg in ws:
        await ws.send(msg)


@websocket.route("/fail")
async def fail(ws):
    raise LookupError(await ws.receive())


@websocket.route("/block")
async def block(ws):
    """Keep the worker busy, and its loop too where it has one, until a file is there."""
    path, end = await ws.receive(), time.monotonic() + 60
    while time.monotonic() < end and not os.path.exists(path):
        pass
    await ws.send("done")


@app.get("/stats")
@other.get("/stats")
def stats():
    return jsonify(asked=os.getpid(), **websocket.stats())


@app.get("/child")
def child():
    """What a child sees, which is no worker."""
    pid = os.fork()
    if not pid:
        try:
            with open(f"child-{os.getpid()}", "w") as told:
                told.write(app.json.dumps(websocket.stats()))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    with open(f"child-{pid}") as told:
        return app.response_class(told.read(), mimetype="application/json")
