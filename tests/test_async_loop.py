"""The loop for asynchronous work of a worker, and how an engine waits for what runs on it."""

from __future__ import annotations

import json
import socketserver
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server import Server

#: The engines, and what the app is configured with.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "threads": ("threads", {}),
    "gevent": ("gevent", {}),
    "gevent-unpatched": ("gevent", {"UWSGI_WEBSOCKET_AGGRESSIVE_PATCH": False}),
    "asyncio": ("asyncio", {}),
    "asyncio-uvloop": ("asyncio-uvloop", {}),
    "suspend": ("async", {}),
}
BESIDE = [kind for kind in KINDS if not kind.startswith("asyncio")]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
def worker(kind: str, shared_server) -> Server:
    engine, config = KINDS[kind]
    server: Server = shared_server(engine, app="async_loop", config=config)
    return server


def ask(server: Server, path: str) -> Any:
    answer = server.get(path)
    assert answer.status == 200, answer
    return json.loads(answer.body)


def test_a_view_waits_for_a_coroutine(worker: Server, kind: str) -> None:
    assert ask(worker, "/add") == {"sum": 3, "own": kind.startswith("asyncio")}


def test_an_exception_comes_with_its_traceback(worker: Server) -> None:
    assert ask(worker, "/fail") == {"error": "KeyError('on purpose')", "at": "fail"}


@pytest.mark.parametrize("kind", BESIDE)
def test_the_loop_outlives_a_system_exit(worker: Server) -> None:
    assert ask(worker, "/leave") == {"error": "SystemExit('on purpose')", "sum": 3}


def test_a_timeout_cancels_the_coroutine(worker: Server) -> None:
    answer = ask(worker, "/timeout")
    assert 0.1 <= answer["took"] < 5
    assert answer["ends"] == ["CancelledError"]


def test_the_result_comes_behind_what_the_coroutine_has_called(worker: Server) -> None:
    assert ask(worker, "/order") == {"in_order": True}


def test_a_coroutine_sees_no_context_of_the_request(worker: Server) -> None:
    assert ask(worker, "/context") == {"variable": "none", "request": False}


def test_names_are_resolved_in_real_threads(worker: Server) -> None:
    answer = ask(worker, "/resolve")
    assert {"127.0.0.1", "::1"}.intersection(answer["addresses"])
    assert (answer["name"], answer["thread"]) == ("localhost", "in thread")


@pytest.fixture
def tls_echo(certificate: tuple[Path, Path]) -> Iterator[int]:
    """The port of a server that speaks TLS and gives a line back."""

    class Echo(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(self.rfile.readline())

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_streams_and_tls_work(
    worker: Server, tls_echo: int, certificate: tuple[Path, Path]
) -> None:
    answer = ask(worker, f"/tls?port={tls_echo}&certificate={certificate[0]}")
    assert answer == {"answer": "hi\n"}


@pytest.mark.parametrize("kind", BESIDE)
def test_the_loop_goes_on_while_a_handler_blocks_the_worker(worker: Server) -> None:
    assert ask(worker, "/blocked")["longest"] < 0.4


def test_whoever_would_stop_the_loop_is_told_what_to_do(worker: Server) -> None:
    assert "await in a coroutine" in ask(worker, "/again")["error"]
    [error] = ask(worker, "/callback")["seen"]
    assert "use send_nowait() in a callback" in error


def test_a_thread_that_is_no_requests_waits_too(worker: Server) -> None:
    assert ask(worker, "/foreign") == {"seen": [3]}
