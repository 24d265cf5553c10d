"""The code of docs/flask.rst, as it stands there."""

from __future__ import annotations

from functools import wraps
from typing import Any

import flask
import pytest

from flask_uwsgi_websocket.testing import HandshakeRejected
from tests.pages import Page

PAGE = Page("flask")


def login_required(view: Any) -> Any:
    """As Flask-Login's."""

    @wraps(view)
    def decorated(*args: Any, **kwargs: Any) -> Any:
        if "user" not in flask.session:
            flask.abort(401)
        return view(*args, **kwargs)

    return decorated


class current_user:
    name = "Ada"


def connect(names: dict[str, Any], path: str, user: str | None = None, **options: Any) -> Any:
    client = names["websocket"].test_client(names["app"])
    if user:
        with client.session_transaction() as session:
            session["user"] = user
    return client.connect(path, **options)


def status_of(names: dict[str, Any], path: str, **options: Any) -> int:
    with pytest.raises(HandshakeRejected) as caught:
        connect(names, path, **options)
    status: int = caught.value.response.status_code
    return status


def test_a_page_and_a_websocket_of_one_url() -> None:
    names = PAGE.run("def room_page", render_template=lambda template, name: f"Room {name}")
    assert names["app"].test_client().get("/rooms/a").text == "Room a"
    with connect(names, "/rooms/a") as conn:
        assert conn.receive() == "Welcome to a"


def test_a_blueprint() -> None:
    with connect(PAGE.run("register_blueprint"), "/chat/talk") as conn:
        assert conn.receive() == "Hello"


def test_before_the_handshake() -> None:
    names = PAGE.run("def members_only")
    names["websocket"].add_url_rule("/ws/a", "a", lambda ws: ws.send("hi"))
    assert status_of(names, "/ws/a") == 401
    with connect(names, "/ws/a", "ada") as conn:
        assert conn.receive() == "hi"


def test_a_decorator() -> None:
    names = PAGE.run("def chat(ws)", login_required=login_required, current_user=current_user)
    assert status_of(names, "/chat") == 401
    with connect(names, "/chat", "ada") as conn:
        conn.send("hi")
        assert conn.receive() == "Ada: hi"


def test_a_handler_that_refuses() -> None:
    names = PAGE.run("abort(404)", rooms={"a"})
    assert status_of(names, "/rooms/b") == 404
    with connect(names, "/rooms/a") as conn:
        assert conn.receive() == "Welcome to a"


def test_a_handler_that_has_nothing_to_say_yet() -> None:
    names = PAGE.run("def news", login_required=login_required, subscription=lambda: ["news"])
    with connect(names, "/news", "ada") as conn:
        assert conn.receive() == "news"


@pytest.mark.parametrize("subprotocol", ["graphql-transport-ws", "mqtt"])
def test_subprotocols(subprotocol: str) -> None:
    names = PAGE.run("require_subprotocol=True")
    path = "/" + subprotocol.split("-")[0]
    with connect(names, path, subprotocols=[subprotocol]) as conn:
        assert conn.receive() == f"You speak {subprotocol}"
    assert status_of(names, path, subprotocols=["other"]) == 400


class Database:
    """What the page takes for Flask-SQLAlchemy."""

    def __init__(self) -> None:
        self.session = self
        self.added: list[str] = []
        self.commits = 0

    def add(self, message: str) -> None:
        self.added.append(message)

    def commit(self) -> None:
        self.commits += 1


def test_a_unit_of_work_for_each_message() -> None:
    database = Database()
    names = PAGE.run(
        "with ws.app_context()", inside="def store(ws):", db=database, Message=lambda text: text
    )
    names["websocket"].add_url_rule("/store", "store", names["store"])
    with connect(names, "/store") as conn:
        conn.send("one")
        conn.send("two")
    assert database.added == ["one", "two"]
    assert database.commits == 2


def test_giving_back_in_between() -> None:
    names = PAGE.run(
        "for message in ws:\n    name",
        inside="def talk(ws):",
        current_user=current_user,
    )
    given_back = []
    names["app"].teardown_appcontext(given_back.append)
    names["websocket"].add_url_rule("/talk", "talk", names["talk"])
    with connect(names, "/talk") as conn:
        conn.send("hi")
        assert conn.receive() == "Ada: hi"
        assert given_back == [None]
