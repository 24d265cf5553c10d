"""The admin page's server over several workers: what it shows of them, and does to them."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import pytest
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection

from flask_uwsgi_websocket.monitoring.admin.history import STEP
from tests.redis_servers import RedisServer
from tests.server import PATIENCE, Server, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

ServerFactory = Callable[..., Server]

#: Without asyncio on uvloop, which makes no difference here; with uWSGI's async mode.
ENGINES = pytest.mark.parametrize("engine", ["threads", "gevent", "asyncio", "async"])
#: Where only the loop that the backplane is on makes a difference.
BOTH_LOOPS = pytest.mark.parametrize("engine", ["threads", "asyncio"])


class Admin:
    """An admin's page: its WebSocket, and what it posts."""

    def __init__(self, server: Server, who: str = "ann") -> None:
        self.server = server
        headers = {"X-Admin": who}
        connecting = server.connect(
            "/_ws/updates", origin=server.origin, additional_headers=headers
        )
        self.socket = connecting.__enter__()
        self.headers = {**headers, "Origin": server.origin, "Content-Type": "application/json"}
        self.hello = self.next("hello")
        self.headers["X-Admin-Token"] = self.hello["token"]

    def next(self, kind: str) -> Any:
        while True:
            message = json.loads(self.socket.recv(PATIENCE))
            if message["type"] == kind:
                return message

    def watch(self, **what: Any) -> None:
        self.socket.send(json.dumps({"type": "watch", **what}))

    def table(self, **query: Any) -> Any:
        """The answer to a query."""
        tag = str(time.monotonic())
        self.watch(connections={"tag": tag, "hide_admins": True, **query})
        while (answer := self.next("connections"))["tag"] != tag:
            pass
        return answer

    def rows(self, **query: Any) -> list[Any]:
        rows: list[Any] = self.table(**query)["rows"]
        return rows

    def post(self, action: str, **body: Any) -> tuple[int, Any]:
        data = json.dumps(body).encode()
        answer = self.server.http("POST", f"/_ws/{action}", data, self.headers)
        return answer.status, json.loads(answer.body)


class Chat:
    """A WebSocket that has joined a room."""

    def __init__(self, server: Server, room: str, user: str | None = None) -> None:
        query = "" if user is None else f"?user={quote(user)}"
        connecting = server.connect(f"/chat/{quote(room)}{query}")
        self.socket: ClientConnection = connecting.__enter__()
        self.pid = int(str(self.socket.recv(PATIENCE)).split()[1])

    def echo(self, text: str) -> None:
        self.socket.send(text)
        assert self.socket.recv(PATIENCE) == text


@contextmanager
def opened(server: Server, who: str = "ann") -> Iterator[Admin]:
    admin = Admin(server, who)
    try:
        yield admin
    finally:
        admin.socket.close()


@contextmanager
def chats(server: Server, room: str, least: int = 4, user: str | None = None) -> Iterator[Any]:
    """WebSockets of all workers."""
    members: list[Chat] = []
    deadline = time.monotonic() + PATIENCE
    try:
        while len(members) < least or len({m.pid for m in members}) < server.processes:
            members.append(Chat(server, room, user))
            if len(members) == least and len({m.pid for m in members}) < server.processes:
                members.pop().socket.close()  # its worker has threads for other requests, too
            assert time.monotonic() < deadline, "all connections are one worker's"
        yield members
    finally:
        for member in members:
            member.socket.close()


@pytest.fixture
def admin_server(engine: str, shared_server: ServerFactory) -> Server:
    # A worker in async mode answers while it does something, and not before.
    return shared_server(engine, app="admin", processes=1 if engine == "async" else 2)


