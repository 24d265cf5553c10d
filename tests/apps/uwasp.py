"""Class-based servers, on a bare WSGI application or with TEST_CONFIG {"MOUNT": "flask"} on Flask.

Read it without `async` and `await` for the blocking engines.
"""

import json
import os

import uwsgi
from flask import request

from flask_uwsgi_websocket import uwasp
from flask_uwsgi_websocket.uwasp import HandshakeError, Limits, Server, WebSocketMiddleware
from tests.apps import kit
from tests.apps.kit import os_thread, record, sleep

CONFIG = json.loads(os.environ.get("TEST_CONFIG", "{}"))
HANDLER = {
    "threads": "ThreadHandler",
    "gevent": "GeventHandler",
    "asyncio": "AsyncioHandler",
    "single": "ThreadHandler",
}.get(kit.ENGINE)


class Echo(Server):
    async def on_message(self, message):
        await self.ws.send(message)


class PlainEcho(Server):
    """Plain functions, which asyncio runs too."""

    def on_message(self, message):
        self.ws.send(message)


class Chat(Echo):
    PROTOCOL_NAME = "chat.v2"

    async def on_open(self):
        await self.ws.send(f"speaking {self.ws.client.subprotocol}")


class Picky(Chat):
    PROTOCOL_REQUIRED = True


class Life(Server):
    """Record what happens, in its order, under the token in the query string."""

    def __init__(self, ws):
        super().__init__(ws)
        self.token = ws.environ["QUERY_STRING"]
        self.events = ["made"]
        assert not ws.closed

    async def on_open(self):
        self.events.append(f"open {self.ws.closed} {self.ws.fileno() > 2}")

    async def on_message(self, message):
        self.events.append(message if isinstance(message, str) else f"{len(message)} bytes")
        if message == "slow":
            await sleep(1)
        self.events.append("handled")
        await self.answer(message)

    async def answer(self, message):
        pass

    async def on_close(self):
        self.events.append("close")
        record(self.token, events=self.events, closed=self.ws.closed, code=self.code())

    def code(self):
        return self.ws.client.close_code


class Closes(Life):
    async def answer(self, message):
        await self.ws.close(4001, "enough")
        assert self.ws.closed


class FailsToOpen(Life):
    async def on_open(self):
        raise ValueError("on_open on purpose")


class FailsOnMessage(Life):
    async def answer(self, message):
        raise ValueError("on_message on purpose")


class FailsToClose(Life):
    async def on_close(self):
        await super().on_close()
        raise ValueError("on_close on purpose")


class FailsTwice(FailsOnMessage):
    async def on_close(self):
        await super().on_close()
        await self.ws.send("farewell")  # raises ConnectionClosed, which hides nothing


class FailsToBeMade(Server):
    def __init__(self, ws):
        raise ValueError("__init__ on purpose")


class ExitsUnmade(Server):
    def __init__(self, ws):
        raise SystemExit("__init__ on purpose")


class Refuses(Server):
    def __init__(self, ws):
        raise HandshakeError(401, "who are you?", (("WWW-Authenticate", "Basic"),))


class SendsUnopened(Server):
    def __init__(self, ws):
        ws.send("too early")


class Exits(Life):
    async def answer(self, message):
        raise SystemExit(3)


class Stuck(Life):
    """Does not notice that its client leaves, unless it is interrupted."""

    async def answer(self, message):
        if message == "work":
            await sleep(8)


class Senders(Server):
    """Threads of the operating system send, and close."""

    async def on_open(self):
        self.done = []
        for name in range(4):
            os_thread(self.send, name)

    def send(self, name):
        for index in range(250):
            self.ws.send(f"{name} {index}")
        self.done.append(name)
        if len(self.done) == 4:
            self.ws.close(1000, "all sent")


class Prints(Server):
    """Tell the log, which outlives the worker."""

    def on_close(self):
        print(f"on_close {self.ws.client.close_code}", flush=True)


class Handled(Server):
    """By a handler of our own, see below."""

    PROTOCOL_NAME = "handled"

    async def on_open(self):
        await self.ws.send(self.ws.environ["test.handled"])


