"""The code of docs/authentication.rst, as it stands there."""

from __future__ import annotations

from functools import wraps
from typing import Any

import flask
import pytest
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user

from flask_uwsgi_websocket.testing import HandshakeRejected, WebSocketTestClient
from tests.pages import Page

PAGE = Page("authentication")


def client_of(names: dict[str, Any], **session: Any) -> WebSocketTestClient:
    client = names["websocket"].test_client(names["app"])
    with client.session_transaction() as stored:
        stored.update(session)
    return client


def user_of_token(token: str) -> str | None:
    return {"good": "7"}.get(token)


def is_closed(connection: Any, code: int) -> bool:
    return connection.receive() is None and connection.close_code == code


def test_the_session() -> None:
    names = PAGE.run("def who_is_it")
    with client_of(names).connect("/inbox") as nobody:
        assert is_closed(nobody, 4401)
    with client_of(names, user_id=7).connect("/inbox") as somebody:
        assert somebody.receive() == "Hello, user 7"


def test_flask_login() -> None:
    app = flask.Flask("shop")
    app.secret_key = "x"

    class User(UserMixin):
        id, name = "7", "Ada"

    LoginManager(app).user_loader(lambda id: User())
    app.add_url_rule("/login", "login", lambda: str(login_user(User())))
    from flask_uwsgi_websocket import WebSocket

    names = PAGE.run(
        "def account",
        app=app,
        websocket=WebSocket(app),
        login_required=login_required,
        current_user=current_user,
    )
    client = client_of(names)
    with pytest.raises(HandshakeRejected) as caught:
        client.connect("/account")
    assert caught.value.response.status_code == 401
    client.get("/login")
    with client.connect("/account") as ada:
        ada.send("hello")
        assert ada.receive() == "Ada: hello"


def test_decorators() -> None:
    names = PAGE.run("def admins_only", wraps=wraps)
    with pytest.raises(HandshakeRejected) as caught:
        client_of(names).connect("/admin/log")
    assert caught.value.response.status_code == 403
    with client_of(names, role="admin").connect("/admin/log") as admin:
        assert admin.receive() == "Welcome, admin"


def test_before_request() -> None:
    names = PAGE.run("def members_only")
    names["websocket"].add_url_rule("/ws/x", "x", lambda ws: ws.send("in"))
    with pytest.raises(HandshakeRejected) as caught:
        client_of(names).connect("/ws/x")
    assert caught.value.response.status_code == 401
    with client_of(names, user_id=7).connect("/ws/x") as member:
        assert member.receive() == "in"


def test_log_out_everywhere() -> None:
    names = PAGE.run("def who_is_it")
    exec(PAGE.code("def logout"), names)
    client = client_of(names, user_id=7)
    with client.connect("/inbox") as one, client.connect("/inbox") as other:
        assert client.post("/logout").status_code == 302
        for tab in (one, other):
            assert tab.receive() == "Hello, user 7"
            assert is_closed(tab, 4401)


def test_a_session_that_ends() -> None:
    code = PAGE.code("def feed").replace("timeout=60", "timeout=0.05")
    names = PAGE.run("def who_is_it", may_stay=lambda user: False)
    exec(code, names)
    with client_of(names, user_id=7).connect("/feed") as feed:
        assert is_closed(feed, 4401)
    names["may_stay"] = lambda user: True
    with client_of(names, user_id=7).connect("/feed") as feed:
        feed.send("still here")
        assert feed.receive() == "still here"


def test_a_header() -> None:
    names = PAGE.run("def who_calls", user_of_token=user_of_token)
    names["websocket"].add_url_rule("/x", "x", lambda ws: ws.send(str(ws.user)))
    with client_of(names).connect("/x", headers={"Authorization": "Bearer good"}) as caller:
        assert caller.receive() == "7"
    with pytest.raises(HandshakeRejected) as caught:
        client_of(names).connect("/x", headers={"Authorization": "Bearer bad"})
    assert caught.value.response.status_code == 401


@pytest.mark.parametrize("first", [{"token": "bad"}, {}, [], "bad", None])
def test_a_wrong_first_message(first: object) -> None:
    names = PAGE.run("def api", user_of_token=user_of_token)
    with client_of(names).connect("/api") as page:
        page.send_json(first)
        assert is_closed(page, 4401)


def test_a_first_message() -> None:
    names = PAGE.run("def api", user_of_token=user_of_token)
    with client_of(names).connect("/api") as page:
        page.send_json({"token": "good"})
        assert page.receive_json() == {"hello": "7"}


def test_a_ticket() -> None:
    names = PAGE.run("def ticket", user_of_token=user_of_token)
    names["websocket"].add_url_rule("/x", "x", lambda ws: ws.send(str(ws.user)))
    client = client_of(names)
    assert client.post("/ticket").status_code == 401
    ticket = client.post("/ticket", headers={"Authorization": "Bearer good"}).json["ticket"]
    with client.connect("/x", query_string={"ticket": ticket}) as holder:
        assert holder.receive() == "7"
    for wrong in ({}, {"ticket": "guess"}):
        with pytest.raises(HandshakeRejected) as caught:
            client.connect("/x", query_string=wrong)
        assert caught.value.response.status_code == 401


def test_permissions() -> None:
    names = PAGE.run("def who_is_it", is_member=lambda user, team: team == 1)
    exec(PAGE.code("def team_chat"), names)
    client = client_of(names, user_id=7)
    with client.connect("/teams/2") as stranger:
        assert is_closed(stranger, 4403)
    with client.connect("/teams/1") as ada, client.connect("/teams/1") as bob:
        ada.send("hello")
        assert bob.receive_json() == {"user": "7", "text": "hello"}
