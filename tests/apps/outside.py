"""Rooms that processes which serve nobody publish to: scripts, mules, spoolers."""

import os

from flask import request

from flask_uwsgi_websocket import Publisher
from tests.apps.kit import make_app, make_extension

try:
    import uwsgi
except ImportError:  # the commands load it, too
    uwsgi = None

app = make_app("outside")
websocket = make_extension(app)


@websocket.identify
def who():
    return request.args.get("user") or None


@websocket.route("/room/<name>")
async def room(ws, name):
    await ws.join(name)
    await ws.send(f"{os.getpid()}")
    async for _ in ws:
        pass


@app.get("/mule/<text>")
def to_mule(text):
    uwsgi.mule_msg(text.encode())
    return "told"


@app.get("/spool/<text>")
def spool(text):
    uwsgi.spool({b"text": text.encode()})
    return "spooled"


def spooled(arguments):
    text = arguments[b"text"].decode()
    with Publisher.from_config(app.config) as rooms:
        rooms.to("lobby").send(f"publisher {text}")
    websocket.to("lobby").send(f"extension {text}")
    return uwsgi.SPOOL_OK


if uwsgi:
    uwsgi.spooler = spooled
