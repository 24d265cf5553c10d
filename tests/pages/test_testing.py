"""The code of docs/testing.rst, as it stands there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import flask
import pytest

import flask_uwsgi_websocket
from flask_uwsgi_websocket import WebSocket
from tests.pages import Page
from tests.server import PATIENCE

PAGE = Page("testing")


def an_app() -> dict[str, Any]:
    """An app with a login and a chat."""
    app = flask.Flask("shop")
    app.secret_key = "x"
    websocket = WebSocket(app)

    @app.post("/login")
    def login() -> str:
        flask.session["user"] = flask.request.form["user"]
        return ""

    @app.before_request
    def members_only() -> None:
        if flask.request.path == "/chat" and "user" not in flask.session:
            flask.abort(401)

    @websocket.route("/chat", subprotocols=["chat.v1"])
    def chat(ws: Any) -> None:
        for message in ws:
            ws.send(message)

    return {"app": app, "websocket": websocket, "pytest": pytest}


def test_the_client() -> None:
    PAGE.run("client.post('/login'", **an_app())["test_chat"]()


def test_a_refusal() -> None:
    names = an_app()
    client = names["websocket"].test_client(names["app"])
    PAGE.run("HandshakeRejected", client=client, **names)


def test_the_fixture_of_pytest(tmp_path: Path) -> None:
    app = (
        "import flask, pytest\n"
        "from flask_uwsgi_websocket import WebSocket\n"
        "def create_app(testing):\n"
        "    app = flask.Flask('shop')\n"
        "    WebSocket(app).add_url_rule('/chat', 'chat', lambda ws: ws.receive())\n"
        "    return app\n"
    )
    (tmp_path / "test_page.py").write_text(app + PAGE.code("websocket_client"))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", tmp_path]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=2 * PATIENCE, check=False
    )
    assert "1 passed" in done.stdout, done.stdout


def test_the_class_of_all_clients() -> None:
    names = an_app()
    PAGE.run("test_client_class", flask_uwsgi_websocket=flask_uwsgi_websocket, **names)
    assert hasattr(names["app"].test_client(), "connect")
