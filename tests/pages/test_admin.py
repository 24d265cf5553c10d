"""The code of docs/admin.rst, as it stands there."""

from __future__ import annotations

import logging
from socket import gethostname
from typing import Any

import flask
import pytest
from flask_login import LoginManager, UserMixin, current_user, login_user

from flask_uwsgi_websocket import WebSocket
from flask_uwsgi_websocket.testing import HandshakeRejected
from tests.pages import PAGES, Page

PAGE = Page("admin")
ORIGIN = {"Origin": "http://localhost"}


@pytest.fixture
def names() -> dict[str, Any]:
    """The page in an app of two users, of whom one is an operator."""
    app = flask.Flask("shop")
    app.secret_key = "x"

    class User(UserMixin):
        def __init__(self, name: str) -> None:
            self.id = self.name = name
            self.is_admin = name == "ann"

    LoginManager(app).user_loader(User)

    @app.get("/login")
    def login() -> str:
        return str(login_user(User(flask.request.args["name"])))

    return PAGE.run("def operator", app=app, websocket=WebSocket(app), current_user=current_user)


def status_of_socket(client: Any) -> int:
    try:
        with client.connect("/_ws/updates", headers=ORIGIN) as socket:
            return int(socket.response.status_code)
    except HandshakeRejected as refused:
        return int(refused.response.status_code)


def test_who_may(names: dict[str, Any]) -> None:
    client = names["websocket"].test_client(names["app"])
    assert client.get("/_ws/").location == "/login?next=/_ws/?"
    assert status_of_socket(client) == 403
    for name, status, of_socket in (("bob", 403, 403), ("ann", 200, 101)):
        client.get(f"/login?name={name}")
        page = client.get("/_ws/")
        page.close()
        assert page.status_code == status
        assert status_of_socket(client) == of_socket
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src")


def test_a_role(caplog: pytest.LogCaptureFixture) -> None:
    names = PAGE.run("'role') == 'operator'")
    client = names["websocket"].test_client(names["app"])
    assert client.get("/ops/sockets/").status_code == 403
    with client.session_transaction() as stored:
        stored["role"] = "operator"
    page = client.get("/ops/sockets/")
    page.close()
    assert page.status_code == 200


def test_the_lines_of_the_log(names: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    websocket = names["websocket"]

    @websocket.route("/chat/<name>")
    def chat(ws: Any, name: str) -> None:
        ws.join(f"chat/{name}")
        ws.send(ws.id)
        ws.receive()

    client = websocket.test_client(names["app"])
    client.get("/login?name=bob")
    with client.connect("/chat/lobby") as bob:
        id = bob.receive()
        client.get("/login?name=ann")
        with client.connect("/_ws/updates", headers=ORIGIN) as socket:
            headers = {**ORIGIN, "X-Admin-Token": socket.receive_json()["token"]}
        with caplog.at_level(logging.WARNING, "flask_uwsgi_websocket.admin"):
            closing = {"id": id, "code": 1008}
            assert client.post("/_ws/close", json=closing, headers=headers).status_code == 200
            looking = {"room": "chat/lobby"}
            assert client.post("/_ws/room", json=looking, headers=headers).status_code == 200
    said = [record.getMessage() for record in caplog.records if record.name.endswith(".admin")]
    told = PAGE.code("admin ann: close").replace("0b6a…", id)
    for ours, theirs in {"'1'": "'0'", "web1": gethostname(), "10.0.0.7": "127.0.0.1"}.items():
        told = told.replace(ours, theirs)
    assert said == told.splitlines()
    assert caplog.records[-1].websocket_admin == "ann"  # type: ignore[attr-defined]


def test_the_refusal_that_it_quotes(names: dict[str, Any], caplog: Any) -> None:
    client = names["websocket"].test_client(names["app"])
    client.get("/login?name=ann")
    with pytest.raises(HandshakeRejected):
        client.connect("/_ws/updates", headers={"Origin": "https://shop.example"})
    line = "the admin page takes this from its own origin only"
    assert line in caplog.text
    assert line in PAGES["admin"].read_text()
