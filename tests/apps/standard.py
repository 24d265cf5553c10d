"""The app that most tests use. Read it without `async` and `await` for the blocking engines."""

import asyncio
import contextlib
import hashlib
import os
import time

import uwsgi
from flask import (
    Blueprint,
    abort,
    copy_current_request_context,
    current_app,
    g,
    has_request_context,
    jsonify,
    redirect,
    request,
    session,
)
from flask.signals import got_request_exception
from werkzeug.routing import BaseConverter

from flask_uwsgi_websocket import ConnectionClosed
from tests.apps.kit import (
    ASYNC,
    Queue,
    join,
    loop_kind,
    make_app,
    make_extension,
    os_thread,
    record,
    sleep,
    spawn,
)

app = make_app(__name__)
websocket = make_extension(app)


# Messages


@websocket.route("/echo")
async def echo(ws):
    while True:
        msg = await ws.receive()
        if msg is None:
            break
        await ws.send(msg)


@websocket.route("/quickstart")
async def quickstart(ws):
    # The old README's first example, which looks at nothing.
    while True:
        msg = await ws.receive()
        await ws.send(msg)


@websocket.route("/iterate")
async def iterate(ws):
    async with ws:
        async for msg in ws:
            await ws.send(msg)


@websocket.route("/recv")
async def recv(ws):
    while (msg := await ws.recv()) is not None:
        await ws.send(msg)


@websocket.route("/describe")
async def describe(ws):
    """Tell the type and size of each message."""
    while (msg := await ws.receive()) is not None:
        await ws.send(f"{type(msg).__name__} {len(msg)}")


handled = 0


@websocket.route("/handle")
async def handle(ws):
    global handled
    async for _ in ws:
        handled += 1


@app.get("/handled")
def count_handled():
    return str(handled)


@websocket.route("/count/<int:number>")
async def count(ws, number):
    for index in range(number):
        await ws.send(str(index))
    await ws.receive()


@websocket.route("/collect/<token>")
async def collect(ws, token):
    """Record all that came, and how it ended."""
    messages = []
    while (msg := await ws.receive()) is not None:
        messages.append(msg if isinstance(msg, str) else {"bytes": len(msg)})
    record(
        token,
        messages=messages,
        connected=ws.connected,
        code=ws.close_code,
        reason=ws.close_reason,
        again=await ws.receive(),
    )


@websocket.route("/timeout")
async def timeout(ws):
    try:
        await ws.receive(timeout=0.1)
    except TimeoutError:
        await ws.send("timeout")
    await ws.send(await ws.receive(timeout=60))


@websocket.route("/recv_nb/<token>")
async def recv_nb(ws, token):
    before = ws.recv_nb()
    await ws.send("now")
    while (msg := ws.recv_nb()) == "":
        await sleep(0.01)
    await ws.send(msg)
    while (end := ws.recv_nb()) == "":
        await sleep(0.01)
    record(token, before=before, end=end)


@websocket.route("/json")
@websocket.route("/json/<token>")
async def json(ws, token=""):
    try:
        while True:
            data = await ws.receive_json()
            await ws.send_json({"got": data})
    except ConnectionClosed as closed:
        record(token, code=closed.code)
        raise


@websocket.route("/kinds")
async def kinds(ws):
    """Each way to send."""
    await ws.send("text")
    await ws.send(b"binary")
    await ws.send("as binary", binary=True)
    await ws.send(b"as text", binary=False)
    await ws.send_binary(b"by name")
    ws.send_nb("without waiting")
    ws.send_nb(b"the same in binary")
    await ws.send("")
    await ws.send(b"")
    await ws.send("naïve ☃ 😀")
    await ws.receive()


@websocket.route("/sharedarea")
async def sharedarea(ws):
    text = b"from the shared area"
    size = 4096
    uwsgi.sharedarea_write(0, size - len(text), text)
    await ws.send_from_sharedarea(0, size - len(text))
    await ws.send_binary_from_sharedarea(0, size - 4)
    await ws.receive()


@websocket.route("/attributes/<path:rest>")
async def attributes(ws, rest):
    await ws.send_json(
        {
            "connected": ws.connected,
            "close_code": ws.close_code,
            "id": str(ws.id),
            "fd": ws.fd,
            "timeout": ws.timeout,
            "subprotocol": ws.subprotocol,
            "path": ws.path,
            "query": ws.environ["QUERY_STRING"],
            "rest": rest,
        }
    )
    await ws.receive()


