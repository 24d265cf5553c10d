"""Everything that runs in an upgrade request can raise: `?at=PLACE&raise=KIND`, once.

Read it without `async` and `await` for the blocking engines.
"""

import contextlib
import functools
import logging
import os
from urllib.parse import parse_qs

import uwsgi
from flask import (
    Response,
    abort,
    g,
    got_request_exception,
    has_request_context,
    jsonify,
    make_response,
    render_template_string,
    request,
    request_finished,
    request_started,
    request_tearing_down,
    session,
)
from flask.json.provider import DefaultJSONProvider
from flask.sessions import SecureCookieSessionInterface
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from flask_uwsgi_websocket import ConnectionClosed
from flask_uwsgi_websocket.uwasp import Server
from tests.apps.kit import ENGINE, make_app, make_extension, os_thread, sleep


class Unprintable(Exception):
    def __str__(self):
        raise ValueError("raised by __str__, on purpose")

    __repr__ = __str__


class Odd(BaseException):
    """Of nobody's kind."""


def killed():
    """What ends a greenlet, or a task, from outside."""
    if ENGINE == "gevent":
        from gevent import GreenletExit as Killed
    elif ENGINE.startswith("asyncio"):
        from asyncio import CancelledError as Killed
    else:
        Killed = GeneratorExit
    return Killed("on purpose")


KINDS = {
    "exception": lambda: ValueError("on purpose"),
    "exit": lambda: SystemExit(3),
    "interrupt": KeyboardInterrupt,
    "killed": killed,
    "odd": lambda: Odd("on purpose"),
    "surrogate": lambda: RuntimeError("on purpose \ud800"),
    "long": lambda: RuntimeError("on purpose " * 1000),
    "unprintable": Unprintable,
    "closed": lambda: ConnectionClosed(1001, "another client's"),
    "stop": lambda: StopIteration("on purpose"),
}


def fail(kind):
    if kind == "abort":
        abort(418)
    raise KINDS[kind]()


def fails_at(place):
    """Raise what the request asks for, if it asks for it here."""
    if has_request_context() and request.args.get("at") == place:
        fail(request.args["raise"])


class Converter(BaseConverter):
    def to_python(self, value):
        if value != "fine":
            fail(value)
        return value


class Sessions(SecureCookieSessionInterface):
    def open_session(self, app, request):
        if request.args.get("at") == "open_session":
            fail(request.args["raise"])
        return super().open_session(app, request)

    def save_session(self, app, session, response):
        fails_at("save_session")
        super().save_session(app, session, response)


class Json(DefaultJSONProvider):
    def dumps(self, obj, **kwargs):
        fails_at("json")
        return super().dumps(obj, **kwargs)


class Answer(Response):
    def __init__(self, *args, **kwargs):
        fails_at("response_class")
        super().__init__(*args, **kwargs)


class Middleware:
    """Between the extension and Flask."""

    def __init__(self, application):
        self.application = application

    def __call__(self, environ, start_response):
        query = parse_qs(environ["QUERY_STRING"])
        at, kind = query.get("at", [""])[0], query.get("raise", [""])[0]
        if at == "middleware":
            fail(kind)
        body = self.application(environ, start_response)
        if at == "middleware_after":
            fail(kind)
        return Body(body, at, kind)


class Body:
    def __init__(self, body, at, kind):
        self.body, self.at, self.kind = body, at, kind

    def __iter__(self):
        if self.at == "body":
            fail(self.kind)
        yield from self.body
        if self.at == "body_end":
            fail(self.kind)

    def close(self):
        close = getattr(self.body, "close", None)
        if close is not None:
            close()
        if self.at == "body_close":
            fail(self.kind)


app = make_app(__name__)
app.session_interface = Sessions()
app.json_provider_class = Json
app.json = Json(app)
app.response_class = Answer
app.wsgi_app = Middleware(app.wsgi_app)
app.url_map.converters["raising"] = Converter
websocket = make_extension(app)


class Filter(logging.Filter):
    def filter(self, record):
        fails_at("logging")
        return True


app.logger.addFilter(Filter())


@app.before_request
def before():
    fails_at("before_request")
    if "debug" in request.args:
        app.debug = request.args["debug"] == "1"
    if request.args.get("at") == "teardown_appcontext":
        g.at_the_end = request.args["raise"]
    if request.args.get("at") in ("errorhandler", "error_after", "error_teardown"):
        raise KeyError("before the error, on purpose")
    if request.args.get("at") == "got_request_exception_before":
        raise ZeroDivisionError("before the error, on purpose")
    if request.args.get("at") == "context_processor":
        return render_template_string("{{ request.path }}")
    if request.args.get("at") == "stream":
        return Response(stream(request.args["raise"]), 403)
    if request.args.get("at") == "json_refusal":
        return jsonify(refused=True), 403
    return None


def stream(kind):
    fail(kind)
    yield b"never"


