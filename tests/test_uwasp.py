"""Servers that are classes, on every engine: on a bare WSGI application, and on Flask."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

from flask_uwsgi_websocket import AsyncioWebSocket, GeventWebSocket, WebSocket
from flask_uwsgi_websocket import uwasp as uwasp_module
from flask_uwsgi_websocket.uwasp import AsyncioHandler, GeventHandler, WebSocketMiddleware
from flask_uwsgi_websocket.uwasp import Server as WebSocketServer
from tests.conftest import ServerFactory
from tests.rawclient import PING, PONG, TEXT, close_frame, frame
from tests.server import ROOT, Server, eventually

MOUNTS = {"bare": {}, "flask": {"MOUNT": "flask"}}


@pytest.fixture(params=MOUNTS.values(), ids=MOUNTS.keys())
def server(request: pytest.FixtureRequest, engine: str, shared_server: ServerFactory) -> Server:
    """The same servers on both kinds of application."""
    return shared_server(engine, app="uwasp", config=request.param)


@pytest.fixture
def bare(engine: str, shared_server: ServerFactory) -> Server:
    return shared_server(engine, app="uwasp", config=MOUNTS["bare"])


@pytest.fixture
def flask(engine: str, shared_server: ServerFactory) -> Server:
    return shared_server(engine, app="uwasp", config=MOUNTS["flask"])


def refusal(server: Server, path: str, **headers: str) -> tuple[int, str]:
    answer = server.refused(path, headers=headers)
    return answer.status, answer.body.decode()


# Messages


@pytest.mark.parametrize("path", ["/echo", "/plain"])
def test_echo(server: Server, path: str) -> None:
    with server.raw(path) as client:
        for message in ["", "text", "Grüße, 世界 🌍", "x" * 40_000]:
            client.echo(message)
        for data in [b"", b"\x00\xff", bytes(40_000)]:
            client.binary(data)
            assert client.message() == data
        assert client.leave().code == 1000


def test_a_client_of_another_make(server: Server) -> None:
    with server.connect("/chat", subprotocols=["chat.v1", "chat.v2"]) as client:
        assert client.subprotocol == "chat.v2"
        assert client.recv(30) == "speaking chat.v2"
        client.send("hello")
        assert client.recv(30) == "hello"


def test_messages_are_handled_in_order(server: Server, token: str) -> None:
    with server.raw(f"/life?{token}") as client:
        client.send(b"".join(frame(TEXT, str(index)) for index in range(2000)))
        assert client.leave().code == 1000
    events = server.record(token)["events"]
    expected = [event for index in range(2000) for event in (str(index), "handled")]
    assert events == ["made", "open False True", *expected, "close"]


# The life of a connection


def test_open_message_close(server: Server, token: str) -> None:
    with server.raw(f"/life?{token}") as client:
        client.text("one")
        client.binary(b"\xff")
        client.leave(4000, "bye")
    seen = server.record(token)
    assert seen["events"] == [
        *("made", "open False True", "one", "handled", "1 bytes", "handled", "close")
    ]
    assert seen["closed"]
    assert seen["code"] == 4000
    assert len(server.records(token)) == 1


def test_the_server_closes(server: Server, token: str) -> None:
    with server.raw(f"/closes?{token}") as client:
        client.send(frame(TEXT, "one") + frame(TEXT, "not handled"))
        close = client.read_close()
        assert (close.code, close.reason) == (4001, "enough")
        client.send(close_frame(4001))
        assert client.ended()
    assert server.record(token)["events"] == ["made", "open False True", "one", "handled", "close"]
    assert len(server.records(token)) == 1


@pytest.mark.parametrize("how", ["abort", "close", "half_close"])
def test_abrupt_ends(server: Server, token: str, how: str) -> None:
    with server.raw(f"/life?{token}") as client:
        client.text("one")
        if how == "abort":  # which discards what was not read yet
            client.send(frame(PING))
            while client.read().opcode != PONG:
                pass
        getattr(client, how)()
        seen = server.record(token)
    assert seen["events"] == ["made", "open False True", "one", "handled", "close"]
    assert seen["code"] == 1006


def test_broken_frame(server: Server, token: str) -> None:
    with server.raw(f"/life?{token}") as client:
        client.send(frame(TEXT, "one") + frame(0x3, "reserved"))
        assert client.read_close().code == 1002
    seen = server.record(token)
    assert seen["events"] == ["made", "open False True", "one", "handled", "close"]
    assert seen["code"] == 1002


FAILURES = {
    "fails-to-open": ["made", "close"],
    "fails-on-message": ["made", "open False True", "one", "handled", "close"],
    "fails-twice": ["made", "open False True", "one", "handled", "close"],
    "exits": ["made", "open False True", "one", "handled", "close"],
}


@pytest.mark.parametrize("path", FAILURES)
def test_exceptions_close_with_1011(server: Server, token: str, path: str) -> None:
    server.allow_log("Traceback")
    with server.raw(f"/{path}?{token}") as client:
        client.send(frame(TEXT, "one") + frame(TEXT, "not handled"))
        assert client.read_close().code == 1011
        client.send(close_frame(1011))
        assert client.ended()
    seen = server.record(token)
    assert seen["events"] == FAILURES[path]
    assert seen["code"] == 1011
    assert len(server.records(token)) == 1
    method = "on_open" if path == "fails-to-open" else "on_message"
    raised = "SystemExit: 3" if path == "exits" else f"ValueError: {method} on purpose"
    eventually(lambda: server.new_log().count(raised) == 1, f"{raised!r} in the log, once")
    assert server.new_log().count("Traceback") == 1


def test_an_exception_in_on_close_is_logged(server: Server, token: str) -> None:
    server.allow_log("Traceback")
    with server.raw(f"/fails-to-close?{token}") as client:
        client.leave()
    assert server.record(token)["events"] == ["made", "open False True", "close"]
    assert len(server.records(token)) == 1
    raised = "ValueError: on_close on purpose"
    eventually(lambda: server.new_log().count(raised) == 1, f"{raised!r} in the log, once")


def test_after_a_failure_others_go_on(server: Server, token: str) -> None:
    server.allow_log("Traceback")
    with server.raw("/echo") as other:
        with server.raw(f"/fails-on-message?{token}") as client:
            client.text("one")
            client.read_close()
        other.echo("still here")


@pytest.mark.parametrize("mount", MOUNTS)
def test_the_worker_stops(engine: str, mount: str, serve: ServerFactory) -> None:
    server = serve(engine, app="uwasp", config=MOUNTS[mount])
    with ExitStack() as stack:
        clients = [stack.enter_context(server.raw("/prints")) for _ in range(5)]
        server.begin_stop()
        codes = {client.read_close().code for client in clients}
        for client in clients:
            client.send(close_frame())
            client.close()
        server.wait_ended()
    [code] = codes
    assert server.log().count("on_close") == server.log().count(f"on_close {code}") == 5


# Slow servers, slow clients, many senders


@pytest.mark.slow
@pytest.mark.slow
def test_a_slow_server_is_read_from_meanwhile(server: Server, token: str) -> None:
    """Pings are answered, and what comes waits its turn, while on_message is busy."""
    with server.raw(f"/life?{token}") as client:
        for _ in range(3):
            client.text("slow")
        client.send(frame(PING, "alive?"))
        before = time.monotonic()
        while (found := client.read()).opcode != PONG:
            pass
        assert found.payload == b"alive?"
        assert time.monotonic() - before < 2.5, "the pong came after the messages"
        client.leave()
    assert server.record(token)["events"][2:] == [*["slow", "handled"] * 3, "close"]


@pytest.mark.slow
def test_what_a_slow_server_has_not_handled_is_bounded(bare: Server, token: str) -> None:
    memory = bare.rss()
    with bare.raw(f"/stuck?{token}") as client:
        client.text("work")
        client.socket.settimeout(2)
        with pytest.raises(TimeoutError):
            client.socket.sendall(frame(TEXT, "x" * 60_000) * 1000)
        assert bare.rss() - memory < 24 << 20
        client.abort()


@pytest.mark.parametrize("engine", ["gevent", "asyncio"])  # a thread cannot be interrupted
def test_a_handler_that_does_not_notice_the_end_is_interrupted(
    engine: str, serve: ServerFactory, token: str
) -> None:
    server = serve(engine, app="uwasp", config={"TEST_TIMEOUT": 0.5})
    with server.raw(f"/stuck?{token}") as client:
        client.text("work")
        client.leave()
        left = time.monotonic()
    assert server.record(token)["events"][-3:] == ["work", "handled", "close"]
    assert time.monotonic() - left < 6, "it slept to its end"


@pytest.mark.slow
def test_sends_wait_for_a_client_that_does_not_read(server: Server) -> None:
    with server.raw("/flood") as client:
        memory = server.rss()
        client.text("wait")
        time.sleep(1)
        assert server.rss() - memory < 3 << 20
        for _ in range(64):
            assert client.message() == bytes(65536)
        assert client.message() == "done"


def test_asyncio_closes_a_client_for_which_nobody_waits(shared_server: ServerFactory) -> None:
    server = shared_server("asyncio", app="uwasp", config=MOUNTS["bare"])
    memory = server.rss()
    with server.raw("/flood") as client:
        client.text("do not wait")
        server.wait_idle()
        assert server.rss() - memory < 8 << 20
        client.close()


def test_threads_send_and_close(server: Server) -> None:
    with server.raw("/senders") as client:
        seen: dict[str, list[int]] = {}
        for _ in range(1000):
            name, index = str(client.message()).split()
            seen.setdefault(name, []).append(int(index))
        assert seen == {str(name): list(range(250)) for name in range(4)}
        close = client.read_close()
        assert (close.code, close.reason) == (1000, "all sent")
        client.send(close_frame())
        assert client.ended()


def test_rooms(server: Server) -> None:
    with server.raw("/member?user=ann") as first, server.raw("/member") as second:
        assert first.message() == "ann ['members']"
        assert second.message() == "None ['members']"
        first.text("hello")
        assert second.message() == "hello"
        first.text("all")
        assert [first.message(), second.message()] == ["to all"] * 2
        second.text("leave")
        assert second.message() == "Count(connections=2, users=1, complete=True)"
        first.text("is anybody there?")
        assert second.silent(0.2)


def test_two_hundred_connections(engine: str, serve: ServerFactory) -> None:
    server = serve(engine, app="uwasp", cores=210)
    with ExitStack() as stack:
        clients = [stack.enter_context(server.raw("/echo")) for _ in range(200)]
        for turn in range(3):
            for index, client in enumerate(clients):
                client.text(f"{turn} {index}")
            for index, client in enumerate(clients):
                assert client.message() == f"{turn} {index}"
        for client in clients[::2]:
            assert client.leave().code == 1000


@pytest.mark.slow
def test_nothing_leaks(server: Server, token: str) -> None:
    server.allow_log("Traceback")
    paths = ["/echo", f"/fails-on-message?{token}", f"/closes?{token}"]

    def come_and_go() -> None:
        for path in paths:
            for leave in ("leave", "abort", "close"):
                with server.raw(path) as client:
                    client.text("hello")
                    getattr(client, leave)()
        server.wait_idle()

    come_and_go()
    before = server.descriptors(), server.threads()
    for _ in range(5):
        come_and_go()
    eventually(
        lambda: (server.descriptors(), server.threads()) <= before,
        f"no more than {before} descriptors and threads",
    )


# The handshake


def test_paths(bare: Server) -> None:
    assert refusal(bare, "/nowhere") == (404, "there is no WebSocket at /nowhere\n")
    assert refusal(bare, "/echo/")[0] == 404
    assert refusal(bare, "/")[0] == 404
    with bare.raw("/gr%C3%BC%C3%9Fe") as client:
        assert client.message() == "/grüße"


def test_plain_http_goes_to_the_application(bare: Server) -> None:
    assert bare.get("/echo").body == b"GET /echo of the application"
    assert bare.http("POST", "/anything", b"x").body == b"POST /anything of the application"


def test_mounted_below_a_prefix(serve: ServerFactory) -> None:
    options = ["--manage-script-name", "--mount", "/below=tests.apps.wsgi:application"]
    server = serve("threads", app="uwasp", options=options)
    with server.raw("/below/echo") as client:
        client.echo("hello")
    assert refusal(server, "/below")[0] == 404


def test_subprotocol(server: Server) -> None:
    for offer, chosen in [("chat.v2", "chat.v2"), ("x, chat.v2", "chat.v2"), ("x", None)]:
        with server.raw("/chat", headers={"Sec-WebSocket-Protocol": offer}) as client:
            assert client.answer is not None
            assert client.answer.get("Sec-WebSocket-Protocol") == chosen
            assert client.message() == f"speaking {chosen}"
    with server.raw("/chat") as client:
        assert client.message() == "speaking None"
    with server.raw("/echo", headers={"Sec-WebSocket-Protocol": "chat.v2"}) as client:
        assert client.answer is not None
        assert client.answer.get("Sec-WebSocket-Protocol") is None


def test_a_required_subprotocol(server: Server) -> None:
    with server.raw("/picky", headers={"Sec-WebSocket-Protocol": "chat.v2"}) as client:
        assert client.message() == "speaking chat.v2"
    for headers in ({}, {"Sec-WebSocket-Protocol": "x"}):
        status, reason = refusal(server, "/picky", **headers)
        assert (status, "chat.v2" in reason) == (400, True)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-WebSocket-Version": "8"}, 426),
        ({"Sec-WebSocket-Key": "short"}, 400),
        ({"Upgrade": "h2c"}, 400),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://["}, 403),
    ],
)
def test_wrong_handshakes(server: Server, headers: dict[str, str], status: int) -> None:
    assert refusal(server, "/echo", **headers)[0] == status


def test_the_origin_of_the_same_host_is_allowed(server: Server) -> None:
    with server.raw("/echo", headers={"Origin": f"http://{server.address}"}) as client:
        client.echo("hello")


def test_limits(bare: Server) -> None:
    with bare.raw("/echo") as client:
        client.binary(bytes((1 << 16) + 1))
        assert client.read_close().code == 1009


def test_a_handler_of_one_s_own(bare: Server) -> None:
    with bare.raw("/handled") as client:
        assert client.message() == "Handled handled"


def test_a_server_may_refuse_when_it_is_made(bare: Server) -> None:
    answer = bare.refused("/refuses")
    assert answer.status == 401
    assert answer.get("WWW-Authenticate") == "Basic"
    assert answer.body == b"who are you?\n"


@pytest.mark.parametrize("path", ["/fails-to-be-made", "/exits-unmade", "/sends-unopened"])
def test_a_server_that_cannot_be_made(bare: Server, path: str) -> None:
    bare.allow_log("Traceback")
    assert refusal(bare, path)[0] == 500
    reason = "not open before on_open" if path == "/sends-unopened" else "on purpose"
    eventually(lambda: reason in bare.new_log(), "the reason in the log")


# Flask


def test_what_flask_gives(flask: Server) -> None:
    with flask.raw("/room/tea/7?q=x", headers={"Origin": "http://evil.example"}) as client:
        assert client.message() == "tea 7 x Room"
        client.text("hello")
        assert json.loads(client.message()) == {"args": {"q": "x"}, "got": "hello"}
        client.text("x" * 101)
        assert client.read_close().code == 1009
    with flask.raw("/hall/big") as client:
        assert client.message() == "big 0 None Room"
    assert refusal(flask, "/echo?refuse=1") == (403, "not today")
    assert refusal(flask, "/nowhere")[0] == 404
    assert flask.get("/chat").body == b"a page"


def test_constructors_that_fail_close_with_1011(flask: Server) -> None:
    flask.allow_log("Traceback")
    with flask.raw("/fails-to-be-made") as client:
        assert client.read_close().code == 1011


@pytest.mark.parametrize(
    ("mode", "mount"), [("single", "bare"), ("single", "flask"), ("async", "flask")]
)
def test_other_modes(mode: str, mount: str, serve: ServerFactory, token: str) -> None:
    server = serve(mode, app="uwasp", config=MOUNTS[mount], cores=4)
    for leave in ("leave", "abort"):
        with server.raw(f"/life?{token}") as client:
            client.send(frame(TEXT, "one") + frame(TEXT, "slow") + frame(PING))
            while client.read().opcode != PONG:
                pass
            getattr(client, leave)()
        eventually(lambda: server.records(token), "a record")
        events = [seen["events"] for seen in server.records(token)]
        expected = ["made", "open False True", "one", "handled", "slow", "handled", "close"]
        assert events[-1] == expected
    assert len(server.records(token)) == 2


def test_the_log_names_the_remedy_of_a_loop_that_breaks_at_the_dead(server: Server) -> None:
    with server.raw("/naive") as first, server.raw("/naive") as second:
        for client in (first, second):  # each is among everybody once it has heard itself
            client.text(f"this is {client}")
            while client.message() != f"this is {client}":
                pass
        second.leave()
        server.allow_log("Traceback")
        first.text("one is gone")
        assert first.read_close().code == 1011
    server.wait_idle()
    (line,) = [line for line in server.new_log().splitlines() if "another client" in line]
    assert "/naive" in line
    assert "ConnectionClosed" in line


# Where it cannot work


@pytest.mark.parametrize(
    ("engine", "handler"), [("gevent", "ThreadHandler"), ("threads", "GeventHandler")]
)
def test_a_handler_for_another_engine(engine: str, handler: str, serve: ServerFactory) -> None:
    extension = {"ThreadHandler": "threads", "GeventHandler": "gevent"}[handler]
    server = serve(engine, app="uwasp", extension=extension)
    status, reason = refusal(server, "/echo")
    assert status == 500
    assert reason == "WebSockets do not work here; the server's log says why\n"
    log = server.new_log()
    assert f"{handler} needs uWSGI to be started with --{extension}" in log
    other = {"gevent": "GeventHandler", "threads": "ThreadHandler"}[engine]
    assert f", where {other} works\n" in log
    assert server.get("/page").body == b"GET /page of the application"


WITHOUT_UWSGI = """
import sys
for name in {missing!r}: sys.modules[name] = None
from wsgiref.util import setup_testing_defaults
from flask_uwsgi_websocket.uwasp import *

