"""The admin page's server: who may, what is shown, and what is done, with the test client."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask, abort, redirect, session

from flask_uwsgi_websocket import AsyncioWebSocket, GeventWebSocket, WebSocket
from flask_uwsgi_websocket.testing import HandshakeRejected, WebSocketTestConnection
from tests.server import PATIENCE

CLASSES = [WebSocket, GeventWebSocket, AsyncioWebSocket]
ORIGIN = {"Origin": "http://localhost"}


class Page:
    """An app with an admin page, and what a browser would do with it."""

    def __init__(
        self,
        extension: type[WebSocket] = WebSocket,
        allowed: Callable[[], Any] = lambda: "ann",
        **config: Any,
    ) -> None:
        self.app = Flask("under test")
        self.app.secret_key = "for tests"
        self.app.config.update(
            {f"UWSGI_WEBSOCKET_{name}": value for name, value in config.items()},
            UWSGI_WEBSOCKET_AGGRESSIVE_PATCH=False,
        )
        self.websocket: Any = extension(self.app, timeout=1)
        add = self._add_coroutine if extension is AsyncioWebSocket else self._add_function
        add()
        self.websocket.admin(allowed=allowed)
        self.client: Any = self.websocket.test_client()

    def _add_function(self) -> None:
        @self.websocket.route("/echo/<room>")
        def echo(ws: Any, room: str) -> None:
            ws.join(room)
            for text in ws:
                ws.send(text)

    def _add_coroutine(self) -> None:
        @self.websocket.route("/echo/<room>")
        async def echo(ws: Any, room: str) -> None:
            await ws.join(room)
            async for text in ws:
                await ws.send(text)

    @contextmanager
    def open(self, headers: dict[str, str] = ORIGIN) -> Iterator[Socket]:
        """The page's WebSocket."""
        with self.client.connect("/_ws/updates", headers=headers) as connection:
            yield Socket(connection)

    def get(self, path: str = "/_ws/") -> Any:
        answer = self.client.get(path)
        answer.close()  # of a file
        return answer

    def post(self, action: str, token: str = "", **body: Any) -> Any:
        headers = {**ORIGIN, "X-Admin-Token": token}
        return self.client.post(f"/_ws/{action}", json=body, headers=headers)


