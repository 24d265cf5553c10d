"""The loop for asynchronous work of a worker, and how an engine waits for what runs on it."""

from __future__ import annotations

import json
import signal
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ServerFactory
from tests.server import PATIENCE, Server, eventually

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
    assert ask(worker, "/blocked")["longest"] < 1.9


def test_whoever_would_stop_the_loop_is_told_what_to_do(worker: Server) -> None:
    assert "await in a coroutine" in ask(worker, "/again")["error"]
    [error] = ask(worker, "/callback")["seen"]
    assert "use send_nowait() in a callback" in error


def test_a_thread_that_is_no_requests_waits_too(worker: Server) -> None:
    assert ask(worker, "/foreign") == {"seen": [3]}


def test_a_child_process_makes_a_loop_of_its_own(worker: Server) -> None:
    assert ask(worker, "/fork") == {"child": 42, "after": 3}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BESIDE)
def test_a_thousand_wait_at_a_time(worker: Server, token: str) -> None:
    with worker.raw(f"/many/{token}/1000"):
        assert worker.record(token) == {"right": True}


@pytest.mark.parametrize("kind", ["gevent", "gevent-unpatched"])
def test_a_greenlet_that_is_killed_cancels_its_coroutine(worker: Server, token: str) -> None:
    with worker.raw(f"/killed/{token}"):
        assert worker.record(token) == {"ends": ["CancelledError"], "value": "GreenletExit()"}


@pytest.mark.parametrize("kind", BESIDE)
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGHUP])
def test_a_worker_stops_in_the_middle_of_a_call(
    serve: ServerFactory, kind: str, signum: int
) -> None:
    engine, config = KINDS[kind]
    server = serve(engine, app="async_loop", config={**config, "TEST_TIMEOUT": 1})
    pid = ask(server, "/pid")
    with server.raw("/hang") as client:
        assert client.message() == "waits"
        began = time.monotonic()
        server.signal(signum)
        if signum == signal.SIGINT:
            server.wait_ended()
        else:
            eventually(lambda: _answers_with(server, pid), "another worker")
        assert time.monotonic() - began < PATIENCE


def _answers_with(server: Server, former: int) -> bool:
    try:
        return bool(ask(server, "/pid") != former)
    except OSError:
        return False


@pytest.mark.parametrize("kind", ["threads", "gevent", "gevent-unpatched", "asyncio"])
def test_a_process_ends_its_own_tasks_in_silence(kind: str) -> None:
    command = [sys.executable, "-X", "dev", "-W", "error", "-m", "tests.apps.exiting", kind]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    # asyncio's development mode tells of what took a busy machine long.
    told = [line for line in ended.stderr.splitlines() if not line.startswith("Executing <")]
    assert (ended.returncode, told) == (0, [])
    assert ended.stdout.splitlines() == ["child finally"] * 2 + ["parent finally"] * 2


def test_the_loop_waits_for_no_greenlet_to_publish() -> None:
    """With gevent's locks its thread would wait for a hub, and here the hub for it."""
    command = [sys.executable, "-m", "tests.apps.flooding"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE)
    assert (ended.returncode, ended.stdout) == (0, "published 20000, no hub in the loop's thread\n")