class Echo(Server):
    def on_message(self, message):
        self.ws.send(message)

def application(environ, start_response):
    start_response("200 OK", [])
    return [b"the application"]

environ = {{"PATH_INFO": "/echo", "SERVER_PROTOCOL": "HTTP/1.1"}}
setup_testing_defaults(environ)
upgrade = {{
    "HTTP_UPGRADE": "websocket",
    "HTTP_CONNECTION": "Upgrade",
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
    "HTTP_SEC_WEBSOCKET_KEY": "x3JJHMbDL1EzLkh9GBhXDw==",
}}
for handler in ThreadHandler, GeventHandler, AsyncioHandler:
    middleware = WebSocketMiddleware(application, handler, [("/echo", Echo)])
    for request in environ, {{**environ, **upgrade}}:
        print(b"".join(middleware(dict(request), lambda status, headers: print(status))).decode())
"""


def test_without_uwsgi() -> None:
    code = WITHOUT_UWSGI.format(missing=["uwsgi", "gevent", "greenlet"])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = done.stdout.splitlines()
    handlers = ["ThreadHandler", "GeventHandler", "AsyncioHandler"]
    for handler, (ok, body, status, reason) in zip(
        handlers, zip(*[iter(line for line in lines if line)] * 4, strict=True), strict=True
    ):
        assert (ok, body) == ("200 OK", "the application")
        assert status.startswith("500")
        assert reason == "WebSockets do not work here; the server's log says why"
        assert f"{handler} accepts WebSockets inside uWSGI only" in done.stderr
    assert not re.search("Traceback", done.stderr), done.stderr


class Coroutine(WebSocketServer):
    async def on_message(self, message: object) -> None: ...


class Unrelated:
    def on_message(self, message: object) -> None: ...


def test_servers_of_the_wrong_kind() -> None:
    def application(environ, start_response): ...  # type: ignore[no-untyped-def]

    for handler in (uwasp_module.ThreadHandler, GeventHandler):
        with pytest.raises(TypeError, match=r"Coroutine.on_message .* use AsyncioHandler"):
            WebSocketMiddleware(application, handler, [("/", Coroutine)])
    for extension in (WebSocket(), GeventWebSocket()):
        with pytest.raises(TypeError, match=r"AsyncioWebSocket"):
            extension.server("/")(Coroutine)
    with pytest.raises(TypeError, match=r"lacks on_open\(\)"):
        WebSocketMiddleware(application, servers=[("/", Unrelated)])
    WebSocketMiddleware(application, AsyncioHandler, [("/", Coroutine), ("/x", WebSocketServer)])
    assert AsyncioWebSocket().server("/")(Coroutine) is Coroutine


def test_a_server_on_two_routes() -> None:
    websocket = WebSocket()

    @websocket.server("/a")
    @websocket.server("/b", endpoint="b")
    class Both(WebSocketServer):
        pass

    assert set(websocket.view_functions) == {"Both", "b"}


def test_who_is_in_a_room() -> None:
    """Without Flask: in a script, nobody is."""
    middleware = WebSocketMiddleware(lambda environ, start_response: [])
    middleware.patterns.add("a", presence=True)
    assert middleware.who("a") == []
    assert middleware.present(7) is False
