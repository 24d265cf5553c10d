"""Handlers that outlive their requests, and look at what those have left."""

import asyncio
import sys
import time
from contextlib import suppress
from contextvars import ContextVar

import uwsgi
from flask import Response, g, request, stream_with_context
from werkzeug.exceptions import ClientDisconnected
from werkzeug.wsgi import ClosingIterator

from tests.apps.kit import make_app, make_extension, record

app = make_app(__name__)
websocket = make_extension(app)


@app.before_request
def use_uwsgi():
    # As an app may, of the request that runs here.
    uwsgi.set_logvar("path", request.path)
    g.descriptor = uwsgi.connection_fd()


@app.teardown_request
def end(error):
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


@websocket.route("/refuses", lazy=True)
async def refuses(ws):
    caller.set(request.path)
    assert request.stream  # is kept by Flask, whatever becomes of wsgi.input
    return Response((str(number) for number in range(3)), 403)


@websocket.route("/look")
async def look(ws):
    async for _ in ws:
        facts = {"host": ws.environ["HTTP_HOST"], "agent": request.headers.get("User-Agent")}
        facts["input"] = request.environ["wsgi.input"].read().decode()
        facts["descriptor"] = g.descriptor >= 0
        await ws.send_json(facts)


@app.post("/body")
def body():
    return request.get_data()
        with suppress(ClientDisconnected):  # it has announced a body that does not come
            facts["input"] += request.stream.read().decode()
