"""Clients that join rooms, leave them in every way there is, and are sent to from anywhere."""

import gc
import os
import time

from flask import jsonify, request

from flask_uwsgi_websocket import ConnectionClosed
from tests.apps.kit import ASYNC, make_app, make_extension, os_thread, record, sleep, spawn

app = make_app(__name__)
websocket = make_extension(app)


@websocket.identify
def who_is_it():
    return request.args.get("user")


@websocket.route("/join/<room>")
async def chat(ws, room):
    await ws.join(room)
    await ws.send(ws.user or "")
    while (msg := await ws.receive()) is not None:
        await ws.to(room).send(msg)


@websocket.route("/lazy/<room>", lazy=True)
async def lazy(ws, room):
    await ws.join(room)
    await ws.receive()


@websocket.route("/end/<how>")
async def end(ws, how):
    """A handler that ends, or is left, in each way."""
    await ws.join("ends")
    await ws.join("others")
    await ws.send("joined")
    if how == "returns":
        return
    if how == "raises":
        raise ConnectionClosed(1006)
    if how == "closes":
        await ws.close(4000)
    while await ws.receive() is not None:
        pass


@websocket.route("/late/<token>")
async def late(ws, token):
    """Joins when it has ended, from its handler and from another task."""
    while await ws.receive() is not None:
        pass
    await fails_to_join(ws, token)
    spawn(after_release, ws, token)


async def after_release(ws, token):
    while ws.fd != -1:
        await sleep(0.01)
    await fails_to_join(ws, token)


async def fails_to_join(ws, token):
    error = None
    try:
        await ws.join("late")
    except ConnectionClosed as closed:
        error = closed.code
    record(token, error=error, rooms=list(ws.rooms))


@websocket.route("/many/<int:rooms>")
async def many(ws, rooms):
    """Joins and leaves rooms, each of another name."""
    while (name := await ws.receive()) is not None:
        for number in range(rooms):
            await ws.join(f"{name}/{number}")
        for number in range(rooms):
            await ws.leave(f"{name}/{number}")
        await ws.send("done")


@websocket.route("/fork/<token>")
async def fork(ws, token):
    """Sends from a child, which has rooms of its own and leaves its parent's alone."""
    await ws.join("forked")
    await ws.send("ready")
    await ws.receive()
    child = os.fork()
    if not child:
        code = 1
        try:
            live = websocket._rooms.of(app)._live
            code = 2 if live or ws.rooms else 0
            websocket.to("forked").send("from the child")
            if ASYNC:  # nobody can wait in there, but what was sent goes out
                time.sleep(1)
        finally:
            os._exit(code)
    record(token, status=os.waitpid(child, 0)[1], rooms=list(ws.rooms))
    await websocket.to("forked").send("from the parent")
    await ws.receive()


@app.get("/send/<room>/<text>")
def send(room, text):
    websocket.to(room).send(text)
    return ""


@app.get("/user/<user>/<text>")
def send_to_user(user, text):
    websocket.to_user(user).send(text)
    return ""


@app.get("/thread/<room>/<text>")
def send_from_thread(room, text):
    os_thread(websocket.to(room).send, text)
    return ""


@app.get("/task/<room>/<text>")
def send_from_task(room, text):
    websocket.start_background_task(in_background, room, text)
    return ""


async def in_background(room, text):
    await websocket.to(room).send(text)
    websocket.to(room).send_nowait(f"{text} as well")


@app.get("/close/<room>")
def close(room):
    websocket.to(room).close(4001, "over")
    return ""


@app.get("/rooms")
def rooms():
    return jsonify({room: count[:2] for room, count in websocket.rooms().items()})


@app.get("/left")
def left():
    """What a membership still has: nobody, once all have gone."""
    gc.collect()
    live = websocket._rooms.of(app).live()
    membership = live.membership
    return jsonify(
        members=len(membership._members),
        joined=len(membership._joined),
        channels=len(live.exchange._subscriptions),
    )


@app.get("/time/<room>")
def take_time(room):
    began = time.perf_counter()
    for _ in range(100):
        websocket.to(room).send("x")
    return f"{(time.perf_counter() - began) * 10:.3f} ms"