@websocket.route("/latency")
async def latency(ws):
    while await ws.receive() is not None:
        await ws.send_json(ws.latency)


# Many at once

rooms = {}


@websocket.route("/senders/<int:number>/<int:each>")
async def senders(ws, number, each):
    async def sender(name):
        for index in range(each):
            await ws.send(f"{name} {index}")
            if index % 16 == name:
                await sleep(0)

    await join([spawn(sender, name) for name in range(number)])
    await ws.send("done")
    await ws.receive()


@websocket.route("/from-threads/<int:number>/<int:each>")
async def from_threads(ws, number, each):
    """Threads of the operating system send on a connection of this engine."""
    arrived = []  # not a Barrier: of several threads, gevent's patched locks may forget one
    deadline = time.monotonic() + 30

    def sender(name):
        arrived.append(name)
        while len(arrived) < number and time.monotonic() < deadline:
            time.sleep(0.001)
        for index in range(each):
            (ws.send_nb if ASYNC else ws.send)(f"{name} {index}")

    for name in range(number):
        os_thread(sender, name)
    await ws.receive()


@websocket.route("/coroutine-from-thread")
async def coroutine_from_thread(ws):
    """`ws.send` itself called in another thread."""
    loop = asyncio.get_running_loop() if ASYNC else None

    def sender():
        if ASYNC:
            asyncio.run_coroutine_threadsafe(ws.send("from a thread"), loop).result(30)
        else:
            ws.send("from a thread")

    os_thread(sender)
    await ws.receive()


@websocket.route("/both-ways")
async def both_ways(ws):
    """One receives, another sends what it got."""
    queue = Queue()

    async def sender():
        while (msg := await queue.get()) is not None:
            await ws.send(msg)

    beside = spawn(sender)
    while (msg := await ws.receive()) is not None:
        queue.put_nowait(msg)
    queue.put_nowait(None)
    with contextlib.suppress(ConnectionClosed):
        await join([beside])


@websocket.route("/receivers/<int:count>")
async def receivers(ws, count):
    """Several wait for messages, and one more asks for them."""

    async def wait():
        while (msg := await ws.receive()) is not None:
            await ws.send(msg)

    async def ask():
        while (msg := ws.recv_nb()) is not None:
            if msg:
                await ws.send(msg)
            else:
                await sleep(0.001)

    beside = [spawn(ask), *(spawn(wait) for _ in range(1, count))]
    await wait()
    await join(beside)


@websocket.route("/room/<name>")
async def room(ws, name):
    """What one says, all in the room get."""
    members = rooms.setdefault(name, set())
    members.add(ws)
    try:
        await ws.send("joined")
        while (msg := await ws.receive()) is not None:
            for member in list(members):
                try:
                    await member.send(msg)
                except ConnectionClosed:
                    members.discard(member)
    finally:
        members.discard(ws)


@app.post("/room/<name>")
def broadcast(name):
    message = request.get_data(as_text=True)
    members = list(rooms.get(name, ()))
    for member in members:
        with contextlib.suppress(ConnectionClosed):
            member.send_nb(message)
    return str(len(members))


@app.get("/room/<name>")
def room_size(name):
    return str(len(rooms.get(name, ())))


# Ends


@websocket.route("/close")
async def close(ws):
    """Close as the query string says, once asked to."""
    await ws.receive()
    code = request.args.get("code", type=int)
    if code is None:
        await ws.close()
    else:
        await ws.close(code, request.args.get("reason", ""))
    await ws.close(1001, "closing twice changes nothing")
    record(
        request.args["token"],
        connected=ws.connected,
        code=ws.close_code,
        reason=ws.close_reason,
        receive=await ws.receive(),
    )


@websocket.route("/return")
async def return_(ws):
    await ws.send("bye")


@websocket.route("/raise")
async def raise_(ws):
    await ws.receive()
    raise ValueError("raised on purpose")


@websocket.route("/exit")
async def exit_(ws):
    await ws.receive()
    raise SystemExit(3)


@websocket.route("/until-the-end/<token>")
async def until_the_end(ws, token):
    """Tell the log of its end, which outlives the worker."""
    try:
        async for msg in ws:
            await ws.send(msg)
    finally:
        # In one write: print's newline is another one, and other handlers end at the same time.
        os.write(1, f"finally {token}\n".encode())


@websocket.route("/send-after-close/<token>")
async def send_after_close(ws, token):
    while await ws.receive() is not None:
        pass
    try:
        await ws.send("nobody hears this")
    except ConnectionClosed as error:
        record(token, code=error.code, connection_error=isinstance(error, ConnectionError))
        raise


