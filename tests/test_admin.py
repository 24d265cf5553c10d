"""The admin page's server: who may, what is shown, and what is done, with the test client."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import flask
import pytest
import werkzeug.utils
from flask import Flask, abort, session
from flask_login import LoginManager, UserMixin, current_user, login_user
from flask_wtf import CSRFProtect
from werkzeug.exceptions import Forbidden
from werkzeug.local import LocalProxy
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_uwsgi_websocket import AsyncioWebSocket, GeventWebSocket, WebSocket
from flask_uwsgi_websocket.monitoring.admin import history, permission, updates
from flask_uwsgi_websocket.monitoring.admin.summary import summary
from flask_uwsgi_websocket.testing import HandshakeRejected, WebSocketTestConnection
from tests.server import PATIENCE, eventually

CLASSES = [WebSocket, GeventWebSocket, AsyncioWebSocket]
ORIGIN = {"Origin": "http://localhost"}


class Page:
    """An app with an admin page, and what a browser would do with it."""

    def __init__(
        self,
        extension: type[WebSocket] = WebSocket,
        allowed: Callable[[], Any] = lambda: True,
        who: Callable[[], Any] | None = lambda: "ann",
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
        self.websocket.admin(allowed=allowed, who=who)
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


@pytest.mark.parametrize("field", ["room", "user"])
@pytest.mark.parametrize("search", ["\ud800", "\n", "é" * 200])
def test_who_searches_for_a_name_that_cannot_be_finds_nothing(field: str, search: str) -> None:
    with Page().open() as socket:
        found = socket.table(field=field, search=search, exact=True)
        assert (found["rows"], found["total"], found["complete"]) == ([], 1, True)


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
        ({"allowed": bool, "who": "ann"}, TypeError, "it is a function"),
        ({"allowed": bool, "host": "example.com"}, ValueError, "needs an app with host_matching"),
        ({"allowed": bool, "host": "<host>"}, ValueError, "without variables"),
        ({"allowed": bool, "host": "https://example.com"}, ValueError, "must be a name"),
        ({"allowed": bool, "host": ""}, ValueError, "must be a name"),
        ({"allowed": bool, "host": "a.b", "subdomain": "c"}, ValueError, "not on both"),
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


def refuses_all(page: Page) -> None:
    """The page, its actions and its WebSocket, as after a mistake of the app's."""
    assert page.get().status_code == 500
    assert page.post("close", id="x").status_code == 500
    with pytest.raises(HandshakeRejected) as rejected, page.open():
        pass
    assert rejected.value.response.status_code == 500


class Anything:
    """What is no answer."""


async def allowed_later() -> bool:
    return True


#: What views, decorators and mistakes give back where the answer is no.
NO_ANSWERS = [
    "ann",
    "please log in",
    "\n<!doctype html><title>Please log in</title>",
    b"forbidden",
    ("please log in", 401),
    {"user": "ann"},
    ["ann"],
    401,
    -1,
    2.0,
    Forbidden(),
    Anything(),
    bool,
]


