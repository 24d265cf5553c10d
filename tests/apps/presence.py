"""Rooms that know who is in them, on several workers; what the app is told goes to a file."""

import os
import time

from flask import jsonify, request

from flask_uwsgi_websocket import Room
from flask_uwsgi_websocket.rooms.redis import occupancy
from tests.apps.kit import make_app, make_extension

app = make_app("presence")
websocket = make_extension(app)
if app.config.get("TEST_HASTE"):
    occupancy.RENEW_EVERY, occupancy.DEAD_AFTER = 1.0, 8.0
websocket.room("grace/*", presence=Room.presence(grace=app.config.get("TEST_GRACE", 3)))
websocket.room("long/*", presence=Room.presence(grace=120))
websocket.room("edge/*", presence=Room.presence(grace=0))
websocket.room("seats/*", presence=Room.presence(grace=60), max_members=3)


@websocket.identify
def who_is_it():
    return request.args.get("user")


@websocket.route("/member/<path:room>")
async def member(ws, room):
    """Join, and tell that; then join again with each message as info."""
    await ws.join(room, info=request.args.get("info"))
    await ws.send(f"joined {os.getpid()}")
    async for msg in ws:
        await ws.join(room, info=msg)


@app.get("/who/<path:room>")
def who(room):
    members = websocket.who(room)
    return jsonify(
        members={each.user: [each.info, each.connections] for each in members},
        count=websocket.count(room),
        complete=members.complete,
        pid=os.getpid(),
    )


def note(what, room, user=""):
    """Write a line, of which none is lost or mixed with others."""
    line = f"{time.time():.3f} {what} {room} {user} {os.getpid()}\n"
    file = os.open(app.config["TEST_LOG"], os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


@websocket.on_join("*")
async def joined(room, member):
    note("join", room, member.user)


@websocket.on_leave("*")
async def left(room, member):
    note("leave", room, member.user)


@websocket.on_room_empty("*")
async def emptied(room):
    note("empty", room)
