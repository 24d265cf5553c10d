"""What people do in `async def` handlers and in the views beside them."""

import asyncio
import functools
import os
import signal
import socket
import sys
import time
from contextvars import ContextVar

import aiohttp
import redis.asyncio
from flask import Blueprint, abort, g, jsonify, request, session, stream_with_context
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user

from flask_uwsgi_websocket import AsyncioWebSocket, run_coroutine
from tests.apps.kit import loop_kind, make_app, make_extension, record

app = make_app(__name__)
websocket = make_extension(app)
AsyncioWebSocket(app)  # a second extension on the same app is not a second loop


# The old API


@websocket.route("/a_names")
async def a_names(ws):
    while True:
        msg = await ws.a_recv()
        if msg is None:
            break
        await ws.a_send(msg)


@websocket.route("/old-names")
async def old_names(ws):
    while ws.connected:
        msg = await ws.recv()
        if msg is not None:
            await ws.send(msg)


@websocket.route("/nb-names/<token>")
async def nb_names(ws, token):
    """Poll, as the README of 0.6 says one should not have to."""
    empty = ws.recv_nb()
    ws.send_nb("ready")
    while (msg := ws.recv_nb()) == "":
        await asyncio.sleep(0.01)
    ws.send_nb(msg)
    await ws.close()
    record(token, empty=empty, connected=ws.connected, end=await ws.receive())


@websocket.route("/anext/<token>")
async def by_anext(ws, token):
    await ws.send(await anext(ws))
    await ws.send(await asyncio.wait_for(anext(ws), 60))
    try:
        await asyncio.wait_for(anext(ws), 0.01)
    except asyncio.TimeoutError:  # TimeoutError itself from Python 3.11 on
        await ws.send("timeout")
    record(token, end=await anext(ws, "end"))


@websocket.route("/kinds")
async def kinds(ws):
    """Which of the old names are coroutine functions."""
    names = ("a_recv", "a_send", "receive", "recv", "send", "close", "recv_nb", "send_nb")
    await ws.send_json([name for name in names if asyncio.iscoroutinefunction(getattr(ws, name))])
    await ws.receive()


# Decorators


def shouting(handler):
    @functools.wraps(handler)
    async def wrapper(ws, **kwargs):
        await ws.send("BEFORE")
        await handler(ws, **kwargs)
        await ws.send("AFTER")

    return wrapper


def passing_on(handler):
    """A plain function around a coroutine function."""

    @functools.wraps(handler)
    def wrapper(*args, **kwargs):
        return handler(*args, **kwargs)

    return wrapper


@websocket.route("/decorated/<name>")
@passing_on
@shouting
async def decorated(ws, name):
    await ws.send(name)


logins = LoginManager(app)


class User(UserMixin):
    def __init__(self, name):
        self.id = name


logins.user_loader(User)


@app.get("/login/<name>")
def login(name):
    login_user(User(name))
    return name


@websocket.route("/members")
@login_required
async def members(ws):
    async for msg in ws:
        await ws.send(f"{current_user.id}: {msg}")


# asyncio's own


@websocket.route("/timeout")
async def timeout(ws):
    if sys.version_info >= (3, 11):
        try:
            async with asyncio.timeout(0.05):
                await ws.receive()
        except TimeoutError:
            await ws.send("timeout")
    else:
        await ws.send("timeout")
    try:
        await asyncio.wait_for(ws.receive(), 0.05)
    except asyncio.TimeoutError:
        await ws.send("wait_for")
    # Nothing was lost by being cancelled.
    while (msg := await ws.receive()) is not None:
        await ws.send(msg)


@websocket.route("/gather")
async def gather(ws):
    async def say(number):
        await asyncio.sleep(0.001 * number)
        await ws.send(str(number))
        return number

    numbers = await asyncio.gather(*(say(number) for number in range(10)))
    await ws.send_json(numbers)
    await ws.receive()


@websocket.route("/taskgroup/<token>")
async def taskgroup(ws, token):
    """A sender beside a receiver."""
    queue = asyncio.Queue()

    async def sender():
        try:
            while True:
                await ws.send(await queue.get())
        except asyncio.CancelledError:
            record(token, sender="cancelled")
            raise

    async with asyncio.TaskGroup() as group:
        sending = group.create_task(sender())
        async for msg in ws:
            queue.put_nowait(msg)
        sending.cancel()


@websocket.route("/taskgroup-that-sends")
async def taskgroup_that_sends(ws):
    """The sender hears of the end first."""

    async def sender():
        while True:
            await ws.send("now")
            await asyncio.sleep(0.01)

    async def receiver():
        async for _ in ws:
            pass
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(sender())
        group.create_task(receiver())


@websocket.route("/to_thread")
async def to_thread(ws):
    def blocking(msg):
        time.sleep(0.05)
        return f"{msg} {request.path} {current_user.is_anonymous}"

    async for msg in ws:
        await ws.send(await asyncio.to_thread(blocking, msg))


