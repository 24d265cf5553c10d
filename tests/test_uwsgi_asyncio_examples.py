"""The examples of uWSGI's asyncio documentation, started by the commands of their docstrings."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sysconfig
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.browser import documented_commands
from tests.server import PATIENCE, ROOT, eventually, free_port

pytestmark = pytest.mark.slow

DIRECTORY = ROOT / "examples" / "uwsgi-asyncio"
#: Seconds that the examples take; a little less, for clocks that differ.
TWO_SECONDS = 1.9


class Running:
    """One of the examples in a uWSGI of its own."""

    def __init__(self, name: str, directory: Path, env: dict[str, str]) -> None:
        self.port = free_port()
        command = documented_commands(DIRECTORY / f"{name}.py")["uwsgi"]
        self._log = directory / "uwsgi.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                shlex.split(command.replace("localhost:5000", f"127.0.0.1:{self.port}")),
                cwd=ROOT,
                env={
                    **os.environ,
                    "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
                    **env,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        eventually(self._listens, f"{name} to listen")

    def _listens(self) -> bool:
        assert self._process.poll() is None, self.log()
        try:
            self.connect().close()
        except OSError:
            return False
        return True

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def get(self) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=PATIENCE) as answer:
            body: bytes = answer.read()
            return body

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            print(self.log())


Run = Callable[..., Running]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    running: list[Running] = []

    def run(name: str, **env: str) -> Running:
        running.append(Running(name, tmp_path, env))
        return running[-1]

    yield run
    for example in running:
        example.stop()
        assert "Traceback" not in example.log()
        assert "Segmentation" not in example.log()


def test_callback(run: Run) -> None:
    example = run("callback")
    began = time.monotonic()
    assert example.get() == b"Hello World"
    assert "elapsed" not in example.log()
    eventually(lambda: "Hello 2 seconds elapsed" in example.log(), "the callback")
    assert time.monotonic() - began > TWO_SECONDS


@pytest.mark.parametrize("name", ["greenlet_switch", "task", "future"])
def test_requests_wait_beside_each_other(run: Run, name: str) -> None:
    example = run(name)
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: example.get(), range(8)))
    assert answers == [b"Hello World"] * 8
    assert TWO_SECONDS < time.monotonic() - began < 8 * TWO_SECONDS


def test_generator(run: Run) -> None:
    example = run("generator")
    with example.connect() as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        began, came, at = time.monotonic(), b"", []
        while part := client.recv(4096):
            came += part
            if part.endswith((b"One", b"Two")):
                at.append(time.monotonic() - began)
    assert came.endswith(b"\r\n\r\nOneTwo")
    assert at[0] > TWO_SECONDS
    assert at[1] - at[0] > TWO_SECONDS


def test_a_client_that_does_not_wait(run: Run) -> None:
    example = run("task")
    for _ in range(5):
        with example.connect() as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
    assert example.get() == b"Hello World"


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<h1>A local page</h1>")

    def log_message(self, *_: object) -> None:
        pass


def test_aiohttp_client(run: Run) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            example = run("aiohttp_client", PAGE=f"http://127.0.0.1:{server.server_port}/")
            with ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(lambda _: example.get(), range(8)))
        finally:
            server.shutdown()
            thread.join()
    assert answers == [b"<h1>A local page</h1>"] * 8