@ENGINES
def test_connections_of_all_workers(admin_server: Server, token: str) -> None:
    room = f"{token}/<b>"
    with chats(admin_server, room, user="eve & co") as members, opened(admin_server) as admin:
        for number, member in enumerate(members):
            for _ in range(number + 1):
                member.echo("hello")
        answer = admin.table(field="room", search=room, sort="messages_received")
        assert (answer["matched"], answer["complete"]) == (len(members), True)
        assert answer["total"] > len(members)  # this page, too
        assert len({row["worker"] for row in answer["rows"]}) == admin_server.processes
        received = [row["messages_received"] for row in answer["rows"]]
        assert received == list(range(1, len(members) + 1))
        for row in answer["rows"]:
            assert row["messages_sent"] == row["messages_received"] + 1
            assert row["bytes_received"] == row["messages_received"] * (6 + len("hello"))
            assert abs(row["since"] - time.time()) < 600
            known = {name: row[name] for name in ("user", "route", "rooms", "rooms_total")}
            route = "/chat/<path:room>"
            assert known == {"user": "eve & co", "route": route, "rooms": [room], "rooms_total": 1}
            assert (row["path"], row["address"]) == (f"/chat/{room}", "127.0.0.1")


@ENGINES
def test_actions_on_any_worker(admin_server: Server, token: str) -> None:
    with chats(admin_server, token) as members, opened(admin_server) as admin:
        rows = admin.rows(field="room", search=token, exact=True)
        assert len({row["worker"] for row in rows}) == admin_server.processes
        for row in rows:
            status, sent = admin.post("send", id=row["id"], text=f"for {row['id']}")
            assert (status, sent["done"], sent["connection"]["worker"]) == (
                200,
                "sent",
                row["worker"],
            )
        told = {str(member.socket.recv(PATIENCE)) for member in members}
        assert told == {f"for {row['id']}" for row in rows}
        for row in rows:
            status, closing = admin.post("close", id=row["id"], code=4001, reason="<i>out</i>")
            assert (status, closing["done"]) == (200, "closing")
        for member in members:
            with pytest.raises(ConnectionClosed) as closed:
                member.socket.recv(PATIENCE)
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "<i>out</i>")
        eventually(lambda: not admin.rows(field="room", search=token), "they are gone")
        status, gone = admin.post("close", id=rows[0]["id"])
        assert (status, "no such connection" in gone["error"]) == (404, True)
    assert "admin ann: close" in admin_server.new_log()
    assert "for " + rows[0]["id"] not in admin_server.new_log()


SORTS = ("opened", "user", "worker", "latency")


@BOTH_LOOPS
def test_pages_forward_and_back(admin_server: Server, token: str) -> None:
    with chats(admin_server, token, 8) as members, opened(admin_server) as admin:
        query = {"field": "room", "search": token, "limit": 3}
        for sort in SORTS:  # some of which are alike for all, and some never
            order = {**query, "sort": sort, "descending": sort == "opened"}
            every = [row["id"] for row in admin.rows(**{**order, "limit": 100})]
            assert len(every) == len(members)
            assert forward(admin, order) == every
            assert backward(admin, order) == every


def forward(admin: Admin, order: dict[str, Any]) -> list[str]:
    ids: list[str] = []
    answer = admin.table(**order)
    while answer["rows"]:
        assert answer["position"] == len(ids) + 1
        ids += [row["id"] for row in answer["rows"]]
        answer = admin.table(**order, after=answer["last"])
    return ids


def backward(admin: Admin, order: dict[str, Any]) -> list[str]:
    ids: list[str] = []
    answer = admin.table(**order, before="end")
    while answer["rows"]:
        ids = [row["id"] for row in answer["rows"]] + ids
        assert answer["position"] == answer["matched"] - len(ids) + 1
        answer = admin.table(**order, before=answer["first"])
    return ids


@BOTH_LOOPS
def test_a_look_into_a_room(admin_server: Server, token: str) -> None:
    room = f"kept/{token}"
    with chats(admin_server, room, user="eve") as members, opened(admin_server) as admin:
        for text in ("to x", "to <script>"):
            members[0].socket.send(text)
            for member in members:
                assert member.socket.recv(PATIENCE) == text

        def look() -> Any:
            status, seen = admin.post("room", room=room)
            assert (status, seen["users"]) == (200, 1)
            return seen["connections"] == len(members) and seen

        seen = eventually(look, "those that were closed have left")
        [eve] = seen["presence"]
        assert (eve["user"], eve["connections"], "info" in eve) == ("eve", len(members), False)
        sizes = [(m["size"], m["text"], "data" in m) for m in seen["history"]["messages"]]
        assert sizes == [(4, True, False), (11, True, False)]
        seen = admin.post("room", room=room, payloads=True)[1]
        assert [m["data"] for m in seen["history"]["messages"]] == ["to x", "to <script>"]
        assert json.loads(seen["presence"][0]["info"]) == {"secret": "info"}
        admin.watch(rooms={"search": token.upper()})
        rows = [{"room": room, "connections": len(members)}]
        eventually(lambda: admin.next("rooms")["rows"] == rows, "the room is there")
    assert "payloads too" in admin_server.new_log()
    assert "<script>" not in admin_server.new_log()