@websocket.route("/send-until-closed/<token>")
async def send_until_closed(ws, token):
    """Only ever send."""
    number = 0
    try:
        while True:
            await ws.send("x" * 1000)
            number += 1
            await sleep(0.001)
    finally:
        record(token, number=number, code=ws.close_code, connected=ws.connected)


@websocket.route("/flood/<token>")
async def flood(ws, token):
    """Send without pause; the peer may not read."""
    number = 0
    try:
        while True:
            await ws.send(b"x" * 65536)
            number += 1
    except ConnectionClosed as error:
        record(token, number=number, code=error.code)
        raise


@websocket.route("/flood-nb/<token>")
async def flood_nb(ws, token):
    number = 0
    try:
        while True:
            ws.send_nb(b"x" * 65536)
            number += 1
            await sleep(0.001)
    except ConnectionClosed as error:
        record(token, number=number, error=error.code, code=ws.close_code)
        raise


@websocket.route("/replies-nb/<int:number>/<int:size>")
async def replies_nb(ws, number, size):
    """Answer each message with many, without ever waiting."""
    while await ws.receive() is not None:
        for _ in range(number):
            ws.send_nb(b"x" * size)


gates = {}
blocked_clients = {}


@websocket.route("/blocked/<token>")
async def blocked(ws, token):
    """Busy elsewhere: blocked in a queue of its own."""
    gate = gates.setdefault(token, Queue())
    blocked_clients[token] = ws
    await ws.send("blocked")
    try:
        await gate.get()
    except BaseException as error:
        record(token, error=type(error).__name__, code=ws.close_code)
        raise
    record(token, error=None, code=ws.close_code)


@app.get("/blocked/<token>")
def blocked_state(token):
    ws = blocked_clients[token]
    return jsonify(connected=ws.connected, code=ws.close_code)


@app.post("/gates/<token>")
def open_gate(token):
    gates.setdefault(token, Queue()).put_nowait(None)  # it may not have come there yet
    return ""


@websocket.route("/paused/<token>")
async def paused(ws, token):
    """Receive nothing until the gate opens, then tell the sizes of all that came."""
    gate = gates.setdefault(token, Queue())
    await ws.send("paused")
    await gate.get()
    while (msg := await ws.receive()) is not None:
        await ws.send(str(len(msg)))


@websocket.route("/linger")
async def linger(ws):
    """Answer with 3 MB and end, without having read what the client sent."""
    await ws.receive()
    await sleep(0.2)
    await ws.send(b"y" * 3_000_000)
    await ws.close(4000, "read all of it")


@websocket.route("/close-from-elsewhere/<token>")
async def close_from_elsewhere(ws, token):
    """Another thread, greenlet or task closes while this one receives."""

    async def closer():
        await ws.close(4001, "from elsewhere")

    beside = spawn(closer)
    messages = 0
    while await ws.receive() is not None:
        messages += 1
    await join([beside])
    record(token, code=ws.close_code)


# Flask around it


@app.before_request
def guard():
    deny = request.args.get("deny")
    if deny == "response":
        return "denied by a response", 418, {"X-Denied": "yes"}
    if deny == "abort":
        abort(401)
    if deny == "redirect":
        return redirect("/ready")
    if deny == "error":
        raise ValueError("raised before the handshake, on purpose")
    g.guarded = True
    if "before" in request.args:
        record(request.args["before"], path=request.path)
    if "login" in request.args:
        session["user"] = request.args["login"]
    return None


@app.after_request
def after(response):
    response.headers["X-After"] = "yes"
    return response


@app.teardown_request
def teardown(error):
    if "teardown" in request.args:
        record(request.args["teardown"], error=error and type(error).__name__)


@app.errorhandler(401)
def unauthorized(error):
    return "unauthorized, by an errorhandler", 401


@got_request_exception.connect_via(app)
def exception_seen(sender, exception, **extra):
    token = request.args.get("signal") if request else None
    if token:
        record(token, exception=str(exception))


@websocket.route("/context/<name>")
async def context(ws, name):
    while await ws.receive() is not None:
        await ws.send_json(
            {
                "path": request.path,
                "args": request.args.to_dict(),
                "method": request.method,
                "cookie": request.cookies.get("flavour"),
                "user": session.get("user"),
                "guarded": g.get("guarded"),
                "app": current_app.name,
            }
        )


