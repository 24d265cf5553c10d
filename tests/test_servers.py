"""The same routes without uWSGI: Werkzeug's development server, gunicorn."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.rawclient import TEXT, RawClient, frame
from tests.server import PATIENCE, eventually

ROOT = Path(__file__).resolve().parent.parent

FLASK = [sys.executable, "-m", "flask", "--app", "tests.apps.plain", "run", "--port", "{port}"]
GUNICORN = [sys.executable, "-m", "gunicorn", "tests.apps.plain:app", "-b", "127.0.0.1:{port}"]
SERVERS = {
    "flask": FLASK,
    "flask-debug": [*FLASK[:3], "--debug", *FLASK[3:], "--no-reload"],
    "gthread": [*GUNICORN, "--threads", "16", "--graceful-timeout", "1"],
    "gevent": [*GUNICORN, "--worker-class", "gevent", "--graceful-timeout", "1"],
}
FITTING = [
    ("flask", "WebSocket"),
    ("flask", "GeventWebSocket"),
    ("flask", "AsyncioWebSocket"),
    ("flask-debug", "WebSocket"),
    ("flask-debug", "AsyncioWebSocket"),
    ("gthread", "WebSocket"),
    ("gthread", "GeventWebSocket"),
    ("gthread", "AsyncioWebSocket"),
    ("gevent", "GeventWebSocket"),
    ("gevent", "WebSocket"),
]


class Process:
    """A server in a process of its own."""

    def __init__(self, command: list[str], extension: str, place: Path, **env: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._log = place / f"{extension}-{self.port}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [word.format(port=self.port) for word in command],
                cwd=ROOT,
                env={**os.environ, "TEST_CLASS": extension, "PYTHONUNBUFFERED": "1", **env},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def start(self) -> Process:
        deadline = time.monotonic() + 20
        while True:
            try:
                assert self.get("/") == "page"
                return self
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise AssertionError(self.log()) from None
                time.sleep(0.05)

    def log(self) -> str:
        return self._log.read_text()

    def get(self, path: str) -> str:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE
        ) as answer:
            return answer.read().decode()

    def connect(self, path: str, **kwargs: Any) -> ClientConnection:
        kwargs.setdefault("proxy", None)
        return connect(f"ws://127.0.0.1:{self.port}{path}", open_timeout=PATIENCE, **kwargs)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


Start = Callable[..., Process]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    processes: dict[tuple[str, str], Process] = {}

    def get(server: str, extension: str) -> Process:
        if (server, extension) not in processes:
            process = Process(SERVERS[server], extension, tmp_path_factory.mktemp("servers"))
            processes[server, extension] = process.start()
        return processes[server, extension]

    yield get
    for process in processes.values():
        process.stop()


@pytest.fixture(params=FITTING, ids="-".join)
def server(request: pytest.FixtureRequest, shared: Start) -> Process:
    return shared(*request.param)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    processes = []

    def start(command: list[str], extension: str, **env: str) -> Process:
        process = Process(command, extension, tmp_path, **env)
        processes.append(process)
        return process.start()

    yield start
    for process in processes:
        process.stop()


def test_messages(server: Process) -> None:
    with server.connect("/echo", subprotocols=["v1"]) as client:
        assert client.subprotocol == "v1"
        assert "Set-Cookie" in client.response.headers
        for message in ("hi", b"\x00", "☃" * 300_000):
            client.send(message)
            assert client.recv(timeout=PATIENCE) == message
        assert server.get("/") == "page"
    assert client.protocol.close_code == 1000


def test_a_view_waits_for_a_coroutine(server: Process) -> None:
    assert server.get("/async") == "3"


def test_background_work_begins_with_the_first_request(server: Process) -> None:
    eventually(lambda: server.get("/began") == "each once", "both functions to run")


def test_one_of_gunicorns_workers_does_what_only_one_may(start: Start) -> None:
    process = start([*SERVERS["gthread"], "--workers", "3", "--keep-alive", "0"], "WebSocket")
    seen: Counter[str] = Counter()

    def all_have_answered() -> bool:
        seen[process.get("/began")] += 1
        return seen["each"] > 9 and seen["each once"] > 3

    eventually(all_have_answered, "several workers to answer")
    assert set(seen) <= {"", "each", "each once"}


def test_many_at_once(server: Process) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect("/echo")) for _ in range(10)]
        for round_ in range(5):
            for number, client in enumerate(clients):
                client.send(f"{number} {round_}")
            for number, client in enumerate(clients):
                assert client.recv(timeout=PATIENCE) == f"{number} {round_}"


def test_pushing_and_returning(server: Process) -> None:
    with server.connect("/push?name=a") as a, server.connect("/push?name=b") as b:
        assert [a.recv(timeout=PATIENCE) for _ in range(3)] == ["a 0", "a 1", "a 2"]
        assert [b.recv(timeout=PATIENCE) for _ in range(3)] == ["b 0", "b 1", "b 2"]
        with pytest.raises(ConnectionClosed):
            a.recv(timeout=PATIENCE)
        assert a.protocol.close_code == 1000


def test_refusals(server: Process) -> None:
    with pytest.raises(InvalidStatus) as caught, server.connect("/echo?deny=1"):
        pass
    assert caught.value.response.status_code == 403
    assert caught.value.response.body == b"denied"


def test_exceptions(server: Process) -> None:
    with server.connect("/raise") as client, pytest.raises(ConnectionClosed):
        client.recv(timeout=PATIENCE)
    assert client.protocol.close_code == 1011
    assert "ValueError: on purpose" in server.log()


@pytest.mark.parametrize(
    ("name", "extension"),
    [("flask", "WebSocket"), ("gthread", "AsyncioWebSocket"), ("gevent", "GeventWebSocket")],
)
def test_what_cannot_be_answered_is_a_500(start: Start, name: str, extension: str) -> None:
    server = start(SERVERS[name], extension)
    for path, reason in (
        ("/echo?exit=1", "SystemExit: on purpose"),
        ("/echo?header=%E6%97%A5", "the header field 'X-Header' cannot be sent"),
        ("/lazy?header=%E6%97%A5", "the header field 'X-Header' cannot be sent"),
    ):
        logged = len(server.log())
        with pytest.raises(InvalidStatus) as caught, server.connect(path):
            pass
        assert caught.value.response.status_code == 500
        eventually(lambda n=logged, why=reason: why in server.log()[n:], reason)  # type: ignore[misc]
        assert server.get("/") == "page"


def test_a_client_that_vanishes(server: Process) -> None:
    with server.connect("/echo") as client:
        client.send("x")
        client.recv(timeout=PATIENCE)
        client.socket.shutdown(socket.SHUT_RDWR)
    assert server.get("/") == "page"


def test_the_log_is_clean(shared: Start, server: Process) -> None:
    with server.connect("/echo") as client:
        client.send("x")
        client.recv(timeout=PATIENCE)
    time.sleep(0.2)
    log = server.log()
    for complaint in ("BrokenPipe", "ConnectionReset", "AssertionError", "Socket error", '" 500'):
        assert complaint not in log, log
    assert log.count("Traceback") == log.count("ValueError: on purpose")


@pytest.mark.parametrize(
    ("server", "extension"),
    [
        ("flask", "WebSocket"),
        ("flask", "GeventWebSocket"),
        ("flask", "AsyncioWebSocket"),
        ("gthread", "WebSocket"),
        ("gevent", "GeventWebSocket"),
    ],
)
def test_the_end_of_the_process_tells_the_clients(
    start: Start, server: str, extension: str
) -> None:
    process = start(SERVERS[server], extension)
    with process.connect("/echo") as client:
        client.send("served")  # the answer may come before the connection is known
        assert client.recv(timeout=PATIENCE) == "served"
        process.process.send_signal(signal.SIGINT)
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=PATIENCE)
    assert client.protocol.close_code == 1001
    assert process.process.wait(PATIENCE) is not None
    assert "Traceback" not in process.log()


def test_ctrl_c_while_a_greenlet_handles_a_message(start: Start) -> None:
    """gevent's greenlets run in the thread in which Python raises KeyboardInterrupt."""
    process = start(FLASK, "GeventWebSocket")
    with process.connect("/ctrl-c") as client, pytest.raises(ConnectionClosed):
        client.recv(timeout=PATIENCE)
    assert client.protocol.close_code == 1001
    assert process.process.wait(PATIENCE) is not None
    assert "Traceback" not in process.log()