class Flood(Server):
    """More than a client that does not read can take."""

    async def on_message(self, message):
        if message == "wait":
            for _ in range(64):
                await self.ws.send(bytes(65536))
            await self.ws.send("done")
        else:
            for _ in range(640):
                self.ws.send(bytes(65536))


class Unicode(Echo):
    async def on_open(self):
        await self.ws.send(self.ws.client.path)


everybody = []


class Naive(Server):
    """Sends to everybody, also to those who have left."""

    def on_open(self):
        everybody.append(self)

    async def on_message(self, message):
        for other in everybody:
            await other.ws.send(message)


class Member(Server):
    """One of a room, which it closes when told to."""

    async def on_open(self):
        await self.ws.join("members")
        await self.ws.send(f"{self.ws.user} {sorted(self.ws.rooms)}")

    async def on_message(self, message):
        if message == "leave":
            await self.ws.send(f"{await here().count('members')}")
            self.ws.leave("members")
        elif message == "all":
            await here().to("members").send("to all")
        else:
            await self.ws.to("members").send(message)


def here():
    """What has the rooms: the middleware, or Flask's extension."""
    return websocket if CONFIG.get("MOUNT") == "flask" else app


SERVERS = [
    ("/member", Member),
    ("/echo", Echo),
    ("/plain", PlainEcho),
    ("/chat", Chat),
    ("/picky", Picky),
    ("/life", Life),
    ("/closes", Closes),
    ("/fails-to-open", FailsToOpen),
    ("/fails-on-message", FailsOnMessage),
    ("/fails-to-close", FailsToClose),
    ("/fails-twice", FailsTwice),
    ("/fails-to-be-made", FailsToBeMade),
    ("/exits-unmade", ExitsUnmade),
    ("/refuses", Refuses),
    ("/sends-unopened", SendsUnopened),
    ("/exits", Exits),
    ("/stuck", Stuck),
    ("/senders", Senders),
    ("/prints", Prints),
    ("/handled", Handled),
    ("/flood", Flood),
    ("/naive", Naive),
    ("/grüße", Unicode),
]


def bare(environ, start_response):
    """A WSGI application without any framework."""
    path = environ["PATH_INFO"]
    if path.startswith("/records/"):
        body = json.dumps(kit.records.get(path.removeprefix("/records/"), []))
    else:
        body = f"{environ['REQUEST_METHOD']} {path} of the application"
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [body.encode()]


if CONFIG.get("MOUNT") == "flask":
    app = kit.make_app(__name__)
    websocket = kit.make_extension(app)
    for path, server_class in SERVERS:
        websocket.server(path)(server_class)

    @websocket.server("/room/<name>/<int:number>", origins="*", max_message_size=100)
    @websocket.server("/hall/<name>")
    class Room(Server):
        """What Flask has to offer."""

        def __init__(self, ws, name, number=0):
            super().__init__(ws)
            self.greeting = f"{name} {number} {request.args.get('q')} {request.endpoint}"

        async def on_open(self):
            await self.ws.send(self.greeting)

        async def on_message(self, message):
            await self.ws.client.send_json({"args": request.args, "got": message})

    @websocket.identify
    def who_is_it():
        return request.args.get("user")

    @app.before_request
    def check():
        if "refuse" in request.args:
            return "not today", 403
        return None

    @app.route("/chat")
    def page():
        return "a page"

else:
    if uwsgi.loop == b"gevent":
        from gevent.monkey import patch_all

        patch_all()

    class Handler(getattr(uwasp, HANDLER)):
        def handle(self, environ, protocol_name=None):
            environ["test.handled"] = f"{type(self.server).__name__} {protocol_name}"
            return super().handle(environ, protocol_name)

    limits = Limits(timeout=CONFIG.get("TEST_TIMEOUT", 5), max_message_size=1 << 16)
    app = WebSocketMiddleware(
        bare,
        Handler,
        SERVERS,
        limits=limits,
        identify=lambda environ: environ["QUERY_STRING"].removeprefix("user=") or None,
    )
