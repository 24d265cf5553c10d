"""An app with background work."""

import os
import threading
import time

from flask import got_request_exception, has_app_context, has_request_context

from tests.apps.kit import make_app, make_extension, record, sleep

app = make_app(__name__)
websocket = make_extension(app)


def tell(what):
    # In one write: several workers share the log.
    os.write(2, f"<{what} {os.getpid()}>\n".encode())


@websocket.on_worker_start
async def ticks():
    process = app.wsgi_app.engine.process
    tell("worker {} of {}-{} is".format(process.worker_id(), *process.instance()))
    tell("started")
    try:
        while True:
            await websocket.sleep(0.02)
            websocket.send_to_all(f"tick {os.getpid()}")
    finally:
        time.sleep(float(os.environ.get("TEST_END_TIME", "0")))
        tell("ended")


@websocket.on_worker_start(once=True)
async def feed():
    tell("elected")
    while not websocket.stopping:
        await websocket.sleep(0.02)


@websocket.on_worker_start(once=True)
async def second_feed():
    tell("also")


@got_request_exception.connect_via(app)
def signalled(sender, exception):
    tell("signalled")


@websocket.route("/ticks")
async def wait_for_ticks(ws):
    await ws.receive()


async def work(token, *, by):
    await websocket.sleep(0.01)
    record(token, by=by, contexts=[has_app_context(), has_request_context()])


async def fail():
    raise ValueError("in the background")


async def go_on():
    while True:
        try:
            while True:
                await sleep(0.05)
        except BaseException:
            pass


@app.get("/view/<token>")
async def start_from_view(token):
    websocket.start_background_task(work, token, by="view")
    return "started"


@websocket.route("/handler/<token>")
async def start_from_handler(ws, token):
    websocket.start_background_task(work, token, by="handler")
    await ws.receive()


@app.get("/thread/<token>")
async def start_from_thread(token):
    def start():
        websocket.start_background_task(work, token, by="thread")

    thread = threading.Thread(target=start)
    thread.start()
    return "started"


@app.get("/slow")
async def slow():
    await sleep(30)
    return "slow"


released = []


@websocket.route("/sleep")
async def sleep_until_released(ws):
    while not released:
        await websocket.sleep(0.2)
    await ws.send("released")


@app.get("/release")
def release():
    released.append(True)
    return "released"


@app.get("/fail")
async def start_failing():
    websocket.start_background_task(fail)
    return "started"


@app.get("/go_on")
async def start_stubborn():
    websocket.start_background_task(go_on)
    return "started"


if "TEST_EARLY" in os.environ:
    websocket.start_background_task(work, "early", by="import")