class Socket:
    """The WebSocket of a page."""

    def __init__(self, connection: WebSocketTestConnection) -> None:
        self.connection = connection
        self.hello = self.next("hello")
        self.token = self.hello["token"]

    def next(self, kind: str) -> Any:
        """The next message of a kind."""
        while True:
            message = json.loads(self.connection.receive(PATIENCE) or "null")
            assert message is not None, (self.connection.close_code, self.connection.close_reason)
            if message["type"] == kind:
                return message

    def watch(self, **what: Any) -> None:
        self.connection.send(json.dumps({"type": "watch", **what}))

    def table(self, **query: Any) -> Any:
        """The answer to a query."""
        tag = str(time.monotonic())
        self.watch(connections={"tag": tag, **query})
        while (answer := self.next("connections"))["tag"] != tag:
            pass
        return answer

    def row(self, path: str) -> Any:
        """The row of a connection by its path."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for row in self.table()["rows"]:
                if row["path"] == path:
                    return row
        raise AssertionError(f"no connection of {path}")


@pytest.fixture(params=CLASSES)
def page(request: pytest.FixtureRequest) -> Page:
    return Page(request.param)


def test_it_shows_connections_and_acts_on_them(page: Page) -> None:
    with page.client.connect("/echo/a") as echo, page.open() as socket:
        echo.send("x")
        assert echo.receive() == "x"
        row = socket.row("/echo/a")
        assert row["rooms"] == ["a"]
        assert row["rooms_total"] == 1
        assert (row["admin"], row["you"]) == (False, False)
        own = socket.row("/_ws/updates")
        assert (own["id"], own["admin"], own["you"]) == (socket.hello["id"], True, True)
        sent = page.post("send", socket.token, id=row["id"], text="from <ann>").json
        assert sent["done"] == "sent"
        assert echo.receive() == "from <ann>"
        closing = page.post("close", socket.token, id=row["id"], code=4321, reason="bye").json
        assert closing["done"] == "closing"
        assert closing["connection"]["id"] == row["id"]
        assert echo.receive() is None
        assert (echo.close_code, echo.close_reason) == (4321, "bye")


def test_it_looks_into_rooms(page: Page) -> None:
    with page.client.connect("/echo/a"), page.client.connect("/echo/b"), page.open() as socket:
        socket.row("/echo/a")
        socket.row("/echo/b")
        socket.watch(rooms={"search": "A"})
        assert socket.next("rooms")["rows"] == [{"room": "a", "connections": 1}]
        seen = page.post("room", socket.token, room="a").json
        assert (seen["connections"], seen["complete"]) == (1, True)
        assert (seen["presence"], seen["history"]) == (None, None)
        assert [r["path"] for r in socket.table(field="room", search="b", exact=True)["rows"]] == [
            "/echo/b"
        ]


def test_it_sends_figures(page: Page) -> None:
    with page.open() as socket:
        socket.watch(stats=True)
        first, second = socket.next("stats"), socket.next("stats")
        assert second["time"] > first["time"]
        assert set(first) >= {"open", "closed", "refused", "workers", "routes", "rooms"}


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, TypeError, "needs allowed="),
        ({"allowed": True}, TypeError, "needs allowed="),
        ({"allowed": bool, "url_prefix": "/"}, ValueError, "such as '/_ws'"),
        ({"allowed": bool, "url_prefix": "_ws"}, ValueError, "such as '/_ws'"),
        ({"allowed": bool, "url_prefix": "/<x>"}, ValueError, "without variables"),
        ({"allowed": bool, "url_prefix": None}, ValueError, "such as '/_ws'"),
    ],
)
def test_mounting_that_cannot_be_meant(
    arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    websocket = WebSocket(Flask("under test"))
    with pytest.raises(error, match=words):
        websocket.admin(**arguments)


@pytest.mark.parametrize("answer", [False, None, 0, ""])
def test_who_may_not_sees_nothing(answer: Any) -> None:
    page = Page(allowed=lambda: answer)
    for path in ("/_ws/", "/_ws/static/admin.js", "/_ws/static/nothing"):
        assert page.get(path).status_code == 403
    refused = page.post("close", id="x")
    assert (refused.status_code, refused.json["reload"]) == (403, False)
    with pytest.raises(HandshakeRejected) as rejected, page.open():
        pass
    assert rejected.value.response.status_code == 403
    assert rejected.value.response.headers["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize("answer", [("please log in", 401), {"user": "ann"}, object()])
def test_what_says_neither_yes_nor_no_is_no(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    page = Page(allowed=lambda: answer)
    assert page.get().status_code == 500
    assert page.post("close", id="x").status_code == 500
    with pytest.raises(HandshakeRejected) as rejected, page.open():
        pass
    assert rejected.value.response.status_code == 500
    assert "it returns True or a name" in caplog.text


def test_an_allowed_that_fails_allows_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def allowed() -> bool:
        raise LookupError("the database is away")

    page = Page(allowed=allowed)
    assert page.get().status_code == 500
    with pytest.raises(HandshakeRejected) as rejected, page.open():
        pass
    assert rejected.value.response.status_code == 500
    assert "the database is away" in caplog.text


def test_a_page_to_log_in() -> None:
    page = Page(allowed=lambda: session.get("name") or redirect("/login"))
    answer = page.get()
    assert (answer.status_code, answer.headers["Location"]) == (302, "/login")
    assert page.post("close", id="x").status_code == 403
    with pytest.raises(HandshakeRejected) as rejected, page.open():
        pass
    assert rejected.value.response.status_code == 403
    with page.client.session_transaction() as cookie:
        cookie["name"] = "bob"
    assert page.get().status_code == 200
    with page.open() as socket:
        assert socket.hello["who"] == "bob"


def test_an_allowed_that_aborts_or_is_a_coroutine() -> None:
    assert Page(allowed=lambda: abort(404)).get().status_code == 404

    async def allowed() -> bool:
        return True

    page = Page(AsyncioWebSocket, allowed)
    assert page.get().status_code == 200


def test_who_it_was() -> None:
    page = Page(allowed=lambda: True)
    with page.open() as socket:
        assert socket.hello["who"] == "127.0.0.1"
    page.websocket.identify(lambda: "eve")
    with page.open() as socket:
        assert socket.hello["who"] == "eve"


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://localhost:81"}],
)
def test_other_origins_get_nothing(headers: dict[str, str]) -> None:
    page = Page(ALLOWED_ORIGINS="*")
    with pytest.raises(HandshakeRejected) as rejected, page.open(headers):
        pass
    assert rejected.value.response.status_code == 403
    with page.open() as socket:
        headers = {**headers, "X-Admin-Token": socket.token}
        answer = page.client.post("/_ws/close", json={"id": "x"}, headers=headers)
        assert answer.status_code == 403


def test_actions_need_a_token_of_this_admin() -> None:
    who = "ann"
    page = Page(allowed=lambda: who)
    with page.open() as socket:
        assert page.post("close", socket.token, id="x").status_code == 404
        for token in ("", "x", socket.token[:-1], "é"):
            answer = page.post("close", token, id="x")
            assert (answer.status_code, answer.json["reload"]) == (403, True)
        who = "bob"
        assert page.post("close", socket.token, id="x").status_code == 403


def test_rights_that_ended_end_at_once() -> None:
    may = True
    page = Page(allowed=lambda: may)
    with page.open() as socket:
        assert page.post("close", socket.token, id="x").status_code == 404
        may = False
        assert page.post("close", socket.token, id="x").status_code == 403


def test_actions_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    page = Page(allowed=lambda: "ann\nforged")
    with page.client.connect("/echo/a") as echo, page.open() as socket:
        row = socket.row("/echo/a")
        page.post("send", socket.token, id=row["id"], text="a secret")
        assert echo.receive() == "a secret"
        page.post("close", socket.token, id=row["id"], code=1000, reason="two\nlines")
    records = [r for r in caplog.records if r.name == "flask_uwsgi_websocket.admin"]
    sent, closed = (r.__dict__ for r in records)
    assert sent["admin"] == "ann\\nforged"
    assert (sent["admin_action"], sent["admin_id"]) == ("send", row["id"])
    assert (closed["admin_reason"], closed["admin_result"]) == ("two\\nlines", "closing")
    assert "secret" not in caplog.text
    assert all("\n" not in r.getMessage() for r in records)