HOSTILE = [
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "\\u0000 \\x1b[2J",
    "\u202egnp.exe \ufeff",
    "ünï ☃ 👩‍👩‍👧",
    "%0d%0aSet-Cookie: a=b",
    "x" * 255,
]


@pytest.mark.parametrize("engine", ["asyncio"])
def test_hostile_names_are_only_text(admin_server: Server, token: str) -> None:
    with opened(admin_server) as admin:
        for name in HOSTILE:
            chat = Chat(admin_server, name, user=name)
            [row] = admin.rows(field="user", search=name, exact=True)
            shown = name if len(name) <= 200 else f"{name[:199]}…"
            assert (row["user"], row["rooms"]) == (shown, [shown])
            assert [r["id"] for r in admin.rows(field="room", search=name, exact=True)] == [
                row["id"]
            ]
            assert admin.post("room", room=name)[1]["connections"] == 1
            reason = name[:100] if name.isascii() else "ü☃"
            assert admin.post("close", id=row["id"], code=3000, reason=reason)[0] == 200
            with pytest.raises(ConnectionClosed):
                chat.socket.recv(PATIENCE)
    assert "\x1b" not in admin_server.new_log()


BAD_ACTIONS: list[tuple[str, dict[str, Any], int]] = [
    ("close", {}, 400),
    ("close", {"id": 1}, 400),
    ("close", {"id": "x" * 101}, 400),
    ("close", {"id": "x", "code": 1005}, 400),
    ("close", {"id": "x", "code": 999}, 400),
    ("close", {"id": "x", "code": 5000}, 400),
    ("close", {"id": "x", "code": "1000"}, 400),
    ("close", {"id": "x", "code": 1000, "reason": "x" * 124}, 400),
    ("close", {"id": "x", "code": 1000, "reason": ["x"]}, 400),
    ("close", {"id": "x", "code": 1000, "reason": "\ud800"}, 400),
    ("close", {"id": "00000000-0000-0000-0000-000000000000"}, 404),
    ("send", {"id": "x"}, 400),
    ("send", {"id": "x", "text": ""}, 400),
    ("send", {"id": "x", "text": "x" * 4097}, 400),
    ("send", {"id": "x", "text": "\ud800"}, 400),
    ("room", {}, 400),
    ("room", {"room": "a\nb"}, 400),
    ("room", {"room": "ü" * 200}, 400),
]


@pytest.mark.parametrize("engine", ["threads"])
def test_what_cannot_be_meant_is_refused(admin_server: Server) -> None:
    with opened(admin_server) as admin:
        for action, body, status in BAD_ACTIONS:
            assert admin.post(action, **body)[0] == status, (action, body)
        for data in (b"", b"[]", b"[" * 10_000, b"x" * 20_000, b"\xff", b'{"id": "x"'):
            answer = admin.server.http("POST", "/_ws/close", data, admin.headers)
            assert answer.status == 400, data[:20]
        plain = {**admin.headers, "Content-Type": "text/plain"}
        assert admin.server.http("POST", "/_ws/close", b'{"id": "x"}', plain).status == 400


BAD_MESSAGES: list[str | bytes] = [
    "",
    "[" * 10_000,
    "null",
    '{"type": "watch", "connections": []}',
    '{"type": "watch", "connections": {"limit": 101}}',
    '{"type": "watch", "connections": {"limit": true}}',
    '{"type": "watch", "connections": {"sort": "__class__"}}',
    '{"type": "watch", "connections": {"field": ["user"]}}',
    '{"type": "watch", "connections": {"after": [1, 2, 3]}}',
    '{"type": "watch", "connections": {"after": ["x", "y", 3]}}',
    '{"type": "watch", "connections": {"before": [{}, "y", 3]}}',
    '{"type": "watch", "connections": {"no such": 1}}',
    json.dumps({"type": "watch", "rooms": {"search": "x" * 300}}),
    b"\xff\x00",
    '{"type": "do"}',
]


