"""`flask websocket routes`, `doctor` and `echo`."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flask import Blueprint, Flask
from flask.cli import ScriptInfo
from werkzeug.serving import make_server

from flask_uwsgi_websocket import WebSocket, _doctor, cli
from tests.server import eventually

ROOT = Path(__file__).resolve().parent.parent


def make_app() -> Flask:
    app = Flask("under test")
    websocket = WebSocket(app)

    @websocket.route("/echo", subprotocols=["v2", "v1"])
    def echo(ws: Any) -> None:
        for msg in ws:
            ws.send(msg)

    @websocket.route("/kinds")
    def kinds(ws: Any) -> None:
        ws.send(b"\x01\xff")
        ws.close(4001, "enough")

    rooms = Blueprint("rooms", __name__, url_prefix="/rooms")
    rooms.add_url_rule("/<name>", "room", echo)
    websocket.register_blueprint(rooms)
    return app


def invoke(*words: str, app: Flask | None = None) -> Any:
    info = ScriptInfo(create_app=lambda: app or make_app())
    return CliRunner().invoke(cli.websocket, list(words), obj=info)


# Routes


def test_routes() -> None:
    result = invoke("routes")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [
        "Rule           Endpoint    Blueprint  Subprotocols",
        "-------------  ----------  ---------  ------------",
        "/echo          echo                   v2, v1",
        "/kinds         kinds",
        "/rooms/<name>  rooms.room  rooms",
    ]


def test_no_routes() -> None:
    assert invoke("routes", app=Flask("x")).output == "This app has no WebSocket routes.\n"


# Doctor


GOOD = "--http :80 --http-websockets --gevent 100 --master"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (GOOD, None),
        ("--socket :80 --threads 20 --processes 2 -M", None),
        ("--http :80 --gevent 100 --master", "without --http-websockets"),
        (f"{GOOD} --https-socket :443", "--https-socket"),
        (f"{GOOD} --harakiri 30", None),
        (f"{GOOD} --harakiri 30 --cheaper 1", "--harakiri 30 kills the worker"),
        ("--socket :80 --threads 20 -M --harakiri 30", "--harakiri 30 kills the worker"),
        ("--http-socket :80 --threads 4 --master", "4 connections at a time"),
        ("--http-socket :80 --gevent 4 --master", None),
        ("--http-socket :80 --master", "1 connections at a time"),
        ("--http-socket :80 --asyncio 100 --master", "--asyncio without --greenlet"),
        (f"{GOOD} --http-timeout 10", "--http-timeout 10"),
        ("--http-socket :80 --gevent 100", "no --master"),
    ],
)
def test_findings(options: str, problem: str | None) -> None:
    findings = _doctor.diagnose(cli.parse_uwsgi_options(options.split()))
    if problem is None:
        assert findings == []
    else:
        assert problem in findings[0].problem
        assert len(findings) == 1
        assert findings[0].remedy


def test_doctor() -> None:
    result = invoke("doctor", *GOOD.split())
    assert result.exit_code == 0, result.output
    assert f"Python {sys.version.split()[0]}" in result.output
    assert "Nothing found." in result.output
    result = invoke("doctor", "--http", ":80", "--ini", "more.ini", "--harakiri=5")
    assert result.exit_code == 1
    assert "Add --http-websockets." in result.output
    assert "What --ini more.ini says was not looked at." in result.output


def test_doctor_without_a_uwsgi(tmp_path: Path) -> None:
    result = invoke("doctor", "--uwsgi-binary", str(tmp_path / "none"))
    assert result.exit_code == 1
    assert "not an executable" in result.output


def test_doctor_of_a_process() -> None:
    words = ["-c", "import time; time.sleep(60)", "--http", ":80", "--master"]
    process = subprocess.Popen([sys.executable, *words])
    try:
        # Between its fork and its exec the new process has another command line, or none.
        eventually(lambda: _doctor.command_line(process.pid) == words, "its command line")
    finally:
        process.kill()
        process.wait()
    assert invoke("doctor", "--pid", str(process.pid)).exit_code == 1


# Echo


@pytest.fixture
def address() -> Iterator[str]:
    server = make_server("127.0.0.1", 0, make_app(), threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"ws://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


def echo(*words: str, lines: str = "") -> subprocess.CompletedProcess[str]:
    code = "from flask_uwsgi_websocket.cli import websocket; websocket()"
    return subprocess.run(
        [sys.executable, "-c", code, "echo", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        input=lines,
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_echo(address: str) -> None:
    done = echo(f"{address}/echo", "--subprotocol", "v1", lines="one\nzwei ☃\n")
    assert done.stdout == "one\nzwei ☃\n"
    assert done.stderr == "subprotocol v1\nclosed 1000\n"
    assert done.returncode == 0


def test_echo_of_what_is_not_text(address: str) -> None:
    done = echo(f"{address}/kinds")
    assert done.stdout == "01 ff\n"
    assert done.stderr == "closed 4001 enough\n"


@pytest.mark.parametrize(
    ("path", "words", "error"),
    [
        ("/nowhere", [], "the server answered 404"),
        ("/echo", ["--origin", "http://evil.example"], "the server answered 403"),
        ("/echo", ["-H", "Sec-WebSocket-Version: 8"], "the server answered"),
    ],
)
def test_refusals(address: str, path: str, words: list[str], error: str) -> None:
    done = echo(address + path, *words)
    assert done.returncode == 1
    assert error in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("url", ["http://localhost/", "ws://", "ws://127.0.0.1:9/"])
def test_urls_that_lead_nowhere(url: str) -> None:
    done = echo(url)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