@websocket.route("/g/<name>")
async def own_g(ws, name):
    """`g` belongs to the connection for as long as it lives."""
    g.messages = []
    while (msg := await ws.receive()) is not None:
        g.messages.append(msg)
        await ws.send(f"{name}: {' '.join(g.messages)}")


@websocket.route("/old-context")
async def old_context(ws):
    with app.request_context(ws.environ):
        await ws.send(request.path)
    with ws.request_context():
        await ws.send(request.args["n"])
    await ws.receive()


@websocket.route("/has-context")
async def has_context(ws):
    await ws.send(str(has_request_context()))
    with app.request_context(ws.environ):
        await ws.send(request.path)
    await ws.receive()


@websocket.route("/spawned-context/<name>")
async def spawned_context(ws, name):
    """What runs beside the handler sees the handler's request."""

    async def beside():
        await ws.send(f"{name} {request.path} {session.get('user')}")

    # A task inherits the context; for a thread or greenlet Flask has a decorator.
    await join([spawn(beside if ASYNC else copy_current_request_context(beside))])
    await ws.receive()


@app.get("/login/<name>")
def login(name):
    session["user"] = name
    return name


# Routes


@websocket.route("/both")
async def both_websocket(ws):
    await ws.send("websocket")
    await ws.receive()


@app.route("/both", methods=["GET", "POST"])
def both_http():
    return f"http {request.method}"


@app.post("/upload")
def upload():
    return hashlib.sha256(request.get_data()).hexdigest()


@websocket.route("/typed/<int:number>/<float:ratio>/<name>")
async def typed(ws, number, ratio, name):
    await ws.send_json([number, ratio, name])
    await ws.receive()


@websocket.route("/defaults", defaults={"page": 1})
@websocket.route("/defaults/<int:page>")
async def defaults(ws, page):
    await ws.send_json(page)
    await ws.receive()


@websocket.route("/methods", methods=["POST"])
async def methods(ws):
    await ws.send(request.method)
    await ws.receive()


@websocket.route("/slash/")
async def slash(ws):
    await ws.send("slash")
    await ws.receive()


@websocket.route("/loose", strict_slashes=False)
async def loose(ws):
    await ws.send("loose")
    await ws.receive()


@websocket.route("/late/<backwards:word>")
async def late(ws, word):
    await ws.send(word)
    await ws.receive()


class Backwards(BaseConverter):
    def to_python(self, value):
        return value[::-1]


app.url_map.converters["backwards"] = Backwards


@websocket.route("/subprotocols", subprotocols=["chat.v2", "chat.v1"])
async def subprotocols(ws):
    await ws.send_json(ws.subprotocol)
    await ws.receive()


@websocket.route("/any-origin", origins="*")
async def any_origin(ws):
    await ws.send("welcome")
    await ws.receive()


@websocket.route("/some-origins", origins=["https://friend.example"])
async def some_origins(ws):
    await ws.send("welcome")
    await ws.receive()


@websocket.route("/tiny", max_message_size=1000)
async def tiny(ws):
    while (msg := await ws.receive()) is not None:
        await ws.send(str(len(msg)))


async def added(ws):
    await ws.send("added")
    await ws.receive()


websocket.add_url_rule("/added", "an-endpoint", added)


@websocket.route("/scheme")
async def scheme(ws):
    await ws.send_json([request.scheme, request.is_secure, websocket.url_for("scheme")])


@app.get("/urls")
def urls():
    return jsonify(
        [
            websocket.url_for("echo"),
            websocket.url_for("typed", number=1, ratio=2.5, name="x"),
            websocket.url_for("an-endpoint"),
        ]
    )


@app.get("/loop")
def loop():
    return loop_kind()


# Blueprints

blueprint = Blueprint("blueprint", __name__)
child = Blueprint("child", __name__)


@blueprint.before_request
def blueprint_guard():
    if request.args.get("deny") == "blueprint":
        return "denied by the blueprint", 403
    g.blueprint_guarded = True
    return None


@blueprint.route("/hello")
async def blueprint_hello(ws):
    await ws.send_json([request.blueprint, g.get("blueprint_guarded"), request.endpoint])
    await ws.receive()


@child.route("/hello")
async def child_hello(ws):
    await ws.send_json([request.blueprint, g.get("blueprint_guarded"), request.endpoint])
    await ws.receive()


blueprint.register_blueprint(child, url_prefix="/child")
websocket.register_blueprint(blueprint, url_prefix="/blueprint")