@pytest.mark.parametrize("engine", ["asyncio"])
def test_messages_of_a_page_that_lies(admin_server: Server) -> None:
    with opened(admin_server) as admin:
        for message in BAD_MESSAGES:
            admin.socket.send(message)
            assert admin.next("error")["about"] == "message"
        for _ in range(2000):
            admin.watch(connections={"search": "x"})
        assert admin.table()["complete"]


@BOTH_LOOPS
def test_nobody_else_gets_in(admin_server: Server) -> None:
    origin = admin_server.origin
    assert admin_server.get("/_ws/").status == 403
    for headers in ({"Origin": origin}, {"X-Admin": "ann"}, {"X-Admin": "ann", "Origin": "x://y"}):
        answer = admin_server.refused("/_ws/updates", headers=headers)
        assert answer.status == 403
        assert answer.get("X-Frame-Options") == "DENY"
    body = b'{"id": "x"}'
    for headers in ({"Origin": origin}, {"X-Admin": "ann"}, {"X-Admin": "ann", "Origin": origin}):
        headers = {**headers, "Content-Type": "application/json"}
        assert admin_server.http("POST", "/_ws/close", body, headers).status == 403
    page = admin_server.get("/_ws/", **{"X-Admin": "ann"})
    assert page.status == 200
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    for path in ("//evil.example/_ws", "/_ws//evil.example", "/_ws"):
        answer = admin_server.get(path, **{"X-Admin": "ann"})
        location = answer.headers.get("Location", "")
        assert not location or location.startswith((f"{origin}/", "/"))
        assert not location.startswith("//")


@pytest.mark.parametrize("engine", ["threads", "gevent", "asyncio"])
def test_figures_of_all_workers(admin_server: Server, token: str) -> None:
    with chats(admin_server, token) as members, opened(admin_server) as admin:
        eventually(lambda: figures(admin)["open"] == len(members), "all are open")
        stats = admin.next("stats")
        assert stats["complete"]
        assert [worker["state"] for worker in stats["workers"]] == ["live", "live"]
        assert sum(worker["open"] for worker in stats["workers"]) == stats["open"]
        assert len(stats["ping"]["counts"]) == len(stats["ping"]["bounds"]) + 1


@pytest.mark.parametrize("engine", ["threads"])
def test_messages_of_before_the_page(admin_server: Server, token: str) -> None:
    with chats(admin_server, token, admin_server.processes) as members:
        with opened(admin_server) as admin:
            eventually(lambda: received_before(admin) is not None, "both remember something")
        for member in members:
            for number in range(20):
                member.echo(f"{number}")
        with opened(admin_server) as admin:
            all_of_them = 20 * len(members)
            eventually(lambda: (received_before(admin) or 0) >= 0.99 * all_of_them, "all are shown")


def received_before(admin: Admin) -> float | None:
    """How many messages were received in the last minutes, by what a page draws of them."""
    admin.watch(history=True)
    points = admin.next("history")["points"]
    return sum(received for _, received, _ in points) * STEP if points else None


def figures(admin: Admin) -> Any:
    """The figures of the one route besides the page's own."""
    admin.watch(stats=True)
    routes = admin.next("stats")["routes"]
    [route] = [each for each in routes if each["route"] == "/chat/<path:room>"]
    return route