@pytest.mark.parametrize("answer", NO_ANSWERS, ids=lambda answer: type(answer).__name__)
def test_what_says_neither_yes_nor_no_is_no(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    page = Page(allowed=lambda: answer)
    refuses_all(page)
    assert "it returns True for who may" in caplog.text
    assert "log in" not in caplog.text


def test_a_coroutine_that_nobody_awaits_is_no(caplog: pytest.LogCaptureFixture) -> None:
    with ExitStack() as stack:

        def allowed() -> Any:
            coroutine = allowed_later()
            stack.callback(coroutine.close)
            return coroutine

        refuses_all(Page(allowed=allowed))
    assert "returned a coroutine" in caplog.text


def logged_in(function: Callable[[], Any]) -> Callable[[], Any]:
    """Decorate what only somebody who has logged in may call, which is nobody."""

    @wraps(function)
    def answer() -> Any:
        return "please log in"

    return answer


def test_a_decorator_that_refuses_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    refuses_all(Page(allowed=logged_in(lambda: True)))
    assert "returned a str, which may be the answer to who may not" in caplog.text


@pytest.mark.parametrize(
    "answer", [True, 1, LocalProxy(lambda: True)], ids=["bool", "int", "proxy"]
)
def test_what_is_true_is_yes(answer: Any) -> None:
    assert Page(allowed=lambda: answer).get().status_code == 200


def test_an_allowed_that_fails_allows_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def allowed() -> bool:
        raise LookupError("the database is away")

    page = Page(allowed=allowed)
    assert page.get().status_code == 500
    with pytest.raises(HandshakeRejected) as rejected, page.open():
        pass
    assert rejected.value.response.status_code == 500
    assert "the database is away" in caplog.text


@pytest.mark.parametrize("redirect", [flask.redirect, werkzeug.utils.redirect])
def test_a_page_to_log_in(redirect: Callable[[str], Any]) -> None:
    page = Page(
        allowed=lambda: "name" in session or redirect("/login"), who=lambda: session["name"]
    )
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

    async def name() -> str:
        return "eve"

    page = Page(AsyncioWebSocket, allowed_later, name)
    assert page.get().status_code == 200
    with page.open() as socket:
        assert socket.hello["who"] == "eve"


def test_who_it_was(caplog: pytest.LogCaptureFixture) -> None:
    named: list[Any] = [None]
    page = Page(who=lambda: named[0])
    for named[0], identified, told in (
        (None, None, "127.0.0.1"),
        (None, "eve", "eve"),
        (" ", "eve", "eve"),
        ("ann\n" + "x" * 500, "eve", "ann\\n" + "x" * 196),
        (7, "eve", "7"),
    ):
        page.websocket.identify(lambda identified=identified: identified)
        with page.open() as socket:
            assert socket.hello["who"] == told
    named[0] = ("ann", 401)
    refuses_all(page)
    assert "who() of the admin page returned a tuple" in caplog.text


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
    page = Page(who=lambda: who)
    with page.open() as socket:
        assert page.post("close", socket.token, id="x").status_code == 404
        for token in ("", "x", socket.token[:-1], "é"):
            answer = page.post("close", token, id="x")
            assert (answer.status_code, answer.json["reload"]) == (403, True)
        who = "bob"
        assert page.post("close", socket.token, id="x").status_code == 403


def test_a_token_of_long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page()
    with page.open() as socket:
        monkeypatch.setattr(permission, "TOKEN_TIME", -1)
        answer = page.post("close", socket.token, id="x")
        assert (answer.status_code, answer.json["reload"]) == (403, True)


def test_two_admins(caplog: pytest.LogCaptureFixture) -> None:
    """Each is told apart in the log, also where one closes the other's page, or their own."""
    page = Page(who=lambda: flask.request.headers["X-Who"])

    def post(action: str, who: str, token: str, **body: Any) -> int:
        headers = {**ORIGIN, "X-Admin-Token": token, "X-Who": who}
        return int(page.client.post(f"/_ws/{action}", json=body, headers=headers).status_code)

    with page.open({**ORIGIN, "X-Who": "ann"}) as ann, page.open({**ORIGIN, "X-Who": "bob"}) as bob:
        assert {row["you"] for row in ann.table()["rows"]} == {True, False}
        assert post("close", "ann", bob.token, id=bob.hello["id"]) == 403
        assert post("close", "ann", ann.token, id=bob.hello["id"], code=4000) == 200
        assert bob.connection.receive(PATIENCE) is None
        assert post("room", "bob", bob.token, room="a") == 200
        assert post("close", "ann", ann.token, id=ann.hello["id"]) == 200
        while ann.connection.receive(PATIENCE) is not None:
            pass
        assert (ann.connection.close_code, bob.connection.close_code) == (1000, 4000)
    records = [r.__dict__ for r in caplog.records if r.name.endswith(".admin")]
    done = [
        (r["websocket_admin"], r["websocket_action"]) for r in records if "websocket_action" in r
    ]
    assert done == [("ann", "close"), ("bob", "room"), ("ann", "close")]


def test_rights_that_ended_end_at_once() -> None:
    may = True
    page = Page(allowed=lambda: may)
    with page.open() as socket:
        assert page.post("close", socket.token, id="x").status_code == 404
        may = False
        assert page.post("close", socket.token, id="x").status_code == 403


def test_actions_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    page = Page(who=lambda: "ann\nforged")
    with page.client.connect("/echo/a") as echo, page.open() as socket:
        row = socket.row("/echo/a")
        page.post("send", socket.token, id=row["id"], text="a secret")
        assert echo.receive() == "a secret"
        page.post("close", socket.token, id=row["id"], code=1000, reason="two\nlines")
    records = [r for r in caplog.records if r.name == "flask_uwsgi_websocket.admin"]
    sent, closed = (r.__dict__ for r in records)
    assert (sent["websocket_event"], sent["websocket_admin"]) == ("admin", "ann\\nforged")
    assert (sent["websocket_action"], sent["websocket_id"]) == ("send", row["id"])
    assert (sent["websocket_client"], sent["websocket_admin_address"]) == ("127.0.0.1",) * 2
    assert (closed["websocket_reason"], closed["websocket_result"]) == ("two\\nlines", "closing")
    assert "secret" not in caplog.text
    assert all("\n" not in r.getMessage() for r in records)


def test_an_app_needs_a_secret_key(caplog: pytest.LogCaptureFixture) -> None:
    page = Page()
    page.app.secret_key = None
    refuses_all(page)
    assert "set app.secret_key" in caplog.text


@pytest.mark.parametrize("config", [{"REQUEST_CONTEXT": False}, {"LEGACY": True}])
@pytest.mark.parametrize("extension", [WebSocket, AsyncioWebSocket])
def test_configurations_that_change_handlers(
    extension: type[WebSocket], config: dict[str, Any]
) -> None:
    page = Page(extension, **config)
    with page.client.connect("/echo/a"), page.open() as socket:
        row = socket.row("/echo/a")
        assert page.post("close", socket.token, id=row["id"]).status_code == 200


def test_one_extension_on_two_apps() -> None:
    websocket = WebSocket()
    websocket.admin("/ops", lambda: True)
    apps = [Flask("one"), Flask("two")]
    for app in apps:
        app.secret_key = app.name
        app.config["UWSGI_WEBSOCKET_PREFIX"] = app.name
        websocket.init_app(app)
    websocket.admin("/more", lambda: True, who=lambda: "bob")  # on the second
    clients = [websocket.test_client(app) for app in apps]
    tokens = []
    for client in clients:
        with client.connect("/ops/updates", headers=ORIGIN) as connection:
            socket = Socket(connection)
            tokens.append(socket.token)
            assert [row["you"] for row in socket.table()["rows"]] == [True]  # no other app's
    for client, token, status in ((clients[0], tokens[1], 403), (clients[0], tokens[0], 404)):
        headers = {**ORIGIN, "X-Admin-Token": token}
        assert client.post("/ops/close", json={"id": "x"}, headers=headers).status_code == status
    with clients[1].connect("/more/updates", headers=ORIGIN) as connection:
        assert Socket(connection).hello["who"] == "bob"
    with pytest.raises(HandshakeRejected) as rejected:
        clients[0].connect("/more/updates", headers=ORIGIN).__enter__()
    assert rejected.value.response.status_code == 404
    with pytest.raises(ValueError, match="at /ops already"):
        websocket.admin("/ops/", lambda: True)


def test_two_extensions_on_one_app() -> None:
    app = Flask("under test")
    app.secret_key = "for tests"
    mounted = [(WebSocket(app), "/one"), (AsyncioWebSocket(app), "/two")]
    for extension, prefix in mounted:
        extension.admin(prefix, lambda: True)
    for extension, prefix in mounted:
        client = extension.test_client()
        client.get(f"{prefix}/").close()
        with client.connect(f"{prefix}/updates", headers=ORIGIN) as connection:
            assert [row["you"] for row in Socket(connection).table()["rows"]] == [True]


def test_below_a_path_and_on_a_subdomain() -> None:
    app = Flask("under test", subdomain_matching=True)
    app.config["SERVER_NAME"] = "example.com"
    app.secret_key = "for tests"
    websocket = WebSocket(app)
    websocket.admin("/_ws", lambda: True, subdomain="ops")
    client = websocket.test_client()
    for host, status in (("ops.example.com", 308), ("example.com", 404)):
        answer = client.get("/_ws", base_url=f"https://{host}/below/")
        assert answer.status_code == status
        if status == 308:
            assert answer.headers["Location"] in (
                "https://ops.example.com/below/_ws/",
                "/below/_ws/",
            )
    origin = {"Origin": "https://ops.example.com"}
    base = "https://ops.example.com/below/"
    with client.connect("/_ws/updates", headers=origin, base_url=base) as connection:
        token = Socket(connection).token
    headers = {**origin, "X-Admin-Token": token}
    answer = client.post("/_ws/close", json={"id": "x"}, headers=headers, base_url=base)
    assert answer.status_code == 404
    plain = {**headers, "Origin": "http://ops.example.com"}
    answer = client.post("/_ws/close", json={"id": "x"}, headers=plain, base_url=base)
    assert answer.status_code == 403


def test_behind_a_proxy_that_speaks_tls_and_mounts_the_app_elsewhere() -> None:
    forwarded = {
        "X-Forwarded-Host": "shop.example",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Prefix": "/shop",
    }
    ours, plain = {"Origin": "https://shop.example"}, {"Origin": "http://shop.example"}
    trusting, other = Page(), Page()
    trusting.app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
        trusting.app.wsgi_app, x_host=1, x_proto=1, x_prefix=1
    )
    location = trusting.client.get("/_ws", headers=forwarded).headers["Location"]
    assert location in ("https://shop.example/shop/_ws/", "/shop/_ws/")
    with trusting.open({**forwarded, **ours}) as socket:
        headers = {**forwarded, **ours, "X-Admin-Token": socket.token}
        answer = trusting.client.post("/_ws/close", json={"id": "x"}, headers=headers)
        assert answer.status_code == 404
    refused = [
        (trusting, {**forwarded, **plain}),
        (trusting, ORIGIN | forwarded),
        (other, {**forwarded, **ours}),
    ]
    for page, headers in refused:
        with pytest.raises(HandshakeRejected) as rejected, page.open(headers):
            pass
        assert rejected.value.response.status_code == 403


