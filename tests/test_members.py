"""Flask-Login, Flask-SQLAlchemy and Flask-Session, for real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, session
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user
from flask_session import Session

from flask_uwsgi_websocket import AsyncioWebSocket, GeventWebSocket, WebSocket
from flask_uwsgi_websocket.testing import HandshakeRejected
from tests.server import Server


@pytest.fixture
def members(serve: Any, engine: str, tmp_path: Path) -> Server:
    server: Server = serve(engine, app="members", env={"TEST_PLACE": str(tmp_path)})
    return server


def login(server: Server) -> dict[str, str]:
    return {"Cookie": server.get("/login").headers["Set-Cookie"].partition(";")[0]}


def pool(server: Server) -> dict[str, int]:
    found: dict[str, int] = json.loads(server.get("/pool").body)
    return found


def test_login_required_under_the_route(members: Server) -> None:
    answer = members.refused("/members")
    assert answer.status == 401
    assert answer.get("X-After") == "401"
    with members.raw("/members", headers=login(members)) as client:
        assert client.answer.get("X-After") == "101"
        assert client.message() == "ann /members"
        client.echo("on")


def test_what_a_handler_answers_before_it_uses_its_client(members: Server) -> None:
    answer = members.refused("/refuse?abort=1")
    assert (answer.status, answer.get("X-After")) == (418, "418")
    answer = members.refused("/refuse?respond=1")
    assert (answer.status, answer.body, answer.get("X-Own")) == (409, b"responded", "1")
    assert members.refused("/refuse?fail=1").status == 500
    assert "ValueError: before the handshake" in members.new_log()
    members.allow_log("Traceback")
    for query in ("", "?accept=1"):
        with members.raw(f"/refuse{query}") as client:
            assert client.message() == "accepted"
            assert "session=" in client.answer.get("Set-Cookie")
            client.text("go")
            assert client.read_close().code == 1000
    with members.raw("/refuse?nothing=1") as client:
        assert client.read_close().code == 1000


def test_the_handshake_does_not_wait_for_ever(members: Server) -> None:
    # Else the client of a handler that waits elsewhere would see no answer, and its leaving
    # would go unnoticed.
    client = members.raw("/refuse-late")
    assert client.read_close().code == 1008
    client.close()
    members.wait_idle()


def test_fifty_one_after_another(members: Server) -> None:
    headers = login(members)
    for number in range(50):
        with members.raw("/work" if number % 2 else "/release", headers=headers) as client:
            client.text("q")
            assert client.message().startswith("ann q")
    members.wait_idle()
    assert pool(members) == {"out": 0, "size": 2}


@pytest.mark.parametrize("path", ["/work", "/release"])
def test_twenty_at_once(members: Server, path: str) -> None:
    clients = [members.raw(path) for _ in range(20)]
    for round_ in range(3):
        for client in clients:
            client.text(str(round_))
        for client in clients:
            expected = f"ann {round_} None" if path == "/work" else f"ann {round_}"
            assert client.message() == expected
        assert pool(members)["out"] == 0
    for client in clients:
        client.close()
    members.wait_idle()
    assert pool(members) == {"out": 0, "size": 2}


def test_twenty_logins_that_stay_open(members: Server, token: str) -> None:
    headers = login(members)
    clients = [members.raw(f"/hold/{token}", headers=headers) for _ in range(20)]
    assert [client.message() for client in clients] == ["ann"] * 20
    for client in clients:
        client.close()
    members.wait_idle()
    assert pool(members) == {"out": 0, "size": 2}


def test_sessions_on_the_server(tmp_path: Path) -> None:
    from cachelib import FileSystemCache

    app = Flask("under test")
    app.config.update(
        TESTING=True,
        SESSION_TYPE="cachelib",
        SESSION_CACHELIB=FileSystemCache(str(tmp_path)),
        SESSION_PERMANENT=False,
    )
    Session(app)
    websocket = WebSocket(app)

    @app.get("/set/<value>")
    def set_(value: str) -> str:
        session["value"] = value
        return "ok"

    @app.get("/get")
    def get() -> str:
        return str(session.get("value"))

    @app.before_request
    def count() -> None:
        session["requests"] = session.get("requests", 0) + 1

    @websocket.route("/session")
    def of_session(ws: Any) -> None:
        ws.send_json([session["value"], session["requests"]])
        ws.receive()

    client = websocket.test_client()
    client.get("/set/one")
    with client.connect("/session") as conn:
        assert conn.receive_json() == ["one", 2]
        assert client.get("/get").text == "one"
    with client.connect("/session") as conn:
        assert conn.receive_json() == ["one", 4]


@pytest.mark.parametrize("extension", [WebSocket, GeventWebSocket, AsyncioWebSocket])
def test_login_required_without_uwsgi(extension: type[WebSocket]) -> None:
    app = Flask("under test")
    app.config.update(TESTING=True, SECRET_KEY="x", UWSGI_WEBSOCKET_AGGRESSIVE_PATCH=False)
    websocket = extension(app)
    manager = LoginManager(app)
    manager.login_view = "login"

    @manager.user_loader
    def load(key: str) -> UserMixin:
        user = UserMixin()
        user.id = key
        return user

    @app.get("/login")
    def login() -> str:
        login_user(load("ann"))
        return "ok"

    if extension is AsyncioWebSocket:

        @websocket.route("/me")
        @login_required
        async def of_task(ws: Any) -> None:
            await ws.send(current_user.id)
    else:

        @websocket.route("/me")
        @login_required
        def of_thread(ws: Any) -> None:
            ws.send(current_user.id)

    client = websocket.test_client()
    with pytest.raises(HandshakeRejected) as caught:
        client.connect("/me")
    assert caught.value.response.status_code == 302
    assert caught.value.response.location == "/login?next=%2Fme"
    client.get("/login")
    with client.connect("/me") as conn:
        assert conn.receive() == "ann"


def test_an_eager_route_answers_before_its_decorators() -> None:
    app = Flask("under test")
    app.config.update(SECRET_KEY="x", PROPAGATE_EXCEPTIONS=False)
    websocket = WebSocket(app)
    LoginManager(app)

    @websocket.route("/eager", lazy=False)
    @login_required
    def eager(ws: Any) -> None: ...

    with websocket.test_client().connect("/eager") as conn:
        assert conn.receive() is None
    assert conn.close_code == 1011