def test_flask_run_reloads(start: Start, tmp_path: Path) -> None:
    source = (ROOT / "tests/apps/plain.py").read_text()
    (tmp_path / "edited.py").write_text(source)
    command = [sys.executable, "-m", "flask", "--app", "edited", "--debug", "run", "-p", "{port}"]
    process = start(command, "WebSocket", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    with process.connect("/echo") as client:
        (tmp_path / "edited.py").write_text(source.replace('"page"', '"edited"'))
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=PATIENCE)
        assert client.protocol.close_code == 1001
    deadline = time.monotonic() + 20
    page = ""
    while page != "edited" and time.monotonic() < deadline:
        with suppress(OSError):
            page = process.get("/")
    assert page == "edited"
    with process.connect("/echo") as client:
        client.send("x")
        assert client.recv(timeout=PATIENCE) == "x"


def test_what_cannot_work_says_so_in_the_log(start: Start) -> None:
    for arguments, extension, reason in (
        (["--worker-class", "sync"], "WebSocket", "start gunicorn with --threads N"),
        (["-k", "gevent"], "AsyncioWebSocket", "AsyncioWebSocket needs real threads"),
    ):
        process = start([*GUNICORN, *arguments], extension)
        with pytest.raises(InvalidStatus) as caught, process.connect("/echo"):
            pass
        assert b"the server's log says why" in caught.value.response.body
        assert b"gunicorn" not in caught.value.response.body
        assert reason in process.log()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("server", "extension"),
    [
        ("flask", "WebSocket"),
        ("flask", "AsyncioWebSocket"),
        ("gthread", "WebSocket"),
        ("gevent", "GeventWebSocket"),
    ],
)
def test_what_comes_with_the_request_is_not_lost(shared, server: str, extension: str) -> None:
    process = shared(server, extension)
    second = frame(TEXT, "second")
    with RawClient(("127.0.0.1", process.port), 30) as client:
        client.handshake("/echo", then=frame(TEXT, "first") + second[:4])
        assert client.message() == "first"
        client.send(second[4:])
        assert client.message() == "second"
        assert client.leave().code == 1000
