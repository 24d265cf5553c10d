"""`flask websocket routes` and `echo`."""

from __future__ import annotations

import os
import ssl
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
from websockets.sync.server import ServerConnection, serve
from werkzeug.serving import make_server

from flask_uwsgi_websocket import WebSocket
from flask_uwsgi_websocket.commands import cli

ROOT = Path(__file__).resolve().parent.parent


def make_app() -> Flask:
    app = Flask("under test")
    websocket = WebSocket(app)

    @websocket.route("/echo", subprotocols=["v2", "v1"])
    def echo(ws: Any, name: str = "") -> None:
        for msg in ws:
            ws.send(msg)

    @websocket.route("/escapes")
    def escapes(ws: Any) -> None:
        ws.send("two\n\tlines \x1b[31m \x9b \u202e☃")
        ws.close(4001, "bye\x1b[2J\nforged")

    @websocket.route("/refusal", lazy=True)
    def refusal(ws: Any) -> Any:
        return "no\x1b]0;title\x07", 403

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
        "/escapes       escapes",
        "/refusal       refusal",
        "/kinds         kinds",
        "/rooms/<name>  rooms.room  rooms",
    ]


def test_no_routes() -> None:
    assert invoke("routes", app=Flask("x")).output == "This app has no WebSocket routes.\n"


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


def answer(connection: ServerConnection) -> None:
    for message in connection:
        connection.send(message)


@pytest.fixture
def tls_address(certificate: tuple[Path, Path]) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with serve(answer, "127.0.0.1", 0, ssl=context) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"wss://localhost:{server.socket.getsockname()[1]}/"
        server.shutdown()
        thread.join()


def echo(*words: str, lines: str = "") -> subprocess.CompletedProcess[str]:
    code = "from flask_uwsgi_websocket.commands.cli import websocket; websocket()"
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


@pytest.mark.slow
def test_echo_of_what_is_not_text(address: str) -> None:
    done = echo(f"{address}/kinds")
    assert done.stdout == "01 ff\n"
    assert done.stderr == "closed 4001 enough\n"


@pytest.mark.slow
def test_echo_lets_no_escape_reach_the_terminal(address: str) -> None:
    done = echo(f"{address}/escapes")
    assert done.stdout == "two\n\tlines \\x1b[31m \\x9b \\u202e☃\n"
    assert done.stderr == "closed 4001 bye\\x1b[2J\\nforged\n"
    done = echo(f"{address}/refusal")
    assert "the server answered 403: no\\x1b]0;title\\x07" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "words", "error"),
    [
        ("/nowhere", [], "the server answered 404: 404 Not Found\n"),
        ("/echo", ["--origin", "http://evil.example"], "the server answered 403"),
        ("/echo", ["-H", "Sec-WebSocket-Version: 8"], "the server answered"),
    ],
)
def test_refusals(address: str, path: str, words: list[str], error: str) -> None:
    done = echo(address + path, *words)
    assert done.returncode == 1
    assert error in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_echo_of_a_path_and_a_header_as_somebody_types_them(address: str) -> None:
    done = echo(f"{address}/rooms/café ☃", "-H", "X-Name: v", lines="hi\n")
    assert (done.stdout, done.stderr) == ("hi\n", "closed 1000\n")
    done = echo(f"{address}/echo", "-H", "no colon")
    assert done.returncode == 2
    assert "'no colon' is not NAME:VALUE" in done.stderr


@pytest.mark.slow
def test_echo_over_tls(tls_address: str, certificate: tuple[Path, Path]) -> None:
    """Whom to trust is said as with curl."""
    for words in (["--cafile", str(certificate[0])], ["-k"]):
        done = echo(tls_address, *words, lines="hi\n")
        assert (done.stdout, done.stderr) == ("hi\n", "closed 1000\n")
    done = echo(tls_address)
    assert done.returncode == 1
    error = f"Error: {tls_address}: self-signed certificate; --cafile says whom to trust"
    assert done.stderr.startswith(error)
    done = echo(tls_address, "--cafile", str(certificate[1]))
    assert done.stderr.startswith(f"Error: {certificate[1]}: ")


def test_nobody_there() -> None:
    done = echo("ws://127.0.0.1:9/")
    assert done.stderr == "Error: ws://127.0.0.1:9/: Connection refused\n"


@pytest.mark.slow
@pytest.mark.parametrize("url", ["http://localhost/", "ws://"])
def test_urls_that_lead_nowhere(url: str) -> None:
    done = echo(url)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
