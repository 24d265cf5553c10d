"""Handlers as apps of 0.6 have them: after its examples, and after what people made of those."""

import threading
from collections import deque

from flask import jsonify, request

from tests.apps.kit import Queue, make_app, make_extension, record, sleep, spawn

app = make_app(__name__)
websocket = make_extension(app)
users = {}
clients = []
queues = []
backlog = deque(maxlen=10)
running = [0]
lock = threading.Lock()


def counted(handler):
    """Count handlers that run, without being seen by Flask as a decorator."""

    async def wrapper(ws, **values):
        with lock:
            running[0] += 1
        try:
            await handler(ws, **values)
        finally:
            with lock:
                running[0] -= 1

    wrapper.__name__ = handler.__name__
    return wrapper


# Loops that receive


@websocket.route("/echo")
@counted
async def echo(ws):
    while True:
        msg = await ws.receive()
        if msg is not None:
            await ws.send(msg)
        else:
            return


@websocket.route("/echo-or-return")
@counted
async def echo_or_return(ws):
    while True:
        msg = await ws.receive()
        if not msg:
            return
        await ws.send(msg)


@websocket.route("/echo-or-continue")
@counted
async def echo_or_continue(ws):
    while True:
        msg = await ws.receive()
        if not msg:
            continue
        await ws.send(msg)


@websocket.route("/echo-while-connected")
@counted
async def echo_while_connected(ws):
    while ws.connected:
        msg = await ws.receive()
        if msg:
            await ws.send(msg)


@websocket.route("/echo-blindly")
@counted
async def echo_blindly(ws):
    """The quick start of the README."""
    while True:
        msg = await ws.receive()
        await ws.send(msg)


@websocket.route("/echo-after-hello")
@counted
async def echo_after_hello(ws):
    name = await ws.receive()
    while True:
        msg = await ws.receive()
        if msg:
            await ws.send(name + b": " + msg)
        else:
            break


@websocket.route("/echo-by-polling")
@counted
async def echo_by_polling(ws):
    while True:
        msg = ws.recv_nb()
        if msg:
            await ws.send(msg)
        else:
            await sleep(0.01)


@websocket.route("/echo-until-oserror")
@counted
async def echo_until_oserror(ws):
    try:
        while True:
            msg = ws.recv_nb()
            if msg:
                await ws.send(msg)
            await sleep(0.01)
    except OSError:
        pass


# Loops that only send


@websocket.route("/push")
@counted
async def push(ws):
    while True:
        await ws.send("now")
        await sleep(0.01)


@websocket.route("/push-nb")
@counted
async def push_nb(ws):
    while True:
        ws.send_nb("now")
        await sleep(0.01)


@websocket.route("/push-without-pause")
@counted
async def push_without_pause(ws):
    while True:
        await ws.send("now" * 1000)


@websocket.route("/push-while-connected")
@counted
async def push_while_connected(ws):
    while ws.connected:
        await ws.send("now")
        await sleep(0.01)


@websocket.route("/chatty")
@counted
async def chatty(ws):
    """Never receives, and never takes itself out."""
    users[ws.id] = ws
    while True:
        for id in users:
            if id != ws.id:
                await users[id].send("hi from " + ws.id)
        await sleep(0.01)


# Chats


@websocket.route("/chat")
@counted
async def chat(ws):
    users[ws.id] = ws

    for msg in backlog:
        await ws.send(msg)

    while True:
        msg = await ws.receive()
        if msg is not None:
            backlog.append(msg)
            for id in users:
                if id != ws.id:
                    await users[id].send(msg)
        else:
            break

    del users[ws.id]


@websocket.route("/chat-of-a-list")
@counted
async def chat_of_a_list(ws):
    clients.append(ws)
    try:
        while True:
            msg = await ws.receive()
            if not msg:
                break
            for client in list(clients):
                await client.send(msg)
                await client.send_json({"len": len(msg)})
                client.send_nb(msg)
                await client.send_binary(msg)
    finally:
        clients.remove(ws)


@websocket.route("/chat-that-forgets-nobody")
@counted
async def chat_that_forgets_nobody(ws):
    """Whoever was here once is sent to for ever."""
    clients.append(ws)
    while ws.connected:
        msg = await ws.receive()
        if msg:
            for client in clients:
                await client.send(msg)


@websocket.route("/chat-of-queues")
@counted
async def chat_of_queues(ws):
    queue = Queue()
    queues.append(queue)

    async def listen():
        while True:
            msg = await ws.receive()
            for other in list(queues) if msg else [queue]:
                other.put_nowait(msg)
            if msg is None:
                break

    spawn(listen)
    try:
        while True:
            msg = await queue.get()
            if msg is None:
                break
            await ws.send(msg)
    finally:
        queues.remove(queue)


# What tests ask


@websocket.route("/types/<token>")
async def types(ws, token):
    record(token, nothing=repr(ws.recv_nb()))
    await ws.send("ready")
    await ws.receive()
    await ws.receive()
    dropped = []
    for send in (ws.send, ws.send_binary, ws.send_json):
        dropped.append(await send("late"))
    dropped.append(ws.send_nb("late"))
    record(token, dropped=dropped, connected=ws.connected)


@app.get("/announce")
def announce():
    for id in users:
        users[id].send_nb(request.args["message"])
    return str(len(users))


@app.get("/tell")
def tell():
    websocket.send_to_all(request.args["message"].encode())
    return str(len(websocket.clients))


@app.get("/state")
def state():
    return jsonify(users=len(users), clients=len(clients), queues=len(queues), running=running[0])


@app.get("/forget")
def forget():
    users.clear()
    clients.clear()
    backlog.clear()
    return ""
