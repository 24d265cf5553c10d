"""The test client: `websocket.test_client(app)`, on every class of handlers, without uWSGI."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, abort, g, jsonify, redirect, request, session
from flask.testing import FlaskClient

from flask_uwsgi_websocket import (
    AsyncioWebSocket,
    ConnectionClosed,
    GeventWebSocket,
    HandshakeError,
    WebSocket,
)
from flask_uwsgi_websocket.extension.handshake import Handshake
from flask_uwsgi_websocket.testing import HandshakeRejected, WebSocketTestClient
from tests.server import PATIENCE, eventually

ROOT = Path(__file__).resolve().parent.parent

PLUGIN = "flask_uwsgi_websocket.pytest_plugin"
CLASSES = [WebSocket, GeventWebSocket, AsyncioWebSocket]


def make_app(**config: Any) -> Flask:
    app = Flask("under test")
    # This process is pytest's: no monkey patch.
    app.config.update(
        TESTING=True, SECRET_KEY="x", UWSGI_WEBSOCKET_AGGRESSIVE_PATCH=False, **config
    )
    return app


def blocking(function: Callable[..., Any]) -> Callable[..., Any]:
    """A handler written as a coroutine function, for the classes that block."""

    def handler(ws: Any, **values: Any) -> None:
        def plain(method: Callable[..., Any]) -> Callable[..., Any]:
            async def call(*args: Any, **kwargs: Any) -> Any:
                return method(*args, **kwargs)

            return call

        class Client:
            def __getattr__(self, name: str) -> Any:
                value = getattr(ws, name)
                waits = name in {"send", "receive", "close", "send_json", "receive_json"}
                return plain(value) if waits else value

        with contextlib.suppress(StopIteration):
            function(Client(), **values).send(None)

    handler.__name__ = function.__name__
    return handler


class Kit:
    """An app of one class, and its test client."""

    def __init__(self, extension: type[WebSocket], **config: Any) -> None:
        self.app = make_app(**config)
        self.websocket = extension(self.app, timeout=1)
        self.asynchronous = extension is AsyncioWebSocket
        self.client = self.websocket.test_client()

    def route(self, rule: str, **options: Any) -> Callable[..., Any]:
        def decorator(function: Callable[..., Any]) -> Callable[..., Any]:
            handler = function if self.asynchronous else blocking(function)
            return self.websocket.route(rule, **options)(handler)

        return decorator


@pytest.fixture(params=CLASSES, ids=lambda cls: cls.__name__)
def kit(request: pytest.FixtureRequest) -> Kit:
    kit = Kit(request.param)

    @kit.route("/echo")
    async def echo(ws: Any) -> None:
        while (msg := await ws.receive()) is not None:
            await ws.send(msg)

    return kit


def test_echo(kit: Kit) -> None:
    with kit.client.connect("/echo") as conn:
        conn.send("hi")
        assert conn.receive() == "hi"
        conn.send(b"\x00\xff")
        assert conn.receive() == b"\x00\xff"
        conn.send_json({"a": [1]})
        assert conn.receive_json() == {"a": [1]}
        conn.send_json(None)
        assert conn.receive_json() is None
        big = "☃" * 300_000
        conn.send(big)
        assert conn.receive() == big
    assert conn.close_code == 1000
    assert not conn.connected


def test_two_at_once(kit: Kit) -> None:
    with kit.client.connect("/echo") as one, kit.client.connect("/echo") as two:
        one.send("1")
        two.send("2")
        assert (two.receive(), one.receive()) == ("2", "1")


def test_the_handler_sees_its_request(kit: Kit) -> None:
    @kit.route("/seen/<int:number>")
    async def seen(ws: Any, number: int) -> None:
        await ws.send_json([number, request.args["q"], request.headers["X-A"], request.host])

    with kit.client.connect("/seen/3", query_string={"q": "☃"}, headers={"X-A": "b"}) as conn:
        assert conn.receive_json() == [3, "☃", "b", "localhost"]
        assert conn.receive() is None
        with pytest.raises(ConnectionClosed) as closed:
            conn.receive_json()
        assert closed.value.code == 1000
    assert conn.close_code == 1000


def test_url_of_url_for(kit: Kit) -> None:
    with kit.app.test_request_context():
        url = kit.websocket.url_for("echo")
    assert url == "ws://localhost/echo"
    with kit.client.connect(url) as conn:
        conn.send("x")
        assert conn.receive() == "x"


def test_cookies_go_both_ways(kit: Kit) -> None:
    @kit.app.post("/login")
    def login() -> str:
        session["user"] = request.form["user"]
        return "ok"

    @kit.app.get("/who")
    def who() -> Any:
        return jsonify(dict(session))

    @kit.app.before_request
    def count() -> None:
        session["requests"] = session.get("requests", 0) + 1

    @kit.route("/me")
    async def me(ws: Any) -> None:
        await ws.send(session["user"])
        await ws.receive()

    kit.client.post("/login", data={"user": "ann"})
    with kit.client.connect("/me") as conn:
        assert conn.receive() == "ann"
        assert "Set-Cookie" in conn.response.headers
        # Stored as soon as the connection is open.
        assert kit.client.get("/who").json == {"user": "ann", "requests": 3}
    with kit.client.session_transaction() as stored:
        assert stored["requests"] == 3


@pytest.mark.parametrize("block", [False, True])
def test_a_rejection_carries_flasks_response(kit: Kit, block: bool) -> None:
    @kit.app.before_request
    def deny() -> Any:
        if request.args.get("deny") == "abort":
            abort(401, "no")
        if request.args.get("deny") == "redirect":
            return redirect("/login")
        return None

    def rejected(path: str) -> Any:
        with pytest.raises(HandshakeRejected) as caught:
            kit.client.connect(path)
        assert isinstance(caught.value, HandshakeError)
        return caught.value.response

    if block:
        kit.client.__enter__()
    assert rejected("/echo?deny=abort").status_code == 401
    assert rejected("/echo?deny=redirect").location == "/login"
    assert "no" in rejected("/echo?deny=abort").text
    assert rejected("/nowhere").status_code == 404
    if block:
        kit.client.__exit__(None, None, None)


def test_origin_and_subprotocols(kit: Kit) -> None:
    @kit.route("/chat", subprotocols=["v2", "v1"])
    async def chat(ws: Any) -> None:
        await ws.send(str(ws.subprotocol))

    with kit.client.connect("/chat", subprotocols=["v1", "v2"]) as conn:
        assert conn.subprotocol == "v2"
        assert conn.receive() == "v2"
    with kit.client.connect("/chat", subprotocols=["v3"]) as conn:
        assert conn.subprotocol is None
        assert conn.receive() == "None"
    with kit.client.connect("/chat", origin="http://localhost") as conn:
        assert conn.receive() == "None"
    with pytest.raises(HandshakeRejected) as caught:
        kit.client.connect("/chat", origin="http://evil.example")
    assert caught.value.response.status_code == 403


def test_compression(kit: Kit) -> None:
    @kit.route("/zip", compression=True)
    async def zip_(ws: Any) -> None:
        await ws.send(await ws.receive())

    with kit.client.connect("/zip", compression=True) as conn:
        assert "permessage-deflate" in conn.response.headers["Sec-WebSocket-Extensions"]
        conn.send("a" * 100_000)
        assert conn.receive() == "a" * 100_000
    with kit.client.connect("/echo", compression=True) as conn:
        assert "Sec-WebSocket-Extensions" not in conn.response.headers


def test_close_codes(kit: Kit) -> None:
    seen = []

    @kit.route("/closes")
    async def closes(ws: Any) -> None:
        await ws.close(4001, "enough")

    @kit.route("/watches")
    async def watches(ws: Any) -> None:
        await ws.receive()
        seen.append((ws.close_code, ws.close_reason))

    with kit.client.connect("/closes") as conn:
        assert conn.receive() is None
        assert (conn.close_code, conn.close_reason) == (4001, "enough")
        with pytest.raises(ConnectionClosed):
            conn.send("late")
    conn = kit.client.connect("/watches")
    conn.close(4002, "bye")
    conn.close()
    assert conn.close_code == 4002
    with kit.client.connect("/watches") as conn:
        conn.abort()
    assert seen == [(4002, "bye"), (1006, "")]


def test_an_exception_of_the_handler_reaches_the_test(kit: Kit) -> None:
    @kit.route("/raise")
    async def raise_(ws: Any) -> None:
        await ws.receive()
        raise ValueError("on purpose")

    with kit.client.connect("/raise") as conn:
        conn.send("go")
        with pytest.raises(ValueError, match="on purpose"):
            conn.receive()
        assert conn.close_code == 1011
        assert conn.receive() is None  # raised once
    with pytest.raises(ValueError, match="on purpose"), kit.client.connect("/raise") as conn:
        conn.send("go")
    conn = kit.client.connect("/raise")
    with pytest.raises(ValueError, match="on purpose"):
        conn.close()


def test_where_flask_does_not_propagate_it_is_logged(
    kit: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    @kit.route("/raise")
    async def raise_(ws: Any) -> None:
        raise ValueError("on purpose")

    kit.app.config["PROPAGATE_EXCEPTIONS"] = False
    with caplog.at_level(logging.ERROR), kit.client.connect("/raise") as conn:
        assert conn.receive() is None
    assert conn.close_code == 1011
    assert "ValueError: on purpose" in caplog.text


def test_an_exception_before_the_handshake(kit: Kit) -> None:
    @kit.app.before_request
    def fail() -> None:
        raise KeyError("before")

    with pytest.raises(KeyError, match="before"):
        kit.client.connect("/echo")
    kit.app.config["PROPAGATE_EXCEPTIONS"] = False
    with pytest.raises(HandshakeRejected) as caught:
        kit.client.connect("/echo")
    assert caught.value.response.status_code == 500


@pytest.mark.parametrize("lazy", [False, True])
def test_a_header_that_cannot_be_sent(
    kit: Kit, lazy: bool, caplog: pytest.LogCaptureFixture
) -> None:
    kit.app.config["PROPAGATE_EXCEPTIONS"] = False

    @kit.route("/header", lazy=lazy)
    async def header(ws: Any) -> None:
        await ws.send("never")

    @kit.app.after_request
    def after(response: Response) -> Response:
        response.set_cookie("fine", "日本")
        response.headers["X-Header"] = "日本"
        return response

    with pytest.raises(HandshakeRejected) as caught:
        kit.client.connect("/header")
    assert caught.value.response.status_code == 500
    assert "the header field 'X-Header' cannot be sent" in caplog.text
    assert "日本" not in caplog.text


def test_what_an_app_exits_with_reaches_the_test(kit: Kit) -> None:
    @kit.app.before_request
    def leave() -> None:
        raise SystemExit("on purpose")

    with pytest.raises(SystemExit, match="on purpose"):
        kit.client.connect("/echo")


def test_a_failing_test_is_not_hidden(kit: Kit) -> None:
    with pytest.raises(ZeroDivisionError), kit.client.connect("/echo"):
        _ = 1 / 0


def test_nothing_waits_for_ever(kit: Kit) -> None:
    with kit.client.connect("/echo", timeout=0.1) as conn:
        before = time.monotonic()
        with pytest.raises(TimeoutError, match=r"no message from /echo within 0\.1 s"):
            conn.receive()
        with pytest.raises(TimeoutError):
            conn.receive(timeout=0.05)
        assert time.monotonic() - before < PATIENCE


@pytest.mark.slow
def test_a_thread_that_does_not_end_is_told() -> None:
    kit, done = Kit(WebSocket), threading.Event()

    @kit.websocket.route("/stuck")
    def stuck(ws: Any) -> None:
        done.wait(30)

    with (
        pytest.raises(TimeoutError, match="the handler of /stuck still runs"),
        kit.client.connect("/stuck", timeout=0.1),
    ):
        pass
    done.set()


@pytest.mark.slow
def test_a_greenlet_that_does_not_notice_the_end_is_interrupted() -> None:
    import gevent

    kit = Kit(GeventWebSocket)

    @kit.websocket.route("/stuck")
    def stuck(ws: Any) -> None:
        gevent.sleep(60)

    with kit.client.connect("/stuck", timeout=1):
        pass


@pytest.mark.slow
def test_a_task_that_does_not_notice_the_end_is_interrupted() -> None:
    kit = Kit(AsyncioWebSocket)

    @kit.websocket.route("/stuck")
    async def stuck(ws: Any) -> None:
        await asyncio.sleep(60)

    with kit.client.connect("/stuck", timeout=1):
        pass


def test_teardown_has_run_when_the_block_is_left(kit: Kit) -> None:
    torn = []

    @kit.app.teardown_request
    def tear(error: BaseException | None) -> None:
        torn.append(error)

    for _ in range(3):
        with kit.client.connect("/echo") as conn:
            conn.send("x")
            conn.receive()
            torn.clear()
        assert torn == [None]


def test_contexts_of_the_test_are_not_the_handlers(kit: Kit) -> None:
    @kit.route("/g")
    async def of_g(ws: Any) -> None:
        await ws.send(str(g.get("mine")))

    with kit.app.app_context():
        g.mine = "the test's"
        with kit.client.connect("/g") as conn:
            assert conn.receive() == "None"


def test_flasks_client_goes_on_as_ever(kit: Kit) -> None:
    @kit.app.get("/page")
    def page() -> str:
        return "page"

    with kit.client:
        assert kit.client.get("/page").text == "page"
        assert request.path == "/page"
        with kit.client.connect("/echo") as conn:
            conn.send("x")
            assert conn.receive() == "x"


def test_as_the_apps_own_class_of_clients(kit: Kit) -> None:
    class Mine(FlaskClient):
        def mine(self) -> str:
            return "mine"

    kit.app.test_client_class = Mine
    client = kit.websocket.test_client(kit.app, use_cookies=False)
    assert isinstance(client, Mine)
    assert client.mine() == "mine"
    with client.connect("/echo") as conn:
        conn.send("x")
        assert conn.receive() == "x"

    kit.app.test_client_class = WebSocketTestClient
    with kit.app.test_client().connect("/echo") as conn:
        conn.send("x")
        assert conn.receive() == "x"


def test_messages_above_the_limit(kit: Kit) -> None:
    kit.app.config["UWSGI_WEBSOCKET_MAX_MESSAGE_SIZE"] = 10
    with kit.client.connect("/echo") as conn:
        conn.send("x" * 11)
        assert conn.receive() is None
    assert conn.close_code == 1009


@pytest.mark.slow
def test_the_pytest_fixture(tmp_path: Path) -> None:
    (tmp_path / "test_chat.py").write_text(
        textwrap.dedent("""
            import pytest
            from flask import Flask
            from flask_uwsgi_websocket import WebSocket

            @pytest.fixture
            def app():
                app = Flask("chat")
                websocket = WebSocket(app)
                @websocket.route("/echo")
                def echo(ws):
                    ws.send(ws.receive())
                return app

            def test_echo(websocket_client):
                with websocket_client.connect("/echo") as conn:
                    conn.send("hi")
                    assert conn.receive() == "hi"
        """)
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", PLUGIN, "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_plugin_is_registered() -> None:
    assert f'"pytest11": ["uwsgi_websocket={PLUGIN}"]' in (ROOT / "setup.py").read_text()


def test_without_an_app() -> None:
    with pytest.raises(RuntimeError, match="needs an app"):
        WebSocket().test_client()


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("extension", ["GeventWebSocket", "WebSocket"])
def test_in_a_process_that_gevent_has_patched(extension: str) -> None:
    code = f"""
        from gevent.monkey import patch_all; patch_all()
        import queue, threading
        from flask import Flask
        from flask_uwsgi_websocket import {extension}
        app = Flask("x"); app.testing = True
        websocket = {extension}(app)
        messages = queue.Queue()
        @websocket.route("/get")
        def get(ws): ws.send(messages.get())
        @websocket.route("/put")
        def put(ws): messages.put(ws.receive())
        client = websocket.test_client(app)
        with client.connect("/get") as get, client.connect("/put") as put:
            put.send("through a queue")
            print(get.receive())
    """
    assert python(code) == "through a queue"


@pytest.mark.slow
def test_coroutines_where_gevent_has_replaced_threads() -> None:
    code = """
        from gevent.monkey import patch_all; patch_all()
        import logging; logging.disable()
        from flask import Flask
        from flask_uwsgi_websocket import AsyncioWebSocket
        from flask_uwsgi_websocket.testing import HandshakeRejected
        app = Flask("x"); app.testing = True
        websocket = AsyncioWebSocket(app)
        @websocket.route("/echo")
        async def echo(ws): pass
        try:
            websocket.test_client(app).connect("/echo")
        except HandshakeRejected as error:
            print(error.response.status_code, error.response.text)
    """
    assert python(code).startswith("500 AsyncioWebSocket needs real threads")


# What clients send, where it is shown


def test_the_path_is_decoded_and_cannot_forge_a_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Flask(__name__)
    websocket = WebSocket(app)

    @websocket.route("/<room>")
    def tell(ws, room):
        ws.send_json([ws.path, repr(ws)])
        raise ValueError

    with websocket.test_client().connect("/caf%C3%A9%0A%1B[31m%FF") as conn:
        path, shown = conn.receive_json()
        assert path == "/café\n\x1b[31m\ufffd"
        assert shown == "<WebSocketClient /café\\n\\x1b[31m\ufffd connected>"
        assert conn.receive() is None
    assert "handler of /café\\n\\x1b[31m\ufffd" in caplog.records[0].getMessage()


def test_a_close_reason_cannot_forge_a_line() -> None:
    error = ConnectionClosed(4000, "bye\n2026 forged \u202e\x1b[2J")
    assert str(error).endswith(r"code 4000 (bye\n2026 forged \u202e\x1b[2J)")
    assert error.reason == "bye\n2026 forged \u202e\x1b[2J"


# What handlers close with


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        *(
            (code, "")
            for code in (None, "1000", 1000.0, 0, 999, 1004, 1005, 1006, 1015, 2999, 5000)
        ),
        (1000, None),
        (1000, b"bye"),
        (1000, "x" * 124),
        (1000, "\ud800"),
    ],
)
def test_what_may_not_be_sent_is_refused_and_the_connection_stays_open(code, reason):
    app = Flask(__name__)
    websocket = WebSocket(app)

    @websocket.route("/")
    def close(ws):
        with pytest.raises(ValueError, match=r"code|reason|125|UTF-8"):
            ws.close(code, reason)
        ws.send("still here")

    with websocket.test_client().connect("/") as conn:
        assert conn.receive() == "still here"
        assert conn.receive() is None
        assert conn.close_code == 1000


def test_a_close_without_a_code_is_told_as_1005_and_cannot_be_sent_on():
    app = Flask(__name__)
    websocket = AsyncioWebSocket(app)

    @websocket.route("/")
    async def close(ws):
        with pytest.raises(ValueError, match="close code 1005 may not be sent: 1000 to 1003"):
            await ws.close(1005)
        await ws.close(4000, "bye")
        await ws.close(1005)  # it is closed, and that does nothing

    with websocket.test_client().connect("/") as conn:
        assert conn.receive() is None
        assert (conn.close_code, conn.close_reason) == (4000, "bye")


@pytest.mark.slow
def test_an_ended_connection_leaves_its_handshake_to_no_garbage_collector(kit: Kit) -> None:
    def handshakes() -> int:
        return sum(isinstance(thing, Handshake) for thing in gc.get_objects())

    gc.collect()
    before = handshakes()
    gc.disable()
    try:
        with kit.client.connect("/echo") as conn:
            conn.send("hi")
            assert conn.receive() == "hi"
            assert handshakes() == before + 1
        eventually(lambda: handshakes() == before, "the handshake to be freed")
    finally:
        gc.enable()