@websocket.route("/thread-names")
async def thread_names(ws):
    """What may not be done in a thread, with its reason."""

    async def nothing():
        pass

    def blocking():
        try:
            run_coroutine(nothing())
        except RuntimeError as error:
            return str(error)

    await ws.send(await asyncio.to_thread(blocking))
    try:
        run_coroutine(nothing())
    except RuntimeError as error:
        await ws.send(str(error))
    await ws.receive()


flavour = ContextVar("flavour", default="plain")


@websocket.route("/context/<name>")
async def context(ws, name):
    flavour.set(name)
    g.name = name

    async def beside():
        await asyncio.sleep(0)
        await ws.send_json([request.path, g.name, session.get("user"), flavour.get()])

    await asyncio.create_task(beside())
    await ws.receive()


@websocket.route("/task-that-fails")
async def task_that_fails(ws):
    async def fail():
        raise ValueError("in a task of its own, on purpose")

    await ws.receive()
    await asyncio.create_task(fail())


@websocket.route("/abandoned/<token>")
async def abandoned(ws, token):
    """Busy elsewhere when the client leaves, in a task that it waits for."""

    async def elsewhere():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            record(token, code=ws.close_code)
            raise

    await ws.send("busy")
    await asyncio.create_task(elsewhere())


@websocket.route("/broken-pipe")
async def broken_pipe(ws):
    """Write to a socket whose other end is gone: an exception, and no SIGPIPE."""
    async for _ in ws:
        ours, theirs = socket.socketpair()
        theirs.close()
        try:
            os.write(ours.fileno(), b"x")
        except BrokenPipeError:
            await ws.send(f"broken pipe, {signal.getsignal(signal.SIGPIPE).name}")
        finally:
            ours.close()


# Libraries


@websocket.route("/redis/<channel>")
async def through_redis(ws, channel):
    async with (
        redis.asyncio.from_url(app.config["REDIS_URL"], decode_responses=True) as client,
        client.pubsub(ignore_subscribe_messages=True) as pubsub,
    ):
        await pubsub.subscribe(channel)
        await ws.send("subscribed")

        async def pass_on():
            async for event in pubsub.listen():
                await ws.send(event["data"])

        listening = asyncio.create_task(pass_on())
        try:
            async for msg in ws:
                await client.publish(channel, msg)
        finally:
            listening.cancel()


@websocket.route("/aiohttp")
async def through_aiohttp(ws):
    async with aiohttp.ClientSession() as client:
        async for url in ws:
            async with client.get(url) as answer:
                await ws.send(f"{answer.status} {await answer.text()}")


# Ordinary views beside the handlers


async def work(seconds, result):
    await asyncio.sleep(seconds)
    return f"{result} {request.path}"


@app.get("/wait/<float:seconds>/<result>")
def wait(seconds, result):
    return run_coroutine(work(seconds, result))


@app.route("/awaits-a-result")
def awaits_a_result():
    """What a plain view calls blocks: there is nothing left to await."""
    try:
        return str(run_coroutine(websocket.count("a room")))
    except TypeError as error:
        return str(error)


@app.get("/wait-again")
def wait_again():
    return jsonify([run_coroutine(work(0.001, number)) for number in range(20)])


@app.get("/wait-future")
def wait_future():
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_later(0.01, future.set_result, "from a future")
    return run_coroutine(future)


@app.get("/wait-gather")
def wait_gather():
    async def both():
        return await asyncio.gather(work(0.01, "one"), work(0.01, "two"))

    return jsonify(run_coroutine(both()))


@app.get("/wait-error/<kind>")
def wait_error(kind):
    async def fail():
        await asyncio.sleep(0)
        if kind == "exit":
            raise SystemExit(3)
        if kind == "cancel":
            asyncio.current_task().cancel()
            await asyncio.sleep(1)
        if kind == "timeout":
            await asyncio.wait_for(asyncio.sleep(60), 0.01)
        if kind == "abort":
            abort(418)
        raise ValueError("in the coroutine, on purpose")

    try:
        return run_coroutine(fail())
    except (SystemExit, asyncio.CancelledError, asyncio.TimeoutError, ValueError) as error:
        return type(error).__name__


@app.get("/async-view/<name>")
async def async_view(name):
    await asyncio.sleep(0.01)
    return f"{name} {request.path} {session.get('user')}"


@app.get("/async-view-fails")
async def async_view_fails():
    await asyncio.sleep(0)
    abort(418)


@app.errorhandler(418)
async def teapot(error):
    await asyncio.sleep(0)
    return "418, after some awaiting", 418


@app.get("/stream")
def stream():
    def body():
        for number in range(5):
            yield run_coroutine(work(0.01, number)) + "\n"

    return app.response_class(stream_with_context(body()))


@app.get("/loop")
def loop():
    return loop_kind()


@app.get("/tasks")
def tasks():
    return str(len(asyncio.all_tasks()))


# A blueprint whose function before each request is async


blueprint = Blueprint("blueprint", __name__)


@blueprint.before_request
async def guard():
    await asyncio.sleep(0)
    if request.args.get("deny"):
        return "denied after some awaiting", 403
    g.guarded = True
    return None


@blueprint.route("/hello")
async def hello(ws):
    await ws.send_json([g.guarded, request.blueprint])
    await ws.receive()


websocket.register_blueprint(blueprint, url_prefix="/blueprint")
