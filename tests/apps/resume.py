"""Clients that get envelopes beside clients that do not, in rooms that are plain and kept."""

import os

from flask import jsonify, request

from flask_uwsgi_websocket import Room
from flask_uwsgi_websocket.rooms.envelope import Enveloped
from tests.apps.kit import make_app, make_extension

app = make_app("resume")
websocket = make_extension(app)


websocket.room("kept/*", history=True)
websocket.room("long/*", history=Room.history(count=1000))
websocket.room("short/*", history=Room.history(count=3))
app.add_url_rule("/rooms.js", view_func=websocket.client_js)


@app.get("/")
def page():
    return (
        '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">'
        '<script type="module">'
        'import * as rooms from "/rooms.js"; globalThis.rooms = rooms'
        "</script>"
    )


@app.before_request
def refuse():
    """Refuse whoever asks for it, as a session that has ended would be."""
    if request.args.get("token") == "old":
        return "log in", 401
    return None


@websocket.identify
def who_is_it():
    return request.args.get("user")


async def do(ws, command):
    """Do what a client asks for: sends to itself, or joins and leaves rooms."""
    if isinstance(command, bytes):
        command = command.decode()
    verb, _, rest = command.partition(" ")
    if verb == "text":
        await ws.send(rest)
    elif verb == "bytes":
        await ws.send(rest.encode())
    elif verb == "text-bytes":
        await ws.send(rest.encode(), binary=False)
    elif verb == "nb":
        ws.send_nb(rest)
    elif verb == "json":
        await ws.send_json({"you": rest})
    elif verb == "join":
        await ws.join(rest)
    elif verb == "leave":
        ws.leave(rest)
    elif verb == "others":
        room, _, message = rest.partition(" ")
        await ws.to(room).send(message)
    elif verb == "room":
        room, _, message = rest.partition(" ")
        await websocket.to(room).send(message)
    elif verb == "close":
        await ws.close(int(rest), "as asked")
    elif verb == "frame":
        await ws.send(Enveloped(rest))
    elif verb == "query":
        await ws.send(ws.environ["QUERY_STRING"])
    elif verb == "pid":
        await ws.send(str(os.getpid()))


@websocket.route("/resume/<path:room>", resume=True, subprotocols=["own.v1"])
async def resume(ws, room):
    await ws.join(room)
    async for command in ws:
        await do(ws, command)


@websocket.route("/lazy/<path:room>", resume=True, lazy=True)
async def lazy(ws, room):
    await ws.send("lazy")
    await ws.receive()


@websocket.route("/plain/<path:room>")
async def plain(ws, room):
    await ws.join(room)
    await ws.send("ready")
    async for command in ws:
        await do(ws, command)


@app.get("/position/<path:room>")
def position(room):
    return websocket.position(room)


@app.post("/forget/<path:room>")
def forget(room):
    websocket.forget(room)
    return "", 204


@app.post("/to/<path:rooms>")
def to(rooms):
    target = websocket.to(*rooms.split(","))
    if request.args.get("user"):
        target = websocket.to_user(request.args["user"])
    elif rooms == "all":
        target = websocket.to_all()
    if request.is_json:
        target.send_json(request.json)
    elif request.args.get("binary"):
        target.send(request.data)
    else:
        target.send(request.data.decode())
    return "", 204


@app.post("/send_to_all")
def send_to_all():
    websocket.send_to_all(request.data if request.args.get("binary") else request.data.decode())
    return "", 204


@app.post("/move/<path:room>/<any(join, leave):verb>/<other>")
def move(room, verb, other):
    getattr(websocket.to(room), verb)(other)
    return jsonify(room)
