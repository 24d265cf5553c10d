"""`websocket.clients` and `websocket.send_to_all`, as chats and views use them."""

import os

from flask import jsonify, request

from tests.apps.kit import join, make_app, make_extension, os_thread, record, sleep, spawn

app = make_app(__name__)
websocket = make_extension(app)
everybody = []


@websocket.route("/listen")
async def listen(ws):
    await ws.send(ws.id)
    while await ws.receive() is not None:
        pass


@websocket.route("/listen-compressed", compression=True)
async def listen_compressed(ws):
    await ws.send(ws.id)
    while (msg := await ws.receive()) is not None:
        await ws.send(msg)


@websocket.route("/chat")
async def chat(ws):
    await ws.send(ws.id)
    while (msg := await ws.receive()) is not None:
        await websocket.send_to_all(msg)
        websocket.send_to_all(f"{ws.id} to the others", exclude=ws)


@websocket.route("/membership/<token>")
async def membership(ws, token):
    at_once = ws in websocket.clients, ws in list(websocket.clients)
    await ws.receive()
    record(token, at_once=at_once, at_end=ws in websocket.clients, other="x" in websocket.clients)


@websocket.route("/lazy/<token>", lazy=True)
async def lazy(ws, token):
    before = ws in websocket.clients, len(websocket.clients)
    ws.accept()
    record(token, before=before, after=ws in websocket.clients)
    await ws.receive()


@websocket.route("/naive")
async def naive(ws):
    """A chat that keeps its own list, and has not heard of those who leave."""
    everybody.append(ws)
    while (msg := await ws.receive()) is not None:
        for client in everybody:
            await client.send(msg)


@websocket.route("/wrong/<token>")
async def wrong(ws, token):
    for number, message in enumerate([1, None, "\ud800", b"\xff"]):
        try:
            websocket.send_to_all(message, binary=False if number == 3 else None)
        except (TypeError, ValueError) as error:
            record(token, is_type_error=isinstance(error, TypeError))


@app.get("/clients")
def clients():
    return jsonify(sorted(client.id for client in websocket.clients))


@app.get("/count")
def count():
    return str(len(websocket.clients))


@app.get("/send")
def send():
    """From a view, or from a thread beside it."""
    message = request.args["message"] * int(request.args.get("times", 1))
    exclude = request.args.getlist("exclude")

    def work():
        for _ in range(int(request.args.get("count", 1))):
            websocket.send_to_all(
                message.encode() if "binary" in request.args else message, exclude=exclude
            )
        return len(websocket.clients)

    return str(work())


@app.get("/fork")
def fork():
    """What a child process finds, in which none of them is open."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        websocket.send_to_all("from the child")
        os.write(writing, str(len(websocket.clients)).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    found = os.read(reading, 16)
    os.close(reading)
    os.close(writing)
    return found


@app.get("/send-from-thread")
def send_from_thread():
    os_thread(websocket.send_to_all, request.args["message"])
    return ""


@websocket.route("/walk/<token>")
async def walk(ws, token):
    """Walk over the clients, slowly, while they come and go."""

    async def walker():
        for _ in range(100):
            for client in websocket.clients:
                await sleep(0.001)
                assert client.id

    await join([spawn(walker) for _ in range(3)])
    record(token, walked=True)
