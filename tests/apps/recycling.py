"""Work of a worker that is replaced: WebSockets, and requests that take their time."""

import asyncio
import mmap
import os
import time

from flask import Response, request

from tests.apps.kit import ASYNC, make_app, make_extension, sleep

app = make_app(__name__)
websocket = make_extension(app)
taken = []


def nap(seconds):
    if ASYNC:
        from flask_uwsgi_websocket import run_coroutine

        run_coroutine(asyncio.sleep(seconds))
    else:
        time.sleep(seconds)


@websocket.route("/worker")
async def worker(ws):
    """Say which process this is, then take as many MiB as each message says."""
    await ws.send(str(os.getpid()))
    async for message in ws:
        how, megabytes = message.split()
        taken.append(mmap.mmap(-1, int(megabytes) << 20))
        if how == "use":
            taken[-1].write(b"x" * len(taken[-1]))


@websocket.route("/sleep")
async def sleeper(ws):
    await ws.send(str(os.getpid()))
    await sleep(60)


@app.get("/slow")
def slow():
    nap(2.5)
    return "slow"


@app.get("/stream")
def stream():
    def numbers():
        for number in range(5):
            nap(0.5)
            yield str(number)

    return Response(numbers())


@app.post("/upload")
def upload():
    return request.get_data()
