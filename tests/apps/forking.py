"""Handlers and views that start child processes."""

import contextlib
import multiprocessing
import os
import subprocess
import sys
import time

from flask import jsonify

from tests.apps.kit import make_app, make_extension, sleep

app = make_app(__name__)
websocket = make_extension(app)

fork = multiprocessing.get_context("fork")
children = {}


def start_child():
    """A child that lives, and waits as its parent's requests do, until somebody terminates it."""
    child = fork.Process(target=time.sleep, args=(60,))
    child.start()
    children[child.pid] = child
    return child.pid


@app.get("/pid")
def pid():
    return str(os.getpid())


@app.get("/identity")
def identity():
    process = app.wsgi_app.engine.process
    out, into = os.pipe()
    child = os.fork()
    if not child:
        os.write(into, f"{process.worker_id()} {process.instance()}".encode())
        os._exit(0)
    told = [f"{process.worker_id()} {process.instance()}", os.read(out, 100).decode()]
    os.close(out)
    os.close(into)
    return told


@app.get("/child")
def child():
    return str(start_child())


@app.get("/terminate/<int:pid>")
def terminate(pid):
    began = time.monotonic()
    child = children.pop(pid)
    child.terminate()
    child.join(10)
    code, took = child.exitcode, time.monotonic() - began
    with contextlib.suppress(ProcessLookupError):
        child.kill()
    return jsonify(code=code, took=took)


#: A line for each sleep that has ended, in whichever process.
sleepers, told = os.pipe()


@app.get("/sleep")
async def sleep_in_view():
    await sleep(1)
    os.write(told, str(os.getpid()).encode())
    return str(os.getpid())


@app.get("/sleepers")
def show_sleepers():
    return os.read(sleepers, 4096)


@websocket.route("/sleep")
async def sleep_in_handler(ws):
    await sleep(1)
    os.write(told, str(os.getpid()).encode())
    await ws.send(str(os.getpid()))


@app.get("/fork/<how>")
def fork_in_view(how):
    pid = os.fork()
    if not pid:
        if how == "raises":
            raise ValueError("in the child")
        if how == "exits":
            sys.exit(3)
        return "from the child"
    return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


@websocket.route("/echo")
async def echo(ws):
    async for msg in ws:
        await ws.send(f"{os.getpid()} {msg}")


@websocket.route("/child")
async def child_of_handler(ws):
    await ws.send(str(start_child()))
    async for msg in ws:
        await ws.send(f"{os.getpid()} {msg}")


@websocket.route("/popen")
async def popen(ws):
    began = time.monotonic()
    program = subprocess.Popen(["sleep", "60"])
    program.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        program.wait(10)
    await ws.send_json({"code": program.returncode, "took": time.monotonic() - began})
    program.kill()


@websocket.route("/fork/<how>")
async def fork_in_handler(ws, how):
    pid = os.fork()
    if not pid:
        if how == "sends":
            await ws.send("from the child")
        elif how == "closes":
            await ws.close(4000)
        elif how == "receives":
            await ws.receive()
        elif how == "raises":
            raise ValueError("in the child")
        elif how == "sleeps":
            await sleep(0.01)
        elif how == "yields":
            await sleep(0)
        elif how == "exits":
            sys.exit(3)
        elif how == "_exits":
            os._exit(3)
        return
    _, status = os.waitpid(pid, 0)
    await ws.send(str(os.waitstatus_to_exitcode(status)))
    async for msg in ws:
        await ws.send(f"{os.getpid()} {msg}")
