"""Handlers that outlive their requests, and look at what those have left."""

import asyncio
import gc
import sys
import time
from contextlib import suppress
from contextvars import ContextVar

import greenlet
import uwsgi
from flask import Response, g, request, stream_with_context
from werkzeug.exceptions import ClientDisconnected
from werkzeug.wsgi import ClosingIterator

from tests.apps.kit import ASYNC, make_app, make_extension, os_thread, record, sleep

app = make_app(__name__)
flask_app = app.wsgi_app


def application(environ, start_response):
    """What is between the extension and Flask, and ends with the response."""

    def close():
        if "leave" in environ["QUERY_STRING"]:
            sys.exit("left at the end, on purpose")

    return ClosingIterator(flask_app(environ, start_response), close)


app.wsgi_app = application
websocket = make_extension(app)
caller = ContextVar("caller", default="nobody")


def nap(seconds):
    if ASYNC:
        from flask_uwsgi_websocket import run_coroutine

        run_coroutine(asyncio.sleep(seconds))
    else:
        time.sleep(seconds)


@app.before_request
def use_uwsgi():
    # As an app may, of the request that runs here.
    uwsgi.set_logvar("path", request.path)
    g.descriptor = uwsgi.connection_fd()
    caller.set(request.path)
    assert request.stream  # is kept by Flask, whatever becomes of wsgi.input


@app.teardown_request
def end(error):
    if "slow" in request.args:
        nap(1)
        print("slow end of", request.args["slow"], flush=True)
    if "teardown" in request.args:
        record(request.args["teardown"], path=request.path)
    if "raise" in request.args:
        raise ValueError("raised at the end, on purpose")


@websocket.route("/echo")
async def echo(ws):
    async for message in ws:
        await ws.send(message)


@websocket.route("/lazy", lazy=True)
async def lazy(ws):
    async for message in ws:
        await ws.send(message)


@websocket.route("/hesitates", lazy=True)
async def hesitates(ws):
    await sleep(0.5)
    await ws.receive()


@websocket.route("/refuses", lazy=True)
async def refuses(ws):
    return Response((str(number) for number in range(3)), 403)


@websocket.route("/refuses-in-context", lazy=True)
async def refuses_in_context(ws):
    return Response(stream_with_context(facts()), 403)


@app.get("/in-context")
def in_context():
    return Response(stream_with_context(facts()))


def facts():
    nap(0.01)
    yield f"{caller.get()} {request.path}"


@websocket.route("/thread", lazy=True)
async def thread(ws):
    os_thread(ws.send_nb, "from a thread")
    await sleep(0.2)
    await ws.send(await ws.receive())


@websocket.route("/look")
async def look(ws):
    async for _ in ws:
        facts = {"host": ws.environ["HTTP_HOST"], "agent": request.headers.get("User-Agent")}
        facts["input"] = request.environ["wsgi.input"].read().decode()
        with suppress(ClientDisconnected):  # it has announced a body that does not come
            facts["input"] += request.stream.read().decode()
        facts["descriptor"] = g.descriptor >= 0
        await ws.send_json(facts)


@app.get("/dead-greenlets")
def dead_greenlets():
    found = [it for it in gc.get_objects() if isinstance(it, greenlet.greenlet) and it.dead]
    return str(len(found))


@app.post("/body")
def body():
    return request.get_data()