def test_on_a_host_of_an_app_that_goes_by_hosts() -> None:
    app = Flask("under test", host_matching=True, static_folder=None)
    app.secret_key = "for tests"
    websocket: Any = WebSocket(app)
    with pytest.raises(ValueError, match="say which, as in"):
        websocket.admin("/_ws", lambda: True)
    for host in ("ops.example.com", "Ops.example.com:8443"):
        websocket.admin("/_ws", lambda: True, host=host)
    with pytest.raises(ValueError, match=r"at ops\.example\.com/_ws already"):
        websocket.admin("/_ws", lambda: True, host="ops.example.com")
    client = websocket.test_client()
    paths = ("/_ws/", "/_ws/static/admin.js", "/_ws/updates", "/_ws/close")
    for path in paths:
        for other in ("example.com", "ops.example.com:81", "ops.example.com.evil.example"):
            assert client.get(path, base_url=f"https://{other}/").status_code == 404
    for host in ("ops.example.com", "ops.example.com:8443"):
        origin, base = {"Origin": f"https://{host}"}, f"https://{host}/"
        shown = client.get("/_ws/", base_url=base)
        shown.close()
        assert shown.status_code == 200
        with client.connect("/_ws/updates", headers=origin, base_url=base) as connection:
            socket = Socket(connection)
            [row] = socket.table()["rows"]
            assert (row["route"], row["you"]) == (f"{host}/_ws/updates", True)
            headers = {**origin, "X-Admin-Token": socket.token}
            posted = {"json": {"id": "x"}, "headers": headers}
            assert client.post("/_ws/close", base_url=base, **posted).status_code == 404
    for other in ("example.com", "ops.example.com:81"):
        with pytest.raises(HandshakeRejected) as rejected:
            client.connect("/_ws/updates", base_url=f"https://{other}/").__enter__()
        assert rejected.value.response.status_code == 404