@BOTH_LOOPS
def test_a_worker_is_blocked_killed_and_reloaded(serve: ServerFactory, engine: str) -> None:
    server = serve(engine, app="admin", processes=2)
    with opened(server) as admin, chats(server, "a") as members:
        for member in members:
            member.echo("hello")
        eventually(
            lambda: figures(admin)["messages_received"] == len(members), "all is counted, once"
        )
        own = admin.hello["worker"]
        other = 3 - own
        [theirs] = [w["pid"] for w in server.stats()["workers"] if w["id"] == other]
        [row, *_] = [row for row in admin.rows() if row["worker"] == other]
        os.kill(theirs, signal.SIGSTOP)
        try:
            assert not admin.table()["complete"]
            assert workers_of(admin) == {own}
            assert admin.post("close", id=row["id"])[0] == 503
            eventually(lambda: admin.table()["missing"] == [other], "it is missing")
            assert state_of(admin, other) == "blocked"
        finally:
            os.kill(theirs, signal.SIGCONT)
        eventually(lambda: admin.table()["complete"], "it answers again")
        server.allow_log("DAMN ! worker")
        os.kill(theirs, signal.SIGSTOP)
        with ThreadPoolExecutor(1) as beside:
            asked = beside.submit(admin.post, "send", id=row["id"], text="x")
            admin.watch(connections={})  # so are both questions on their way
            os.kill(theirs, signal.SIGKILL)
            # As its end was heard of before or after the question.
            assert asked.result(PATIENCE)[0] in (404, 503)
        eventually(lambda: not workers_of(admin) - {own}, "its connections are gone")
        eventually(lambda: admin.table()["complete"], "nobody is missing")
        with chats(server, "b"):
            eventually(lambda: workers_of(admin) == {1, 2}, "its successor answers")
        server.signal(signal.SIGHUP)
        assert code_of_end(admin) == 1012
    with eventually_opened(server) as admin, chats(server, "c"):
        eventually(lambda: workers_of(admin) == {1, 2}, "both answer")
        # From before the reload, too; what a worker counted in its last second may be lost.
        admin.watch(stats=True)
        eventually(lambda: admin.next("stats")["accepted"] > 6, "they counted on")


def code_of_end(admin: Admin) -> int | None:
    """The code that a page's WebSocket is closed with."""
    try:
        while admin.socket.recv(PATIENCE):
            pass
    except ConnectionClosed as closed:
        return closed.rcvd and closed.rcvd.code
    return None


def workers_of(admin: Admin) -> set[int]:
    return {row["worker"] for row in admin.rows()}


def state_of(admin: Admin, worker: int) -> str:
    """The state of a worker, once it is no longer live."""

    def state() -> str:
        admin.watch(stats=True)
        [state] = [w["state"] for w in admin.next("stats")["workers"] if w["worker"] == worker]
        return "" if state == "live" else str(state)

    return eventually(state, f"worker {worker} is not live")


@contextmanager
def eventually_opened(server: Server) -> Iterator[Admin]:
    """A page's WebSocket, from a server that reloads."""

    def connect() -> Admin | None:
        try:
            return Admin(server)
        except (OSError, WebSocketException):
            return None

    admin = eventually(connect, "the page connects again")
    assert admin is not None
    try:
        yield admin
    finally:
        admin.socket.close()


@BOTH_LOOPS
def test_machines_with_one_redis(
    serve: ServerFactory, engine: str, start_redis: Callable[..., RedisServer]
) -> None:
    redis = start_redis()
    config = {"UWSGI_WEBSOCKET_BACKPLANE": redis.url}
    one, two = (serve(engine, app="admin", config=config) for _ in range(2))
    here, there = Chat(one, "a"), Chat(two, "a")
    with opened(one) as admin:
        answer = admin.table(field="room", search="a", exact=True)
        assert (answer["complete"], answer["matched"]) == (True, 2)
        for row in answer["rows"]:
            assert admin.post("close", id=row["id"], reason="from one")[0] == 200
        assert admin.post("room", room="a")[1]["complete"]
        redis.kill()
        admin.watch(connections={}, stats=True)
        assert admin.next("error")["about"] == "connections"
        assert admin.post("close", id=row["id"])[0] == 503
        assert admin.next("stats")["open"] >= 1
    for chat in (here, there):
        with pytest.raises(ConnectionClosed) as closed:
            chat.socket.recv(PATIENCE)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.reason == "from one"


@pytest.mark.parametrize("engine", ["asyncio"])
def test_without_a_backplane_others_are_missing(serve: ServerFactory, engine: str) -> None:
    config = {"UWSGI_WEBSOCKET_BACKPLANE": "memory://"}
    server = serve(engine, app="admin", processes=2, config=config)
    server.allow_log("rooms reach the clients of one worker only")
    with chats(server, "a"), opened(server) as admin:
        own = admin.hello["worker"]
        assert workers_of(admin) == {own}
        eventually(lambda: admin.table()["missing"] == [3 - own], "it says that it misses some")
        assert received_before(admin) is None  # rather than too few
        assert not admin.table()["complete"]