@app.after_request
def after(response):
    session["seen"] = True
    fails_at("after_request")
    if request.args.get("at") == "error_after":
        fail(request.args["raise"])
    if "header" in request.args:
        response.headers["X-Header"] = request.args["header"]
    for name in request.args.getlist("drop"):
        response.headers.pop(name, None)
    for field in request.args.getlist("add"):
        response.headers.add(*field.split(": ", 1))
    for field in request.args.getlist("set"):
        response.headers.set(*field.split(": ", 1))
    if "status" in request.args:
        response.status_code = int(request.args["status"])
    return response


@app.teardown_request
def teardown(error):
    fails_at("teardown_request")
    fails_at("error_teardown")


@app.teardown_appcontext
def teardown_app(error):
    if "at_the_end" in g:  # the request's own context is gone
        fail(g.at_the_end)


@app.errorhandler(KeyError)
def error_handler(error):
    fails_at("errorhandler")
    return "handled", 500


@app.url_value_preprocessor
def preprocess(endpoint, values):
    fails_at("url_value_preprocessor")


@app.context_processor
def context():
    fails_at("context_processor")
    return {}


def receiver(place):
    def receive(sender, **kwargs):
        fails_at(place)

    return receive


receivers = [
    (got_request_exception, receiver("got_request_exception")),
    (got_request_exception, receiver("got_request_exception_before")),
    (request_started, receiver("request_started")),
    (request_finished, receiver("request_finished")),
    (request_tearing_down, receiver("request_tearing_down")),
]
for signal, receive in receivers:
    signal.connect(receive, app)


def decorated(handler):
    @functools.wraps(handler)
    async def decorator(ws, **values):
        fails_at("decorator")
        await handler(ws, **values)
        fails_at("decorator_after")

    return decorator


async def converse(ws):
    fails_at("handler")
    if request.args.get("at") in ("got_request_exception", "logging"):
        raise ZeroDivisionError("before the error, on purpose")
    await ws.send_json("hello")
    fails_at("handler_later")
    await ws.receive()
    fails_at("handler_after_receive")


@websocket.route("/eager")
async def eager(ws):
    await converse(ws)


@websocket.route("/lazy", lazy=True)
async def lazy(ws):
    await converse(ws)


@websocket.route("/eager/negotiated", subprotocols=["b"], compression=True)
async def negotiated(ws):
    await converse(ws)


@websocket.route("/lazy/negotiated", subprotocols=["b"], compression=True, lazy=True)
async def negotiated_lazily(ws):
    await converse(ws)


@websocket.route("/decorated")
@decorated
async def decorated_handler(ws):
    await converse(ws)


@websocket.route("/converted/<raising:value>")
async def converted(ws, value):
    await converse(ws)


@websocket.route("/accepts", lazy=True)
async def accepts(ws):
    ws.accept()
    await converse(ws)


@websocket.route("/late", lazy=True)
async def late(ws):
    """Is opened by the clock."""
    await sleep(4)
    with contextlib.suppress(Exception):
        await ws.send_json("hello")
    await converse(ws)


@websocket.route("/stubborn", lazy=True)
async def stubborn(ws):
    """Hides from us what opening it raises."""
    for _ in range(3):
        try:
            await ws.send("hello")
        except BaseException as error:
            if isinstance(error, ConnectionClosed):
                raise
    await ws.receive()


@websocket.route("/thread", lazy=True)
async def thread(ws):
    def send():
        try:
            ws.send_nb("hello")
        except BaseException:
            os.write(1, b"")

    os_thread(send)
    await sleep(0.1)


def no_cache(handler):
    """A decorator for views; a plain function, whatever the handler is."""

    @functools.wraps(handler)
    def decorator(*args, **kwargs):
        response = make_response(handler(*args, **kwargs))
        response.headers["Cache-Control"] = "no-store"
        return response

    return decorator


@websocket.route("/no-cache")
@no_cache
async def no_cached(ws):
    await converse(ws)


@websocket.route("/no-cache-eager", lazy=False)
@no_cache
async def no_cached_eagerly(ws):
    await converse(ws)


@websocket.route("/abort/<int:status>")
async def aborts(ws, status):
    abort(status)


@websocket.route("/abort-lazily/<int:status>", lazy=True)
async def aborts_lazily(ws, status):
    if "use" in request.args:
        await ws.send("hello")
    abort(status)


@websocket.route("/abort-with-a-response")
async def aborts_with_a_response(ws):
    abort(Response("see there", 303))


@websocket.route("/missing-argument")
async def missing_argument(ws):
    await ws.send(request.args["missing"])


@websocket.server("/server")
class Failing(Server):
    def __init__(self, ws):
        super().__init__(ws)
        fails_at("server_init")

    async def on_open(self):
        await self.ws.send("hello")
        fails_at("server_open")

    async def on_message(self, message):
        fails_at("server_message")
        self.ws.close()

    async def on_close(self):
        fails_at("server_close")


@app.get("/fd")
def descriptors():
    return jsonify(descriptors=len(os.listdir("/proc/self/fd")), worker=uwsgi.worker_id())


@app.errorhandler(418)
def teapot(error: HTTPException):
    return "teapot", 418