def test_the_page_leads_nowhere_else() -> None:
    page = Page()
    for path in ("/_ws/static/..%2fmounting.py", "/_ws/static/%2fetc/passwd", "/_ws/x"):
        assert page.get(path).status_code in (308, 404)


def test_a_socket_has_to_be_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates, "RENEW", 0.1)
    page = Page()
    with page.open() as socket:
        assert socket.hello["renew"] == 0.1
        assert socket.connection.receive(PATIENCE) is None
        assert socket.connection.close_code == 4001


def test_a_login_of_flask_login() -> None:
    page = Page(allowed=lambda: current_user.is_authenticated and current_user.is_admin, who=None)
    manager = LoginManager(page.app)

    class User(UserMixin):  # type: ignore[misc]
        def __init__(self, name: str) -> None:
            self.id, self.is_admin = name, name == "ann"

    manager.user_loader(User)
    page.app.add_url_rule("/login/<name>", "login", lambda name: str(login_user(User(name))))
    assert page.get().status_code == 403
    page.get("/login/bob")
    assert page.get().status_code == 403
    page.get("/login/ann")
    assert page.get().status_code == 200
    with page.open() as socket:
        assert socket.hello["who"] == "ann"


def test_a_client_that_does_not_read() -> None:
    page = Page(SEND_QUEUE_SIZE=1)
    with page.client.connect("/echo/a"), page.open() as socket:
        row = socket.row("/echo/a")

        def is_full() -> bool:
            answer = page.post("send", socket.token, id=row["id"], text="x" * 4096)
            assert answer.status_code in (200, 409)
            if answer.json.get("done") == "queued":
                assert answer.json["queued"] > 0
            # The kernel may have taken some of it meanwhile. It was not closed for that.
            return bool(answer.status_code == 409 and socket.row("/echo/a")["queued"] > 0)

        eventually(is_full, "its queue to be full")


