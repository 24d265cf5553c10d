"""Whatever is raised wherever, a client gets an HTTP answer, or a Close with a true code, soon."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.rawclient import Answer, Refused, close_frame
from tests.server import PATIENCE, Server, eventually

#: Exceptions of every kind, and those that are hard to put into words.
TEXTS = ("surrogate", "long", "unprintable")
KINDS = (
    *("exception", "abort", "exit", "interrupt", "killed", "odd", "closed", "stop"),
    *TEXTS,
)

#: How many threads a server may start for its first such request, or a worker a little late; those
#: of gevent's own pool.
THREADS = {"threads": 2, "gevent": 10, "asyncio": 2}

#: Before the handshake: an HTTP answer.
BEFORE = (
    *("before_request", "errorhandler", "error_after", "got_request_exception_before"),
    *("url_value_preprocessor", "context_processor", "open_session", "stream"),
    *("request_started", "response_class", "middleware", "error_teardown"),
)
#: Where the response 101 is made: an HTTP answer too, also where a handler runs by then.
RESPONDING = ("after_request", "save_session", "json")
#: In the handler: a Close with 1011, or an HTTP answer where the handshake waits for it.
HANDLING = (
    *("handler", "handler_later", "handler_after_receive"),
    *("got_request_exception", "logging"),
)
IN_SERVER = ("server_init", "server_open", "server_message", "server_close")
IN_DECORATOR = ("decorator", "decorator_after")
#: When the handler is through, and its client told so.
AFTER = (
    *("teardown_request", "teardown_appcontext", "request_tearing_down", "request_finished"),
    *("middleware_after", "body", "body_end", "body_close"),
)

#: Who is asked for them.
CASES = {
    BEFORE: ["/eager"],
    RESPONDING: ["/eager", "/lazy", "/accepts", "/stubborn", "/thread"],
    HANDLING: ["/eager", "/lazy"],
    IN_SERVER: ["/server"],
    IN_DECORATOR: ["/decorated"],
    AFTER: ["/eager", "/lazy"],
}

#: What other servers of this kind leave their clients with, or far too late.
SOON = PATIENCE

#: Seconds for which the handler of /late is busy.
LATE_HANDLER = 4.0


def outcome(server: Server, path: str) -> str:
    """How it ends for a client: `HTTP status`, `Close code`, or what should not be."""
    began = time.monotonic()
    try:
        with server.tcp() as client:
            client.patience = SOON
            try:
                client.handshake(path)
            except Refused as refused:
                return f"HTTP {refused.answer.status}"
            client.text("hello")
            close = client.read_close(SOON)
            with contextlib.suppress(OSError):
                client.send(close_frame(1000))
            return f"Close {close.code}" if client.ended(SOON) else "never ends"
    except (EOFError, OSError, AssertionError, TimeoutError) as error:
        return f"{type(error).__name__} {error} after {time.monotonic() - began:.1f} s"[:200]


def expected(place: str, kind: str, path: str) -> set[str]:
    http = {"HTTP 500", "HTTP 418"} if kind == "abort" else {"HTTP 500"}
    waits = path.startswith(("/lazy", "/decorated"))  # with its handshake, for its handler
    if place in BEFORE or place in RESPONDING:
        return http
    if place == "request_finished" and not waits:
        return http
    if place in AFTER or place == "server_close":
        return {"Close 1000"}
    if waits and place in ("handler", "got_request_exception", "logging", "decorator"):
        return http
    return {"Close 1011"}


@pytest.fixture
def failing(shared_server, engine: str) -> Server:
    return shared_server(engine, app="failing")


def cases() -> Iterator[tuple[str, str, str]]:
    """Places, what is raised there, and the path that has it raised."""
    for kind in KINDS:
        yield "before_request", kind, f"/converted/{kind}"
        for places, paths in CASES.items():
            # What they are told has to be put into words in some places only.
            if kind in TEXTS and places in (BEFORE, AFTER):
                continue
            for place, path in itertools.product(places, paths):
                yield place, kind, f"{path}?at={place}&raise={kind}"


@pytest.mark.slow
def test_whatever_is_raised_wherever(failing: Server) -> None:
    server = failing
    assert outcome(server, "/eager") == "Close 1000"
    server.wait_idle()
    pid, descriptors, threads = server.worker_pid, server.settled_descriptors(), server.threads()
    wrong = {}
    for place, kind, path in cases():
        logged = server.log_path.stat().st_size
        end = outcome(server, path)
        if end not in expected(place, kind, path):
            wrong[path] = end
        # Flask does not log the one either; the others are no news once the client has left.
        if kind != "abort" and (place, kind) not in {
            ("server_close", "closed"),
            ("server_close", "killed"),
        }:
            eventually(
                lambda logged=logged: server.log_path.stat().st_size > logged,
                f"a word in the log about {path}",
            )
    assert not wrong, "\n".join(f"{path}: {end}" for path, end in wrong.items())
    server.wait_idle()
    assert server.worker_pid == pid
    eventually(lambda: server.descriptors() <= descriptors, "each descriptor to come back")
    # One that has just ended may be there for a moment.
    most = threads + THREADS[server.engine]
    eventually(lambda: server.threads() <= most, f"{most} threads again")
    assert outcome(server, "/eager") == "Close 1000"
    # Tracebacks are what the log is for.
    server.allow_log("Traceback", "on purpose")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["exception", "exit"])
def test_a_handshake_that_the_clock_fails_to_answer(failing: Server, kind: str) -> None:
    # Its handler is busy for another while: the client need not wait for that.
    path = f"/late?at=after_request&raise={kind}"
    began = time.monotonic()
    assert outcome(failing, path) == "HTTP 500"
    assert time.monotonic() - began < LATE_HANDLER
    failing.wait_idle()
    assert failing.new_log().count("Exception in the WebSocket handler of /late") == 1
    failing.allow_log("Traceback", "on purpose")


def test_an_error_s_text_in_debug_mode(failing: Server) -> None:
    try:
        for kind, reason in (
            ("surrogate", "RuntimeError: on purpose \\ud800"),
            ("unprintable", ""),
            ("long", ("RuntimeError: " + "on purpose " * 1000)[:123]),
        ):
            with failing.raw(f"/eager?at=handler&raise={kind}&debug=1") as client:
                close = client.read_close()
                assert (close.code, close.reason[:123]) == (1011, reason), kind
    finally:
        assert outcome(failing, "/eager?debug=0") == "Close 1000"
        failing.allow_log("Traceback", "on purpose")


# The fields of the 101


def names(answer: Answer) -> list[str]:
    return sorted(name.lower() for name, _ in answer.headers)


MANDATORY = ["connection", "sec-websocket-accept", "upgrade"]
OTHERS = ["set-cookie", "vary"]

MEDDLING = {
    "dropped": "drop=Upgrade&drop=Connection&drop=Sec-WebSocket-Accept",
    "changed": "set=Upgrade:+h2c&set=Connection:+close&set=Sec-WebSocket-Accept:+wrong",
    "doubled": "add=upgrade:+websocket&add=Connection:+keep-alive&add=SEC-WEBSOCKET-ACCEPT:+x",
    "about content": "set=Content-Length:+7&set=Content-Type:+text/html&set=Content-Encoding:+gzip"
    "&set=Transfer-Encoding:+chunked&set=Trailer:+X&set=Keep-Alive:+timeout",
    "negotiated": "set=Sec-WebSocket-Protocol:+other&set=Sec-WebSocket-Extensions:+x&"
    "set=Sec-WebSocket-Version:+8",
}


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/eager", "/lazy"])
def test_the_101_is_right_whatever_is_done_to_it(failing: Server, path: str) -> None:
    for meddling, query in MEDDLING.items():
        with failing.raw(f"{path}?{query}&add=X-Extra:+1&add=X-Extra:+2") as client:
            answer = client.answer
            assert answer is not None
            assert names(answer) == sorted([*MANDATORY, *OTHERS, "x-extra", "x-extra"]), meddling
            assert answer.get("Upgrade") == "websocket"
            assert answer.get("Connection") == "Upgrade"
            assert answer.all("X-Extra") == ["1", "2"]
            client.text("hello")
            assert client.message() == '"hello"'


@pytest.mark.parametrize("path", ["/eager?", "/lazy?"])
def test_what_was_negotiated_counts(failing: Server, path: str) -> None:
    offer = {
        "Sec-WebSocket-Protocol": "a, b",
        "Sec-WebSocket-Extensions": "permessage-deflate",
    }
    path = path.replace("?", "/negotiated?")
    for query in (
        MEDDLING["negotiated"],
        "drop=Sec-WebSocket-Protocol&drop=Sec-WebSocket-Extensions",
    ):
        with failing.raw(f"{path}{query}", headers=offer) as client:
            assert client.answer is not None
            assert client.answer.all("Sec-WebSocket-Protocol") == ["b"]
            assert len(client.answer.all("Sec-WebSocket-Extensions")) == 1
            assert "sec-websocket-version" not in names(client.answer)


@pytest.mark.parametrize("path", ["/eager", "/lazy"])
def test_a_header_that_latin_1_has_not(failing: Server, path: str) -> None:
    assert outcome(failing, f"{path}?header={quote('日本')}") == "HTTP 500"
    named = "the header field 'X-Header' cannot be sent"
    eventually(lambda: named in failing.new_log(), named)
    failing.allow_log("Traceback")


def test_an_after_request_function_that_refuses(failing: Server) -> None:
    answer = failing.refused("/eager?status=403")
    assert answer.status == 403
    assert not set(MANDATORY) & set(names(answer)) - {"connection"}
    assert outcome(failing, "/lazy?status=403") == "HTTP 500"
    failing.allow_log("Traceback")


# An abort() after the handshake


@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [
        ("/abort/401", 1008, "401 Unauthorized"),
        ("/abort/403", 1008, "403 Forbidden"),
        ("/abort/404", 1011, "404 Not Found"),
        ("/abort/503", 1011, "503 Service Unavailable"),
        ("/abort-with-a-response", 1011, "303 See Other"),
        ("/missing-argument", 1011, "400 Bad Request"),
        ("/abort-lazily/403?use=1", 1008, "403 Forbidden"),
    ],
)
def test_an_abort_after_the_handshake(failing: Server, path: str, code: int, reason: str) -> None:
    # Flask does not signal these either: a receiver would raise.
    query = "&" if "?" in path else "?"
    logged = len(failing.log())
    with failing.raw(f"{path}{query}at=got_request_exception&raise=exception") as client:
        close = client.read_close()
        assert (close.code, close.reason) == (code, reason)
    failing.wait_idle()
    lines = failing.log()[logged:].splitlines()
    assert len(lines) == 1, lines
    assert f"{path.partition('?')[0]} closed with {code} ({reason})" in lines[0]
    assert ("lazy=True" in lines[0]) != ("lazily" in path)


def test_an_abort_before_a_handshake_that_waits(failing: Server) -> None:
    for status in (401, 404):
        assert outcome(failing, f"/abort-lazily/{status}") == f"HTTP {status}"


# Decorators that are made for views; more of them in test_view_decorators.py


@pytest.mark.parametrize("path", ["/no-cache", "/no-cache-eager"])
def test_a_decorator_that_makes_a_response_of_nothing(failing: Server, path: str) -> None:
    assert outcome(failing, path) == "Close 1000"
    assert outcome(failing, f"{path}?at=handler_later&raise=exception") == "Close 1011"
    failing.allow_log("Traceback")
