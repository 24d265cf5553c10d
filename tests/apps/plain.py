"""An app for other servers than uWSGI; TEST_CLASS names the extension's class."""

import os
import signal
import sys
import time

from flask import Flask, request, session

import flask_uwsgi_websocket
from flask_uwsgi_websocket.servers.find import background_engine
from tests.apps import coroutines

ASYNC = os.environ["TEST_CLASS"] == "AsyncioWebSocket"

app = Flask(__name__)
app.secret_key = "x"
websocket = getattr(flask_uwsgi_websocket, os.environ["TEST_CLASS"])(app, timeout=1)


began = []


@app.get("/began")
def show_began():
    return " ".join(sorted(began))


@app.get("/")
def index():
    return "page"


@app.get("/async")
def wait_for_coroutine():
    engine = background_engine(app.wsgi_app.engine_name, request.environ)
    return str(engine.run_async(coroutines.add(1, 2)))


@app.before_request
def deny():
    if "deny" in request.args:
        return "denied", 403
    if "exit" in request.args:
        sys.exit("on purpose")
    session["seen"] = True
    return None


@app.after_request
def answer(response):
    if "header" in request.args:
        response.headers["X-Header"] = request.args["header"]
    return response


if ASYNC:

    @websocket.on_worker_start
    async def begin_each():
        await websocket.sleep(0)
        began.append("each")

    @websocket.on_worker_start(once=True)
    async def begin_once():
        began.append("once")

    @websocket.route("/echo", subprotocols=["v1"])
    async def echo(ws):
        async for msg in ws:
            await ws.send(msg)

    @websocket.route("/push")
    async def push(ws):
        import asyncio

        for number in range(3):
            await asyncio.sleep(0.01)
            await ws.send(f"{request.args['name']} {number}")

    @websocket.route("/lazy", lazy=True)
    async def lazy(ws):
        await ws.send("hello")

    @websocket.route("/raise")
    async def raise_(ws):
        raise ValueError("on purpose")

else:

    @websocket.on_worker_start
    def begin_each():
        websocket.sleep(0)
        began.append("each")

    @websocket.on_worker_start(once=True)
    def begin_once():
        began.append("once")

    @websocket.route("/ctrl-c")
    def ctrl_c(ws):
        """Be what runs when somebody presses it."""
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

    @websocket.route("/echo", subprotocols=["v1"])
    def echo(ws):
        for msg in ws:
            ws.send(msg)

    @websocket.route("/push")
    def push(ws):
        for number in range(3):
            time.sleep(0.01)
            ws.send(f"{request.args['name']} {number}")

    @websocket.route("/lazy", lazy=True)
    def lazy(ws):
        ws.send("hello")

    @websocket.route("/raise")
    def raise_(ws):
        raise ValueError("on purpose")