def test_limits_of_the_app_are_not_for_the_page() -> None:
    page = Page(MAX_CONNECTIONS=1, MAX_RATE=(1, 100), MAX_MESSAGE_SIZE=10, ALLOWED_ORIGINS="x://y")
    with page.open() as one, page.open() as two:
        for socket in (one, two):
            for _ in range(3):
                assert socket.table()["total"] >= 1


def test_ten_thousand_names_are_told_in_parts() -> None:
    page = Page(MAX_ROOMS=20_000)

    @page.websocket.route("/many")
    def many(ws: Any) -> None:
        for number in range(10_000):
            ws.join(f"<{number:05}>")
        ws.receive()

    with page.client.connect("/many"), page.client.connect("/echo/<00007>"), page.open() as socket:
        deadline = time.monotonic() + PATIENCE
        while (row := socket.row("/many"))["rooms_total"] < 10_000:
            assert time.monotonic() < deadline
        assert row["rooms"] == [f"<{number:05}>" for number in range(5)]
        socket.watch(rooms={"limit": 3})
        answer = socket.next("rooms")
        assert answer["rows"][0] == {"room": "<00007>", "connections": 2}
        assert (len(answer["rows"]), answer["more"]) == (3, True)
        found = socket.table(search="<09999>")
        assert (found["matched"], found["rows"][0]["path"]) == (1, "/many")


def test_who_reads_from_where_the_page_went_on() -> None:
    """Places are the page's to send back, so they may be anything."""
    page = Page()
    with page.client.connect("/echo/a"), page.open() as socket:
        for place in ([1e308, "", 0], [float("nan"), "x", -1], [-(10**30), "\ud800", 10**30]):
            for name in ("after", "before"):
                answer = socket.table(**{name: place})
                assert answer["position"] >= 1 or not answer["rows"]
        socket.watch(connections={"after": ["text", "x", 1]})
        assert "sorted otherwise" in socket.next("error")["error"]


def test_an_app_that_is_protected_by_flask_wtf() -> None:
    page = Page()
    CSRFProtect(page.app)
    page.app.add_url_rule("/of-the-app", "own", lambda: "", methods=["POST"])
    assert page.client.post("/of-the-app").status_code == 400
    with page.open() as socket:
        assert page.post("close", socket.token, id="x").status_code == 404
        assert page.post("close", "", id="x").status_code == 403


def test_an_app_without_strict_slashes() -> None:
    app = Flask("under test")
    app.secret_key = "for tests"
    app.url_map.strict_slashes = False
    websocket = WebSocket(app)
    websocket.admin(allowed=lambda: True)
    answer = websocket.test_client().get("/_ws")
    assert (answer.status_code, answer.headers["Location"][-5:]) == (308, "/_ws/")


def test_the_messages_of_before_are_those_of_all_workers() -> None:
    """Each takes its samples when it does; who has started later remembers less."""
    one = [(100.0 + 5 * number, 10 * number, 100 * number) for number in range(5)]
    two = [(103.0 + 6 * number, 500 + 6 * number, 0) for number in range(4)]
    points = history.rates([one, two])
    assert [when for when, _, _ in points] == [108.0, 113.0, 118.0]
    assert [received for _, received, _ in points] == pytest.approx([3, 3, 3])
    assert [sent for _, _, sent in points] == pytest.approx([20, 20, 20])
    assert history.rates([one, []]) == history.rates([one[:1]]) == history.rates([]) == []


def test_a_worker_remembers_some_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    known, counted = (
        history.History(),
        {"routes": {"/a": {"messages_received": 1, "messages_sent": 2}}},
    )
    for second in range(1, 1000):
        monkeypatch.setattr(time, "time", lambda second=second: float(second))
        known.listen("", counted)
    assert len(known.samples) == history.KEPT
    assert known.samples[-1] == (995.0, 1, 2)
    monkeypatch.setattr(time, "time", lambda: 5.0)
    known.listen("", counted)
    assert [*known.samples] == [(5.0, 1, 2)]


def test_a_worker_that_uwsgi_wants_no_longer_is_not_shown_as_missing() -> None:
    page = Page()
    with page.app.app_context():
        stats = page.websocket.stats()
    [worker] = stats["workers"]
    stats["workers"] += [{**worker, "worker": 1, "state": state} for state in ("ended", "retired")]
    assert [each["state"] for each in summary(stats)["workers"]] == ["live", "ended"]
