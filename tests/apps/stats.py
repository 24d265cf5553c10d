"""What is counted, as the app sees it in whichever worker is asked."""

import os
import time

from flask import jsonify, request

from tests.apps.kit import make_app, make_extension

app = make_app("stats")
websocket = make_extension(app)


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
    """Keep the worker busy, and its loop too where it has one."""
    seconds = float(await ws.receive())
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    await ws.send("done")


@app.get("/stats")
def stats():
    return jsonify(asked=os.getpid(), **websocket.stats())


@app.get("/child")
def child():
    """What a child sees, which is no worker."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writing, app.json.dumps(websocket.stats()).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        told = answer.read()
    os.waitpid(pid, 0)
    return app.response_class(told, mimetype="application/json")


@app.get("/nap")
def nap():
    time.sleep(float(request.args["seconds"]))
    return "done"
