"""Rooms as an app uses them, on every class of handlers, with the test client."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from weakref import ref

import gevent
import pytest
from flask import Flask, g, request

from flask_uwsgi_websocket import (
    AsyncioWebSocket,
    BackplaneUnavailable,
    GeventWebSocket,
    WebSocket,
)
from flask_uwsgi_websocket.extension.config import PREFIX
from flask_uwsgi_websocket.helpers.log import RateLimit
from flask_uwsgi_websocket.rooms.counting import Count
from flask_uwsgi_websocket.rooms.memory import MemoryBackplane
from flask_uwsgi_websocket.rooms.positions import Joined
from flask_uwsgi_websocket.session import session
from flask_uwsgi_websocket.testing import HandshakeRejected, WebSocketTestConnection
from tests.server import ROOT

CLASSES = [WebSocket, GeventWebSocket, AsyncioWebSocket]


class Kit:
    """An app whose handlers join the room of their URL, and send to it; and its test client."""

    def __init__(self, extension: type[WebSocket], **config: Any) -> None:
        self.app = Flask("under test")
        config.setdefault("AGGRESSIVE_PATCH", False)
        self.app.config.update({PREFIX + key: value for key, value in config.items()}, TESTING=True)
        self.websocket: Any = extension(self.app, timeout=1)
        self.asynchronous = extension is AsyncioWebSocket
        self.uses_greenlets = extension is GeventWebSocket
        self.seen: list[Any] = []
        add = self._add_coroutines if self.asynchronous else self._add_functions
        add()
        self.client = self.websocket.test_client()

    def _add_functions(self) -> None:
        @self.websocket.route("/chat/<name>")
        def chat(ws: Any, name: str) -> None:
            ws.join(name)
            for text in ws:
                ws.to(name).send(text)

        @self.websocket.route("/do")
        def do(ws: Any) -> None:
            for command in ws:
                result = self.command(ws, command)
                ws.send(repr(result))

        @self.websocket.route("/lazy/<name>", lazy=True)
        def lazy(ws: Any, name: str) -> None:
            ws.join(name)
            for text in ws:
                ws.send(text)

    def _add_coroutines(self) -> None:
        @self.websocket.route("/chat/<name>")
        async def chat(ws: Any, name: str) -> None:
            await ws.join(name)
            async for text in ws:
                await ws.to(name).send(text)

        @self.websocket.route("/do")
        async def do(ws: Any) -> None:
            async for command in ws:
                result = self.command(ws, command)
                await ws.send(repr(await result if isinstance(result, Awaitable) else result))

        @self.websocket.route("/lazy/<name>", lazy=True)
        async def lazy(ws: Any, name: str) -> None:
            await ws.join(name)
            async for text in ws:
                await ws.send(text)

    def command(self, ws: Any, command: str) -> Any:
        """Evaluate what a test wants a handler to do."""
        return eval(command, {"ws": ws, "websocket": self.websocket, "Decimal": Decimal})

    def wait(self, is_so: Callable[[], object]) -> None:
        """Wait, and let greenlets of the test's hub run meanwhile."""
        sleep = gevent.sleep if self.uses_greenlets else time.sleep
        deadline = time.monotonic() + 10
        while not is_so():
            assert time.monotonic() < deadline
            sleep(0.01)

    def connect(self, path: str, **options: Any) -> WebSocketTestConnection:
        return self.client.connect(path, **options)


def do(connection: WebSocketTestConnection, command: str) -> str:
    connection.send(command)
    answer = connection.receive()
    assert isinstance(answer, str)
    return answer


@pytest.fixture(params=CLASSES, ids=lambda cls: cls.__name__)
def extension(request: pytest.FixtureRequest) -> type[WebSocket]:
    kind: type[WebSocket] = request.param
    return kind


@pytest.fixture
def kit(extension: type[WebSocket]) -> Kit:
    return Kit(extension)


def nothing_comes(connection: WebSocketTestConnection) -> bool:
    try:
        connection.receive(timeout=0.1)
    except TimeoutError:
        return True
    return False


def test_what_one_sends_the_others_get(kit: Kit) -> None:
    with kit.connect("/chat/a") as a, kit.connect("/chat/a") as b, kit.connect("/chat/x") as x:
        a.send("x")
        assert b.receive() == "x"
        assert nothing_comes(a)
        assert nothing_comes(x)


def test_it_never_depends_on_luck(kit: Kit) -> None:
    for number in range(30):
        room = f"/chat/{number}"
        with kit.connect(room) as a, kit.connect(room) as b:
            a.send("x")
            assert b.receive() == "x"


def test_targets(kit: Kit) -> None:
    @kit.websocket.identify
    def who_is_it() -> str | None:
        return request.args.get("user")

    with (
        kit.connect("/chat/a?user=7") as first,
        kit.connect("/chat/b?user=7") as second,
        kit.connect("/do") as third,
    ):
        do(third, "ws.join('a')")
        do(third, "ws.join('b')")
        to = kit.websocket
        to.to("a").send("a")
        to.to("a", "b").send("once")
        to.to_user(7).send("user")
        to.to_user("7", "nobody").send_json({"a": 1})
        to.to_all().send(b"bytes")
        to.to("a").send_nowait("later")
        to.to("a").send("last")
        assert [first.receive() for _ in range(7)] == [
            *("a", "once", "user", '{"a": 1}', b"bytes", "later", "last")
        ]
        assert [second.receive() for _ in range(4)] == ["once", "user", '{"a": 1}', b"bytes"]
        assert [third.receive() for _ in range(5)] == ["a", "once", b"bytes", "later", "last"]


def test_excluded(kit: Kit) -> None:
    with kit.connect("/do") as first, kit.connect("/chat/a") as second:
        do(first, "ws.join('a')")
        first_id = eval(do(first, "ws.id"))
        for exclude in (first_id, [first_id, None, ""]):
            kit.websocket.to("a", exclude=exclude).send("x")
            assert second.receive() == "x"
        kit.websocket.to("a", exclude=None).send("z")  # a header field that was not sent
        assert first.receive() == second.receive() == "z"
        for client in kit.websocket.clients:
            if client.id == first_id:
                kit.websocket.to_all(exclude=client).send("y")
        assert second.receive() == "y"
        assert nothing_comes(first)


def test_json_is_made_by_the_apps_provider(kit: Kit) -> None:
    with kit.connect("/chat/a") as a:
        kit.websocket.to("a").send_json({"price": Decimal("1.50")})
        assert a.receive_json() == {"price": "1.50"}


def test_who_and_in_which_rooms(kit: Kit) -> None:
    kit.websocket.identify(lambda: request.args.get("user", type=int))
    with kit.connect("/do?user=7") as a, kit.connect("/do") as b:
        assert do(a, "ws.user") == "'7'"
        assert do(b, "ws.user") == "None"
        assert do(a, "ws.rooms") == "frozenset()"
        for room in ("a", "b", "a"):
            assert eval(do(a, f"ws.join({room!r})"), {"Joined": Joined}) == (room, None, None, 0)
        assert eval(do(a, "ws.rooms")) == {"a", "b"}
        assert do(a, "ws.leave('a')") == do(a, "ws.leave('never joined')") == "None"
        assert eval(do(a, "ws.rooms")) == {"b"}


def test_counts(kit: Kit) -> None:
    kit.websocket.identify(lambda: request.args.get("user"))
    assert kit.websocket.count("a") == (0, 0, True)
    assert kit.websocket.rooms() == {}
    with kit.connect("/chat/a?user=x"), kit.connect("/chat/a?user=x"), kit.connect("/chat/a") as c:
        assert kit.websocket.count("a") == Count(connections=3, users=1, complete=True)
        with kit.connect("/do?user=y") as d:
            do(d, "ws.join('b')")
            assert do(d, "websocket.count('b')") == repr(Count(1, 1, True))
            assert kit.websocket.rooms() == {"a": (3, 1, True), "b": (1, 1, True)}
        c.abort()
        kit.wait(lambda: kit.websocket.rooms() == {"a": (2, 1, True)})
    assert kit.websocket.rooms() == {}


def test_closing_and_moving_all_of_a_target(kit: Kit) -> None:
    with kit.connect("/chat/a") as a, kit.connect("/chat/a") as b:
        kit.websocket.to("a").join("finals")
        kit.websocket.to("a").leave("a")
        kit.websocket.to("finals").send("x")
        assert a.receive() == b.receive() == "x"
        assert kit.websocket.rooms() == {"finals": (2, 0, True)}
        kit.websocket.to("finals").close(4001, "over")
        assert a.receive() is b.receive() is None
        assert (a.close_code, a.close_reason) == (4001, "over")


def test_what_cannot_be_sent(extension: type[WebSocket]) -> None:
    kit = Kit(extension, ROOM_MESSAGE_SIZE=10)
    target = kit.websocket.to("a")
    for send in (target.send, target.send_nowait):
        with pytest.raises(TypeError, match="str or bytes, not int"):
            send(5)
        with pytest.raises(ValueError, match=r"of 11 bytes.*ROOM_MESSAGE_SIZE"):
            send(b"x" * 11)
        with pytest.raises(ValueError, match="utf-8"):
            send(b"\xff", binary=False)
    for wrong, error in [("", ValueError), ("a\n", ValueError), (5, TypeError)]:
        with pytest.raises(error):
            kit.websocket.to(wrong)
    with pytest.raises(ValueError, match="1005"):
        target.close(1005)


def test_what_is_too_large_for_other_workers_goes_to_nobody(extension: type[WebSocket]) -> None:
    kit = Kit(extension, ROOM_MESSAGE_SIZE=10, BACKPLANE=f"memory://{uuid.uuid4()}")
    with kit.connect("/chat/a") as a:
        with pytest.raises(ValueError, match=r"of 11 bytes.*ROOM_MESSAGE_SIZE"):
            kit.websocket.send_to_all("x" * 11)
        kit.websocket.send_to_all("x" * 10)
        assert a.receive() == "x" * 10
        assert nothing_comes(a)


def test_limits(
    extension: type[WebSocket],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What handlers do not catch closes their clients, and is logged once for many."""
    for kind in session._EXPECTED:
        monkeypatch.setitem(session._EXPECTED, kind, RateLimit())
    kit = Kit(extension, MAX_ROOMS=2)
    kit.websocket.room("small/*", max_members=1)
    with kit.connect("/do") as a, kit.connect("/do") as b:
        do(a, "ws.join('a')")
        do(a, "ws.join('small/x')")
        do(a, "ws.join('a')")  # it is in it
        a.send("ws.join('c')")
        assert a.receive() is None
        assert a.close_code == 1008
        kit.wait(lambda: kit.websocket.count("a").connections == 0)
        do(b, "ws.join('small/x')")
        do(b, "ws.join('small/x')")
    with kit.connect("/chat/small"), kit.connect("/do") as a, kit.connect("/do") as b:
        do(a, "ws.join('small/y')")
        b.send("ws.join('small/y')")
        assert b.receive() is None
        assert b.close_code == 1013
    for said in ("closed with 1008", "in 2 rooms already", "1013", "'small/y' has 1 members"):
        assert said in caplog.text
    assert "Traceback" not in caplog.text


def test_options_come_first(kit: Kit) -> None:
    with kit.connect("/chat/a"):
        pass
    with pytest.raises(RuntimeError, match="before the first room is used"):
        kit.websocket.room("a")


def test_a_lazy_handshake_is_answered_by_joining(kit: Kit) -> None:
    with kit.connect("/lazy/a") as a:
        kit.websocket.to("a").send("x")
        assert a.receive() == "x"


def test_identify_may_refuse(kit: Kit) -> None:
    @kit.websocket.identify
    def who_is_it() -> str:
        return {"": "nobody", "int": 5, "bad": 1.5}[request.args.get("user", "")]  # type: ignore

    kit.app.config["PROPAGATE_EXCEPTIONS"] = False
    for query in ("?user=unknown", "?user=bad"):
        with pytest.raises(HandshakeRejected) as caught:
            kit.connect(f"/do{query}")
        assert caught.value.status == 500
    with kit.connect("/do?user=int") as a:
        assert do(a, "ws.user") == "'5'"


def test_flask_login_tells_who_it_is(kit: Kit) -> None:
    from flask_login import LoginManager, UserMixin, login_user

    class User(UserMixin):  # type: ignore[misc]  # untyped
        id = "ann"

    given_back: list[str] = []
    kit.app.teardown_appcontext(lambda error: given_back.append(g.pop("loaded", "nothing")))
    kit.app.secret_key = "x"

    def load(user_id: str) -> User:
        g.loaded = "a session"
        return User()

    LoginManager(kit.app).user_loader(load)
    kit.app.add_url_rule("/login", view_func=lambda: str(login_user(User())))
    with kit.connect("/do") as a:
        assert do(a, "ws.user") == "None"
    kit.client.get("/login")
    given_back.clear()
    with kit.connect("/do") as a:
        assert given_back == ["a session"]  # though the request goes on
        assert do(a, "ws.user") == "'ann'"
        kit.websocket.to_user("ann").send("x")
        assert a.receive() == "x"


def test_views_send(kit: Kit) -> None:
    @kit.app.get("/say/<room>/<text>")
    def say(room: str, text: str) -> str:
        kit.websocket.to(room).send(text)
        return repr(kit.websocket.count(room))

    with kit.connect("/chat/a") as a:
        assert kit.client.get("/say/a/hi").text == repr(Count(1, 0, True))
        assert a.receive() == "hi"


def test_threads_send_in_their_order(kit: Kit) -> None:
    with kit.connect("/chat/a") as a:

        def send(name: str) -> None:
            for number in range(50):
                target = kit.websocket.to("a")
                (target.send if number % 3 else target.send_nowait)(f"{name}{number}")
            kit.websocket.to("a").send(f"{name}50")

        threads = [threading.Thread(target=send, args=(name,)) for name in "xyz"]
        for thread in threads:
            thread.start()
        messages = [a.receive() for _ in range(153)]
        for thread in threads:
            kit.wait(lambda thread=thread: not thread.is_alive())  # type: ignore[misc]
    for name in "xyz":
        own = [one for one in messages if isinstance(one, str) and one.startswith(name)]
        assert own == [f"{name}{number}" for number in range(51)]


def test_unavailable_backplanes(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who catches nothing is closed with 1013, without a traceback."""

    async def fail(self: Any, given: Any) -> Any:
        raise ConnectionRefusedError("refused")

    monkeypatch.setitem(session._EXPECTED, BackplaneUnavailable, RateLimit())
    with kit.connect("/chat/there") as there:
        with monkeypatch.context() as patch:
            patch.setattr(MemoryBackplane, "subscribe", fail)
            for _ in range(2):
                with kit.connect("/chat/a") as a:
                    assert a.receive() is None
                assert a.close_code == 1013
            patch.setattr(MemoryBackplane, "publish", fail)
            with pytest.raises(BackplaneUnavailable, match="refused"):
                kit.websocket.to("there").send("x")
            kit.websocket.to("there").send_nowait("lost")
            exchange = kit.websocket._rooms.of(kit.app).live().exchange
            kit.wait(lambda: exchange.metrics.backplane.failed == 2)
        kit.websocket.to("there").send("again")
        assert there.receive() == "again"
        with kit.connect("/chat/a") as a:
            kit.websocket.to("a").send("y")
            assert a.receive() == "y"
    assert "Traceback" not in caplog.text
    warnings = [record for record in caplog.records if "1013" in record.message]
    assert len(warnings) == 1


def test_apps_do_not_hear_each_other(extension: type[WebSocket]) -> None:
    first, second = Kit(extension), Kit(extension)
    named = [Kit(extension, BACKPLANE="memory://one") for _ in range(2)]
    other = Kit(extension, BACKPLANE="memory://one", PREFIX="other")
    kits = [first, second, *named, other]
    connections = [kit.connect("/chat/a") for kit in kits]
    try:
        first.websocket.to("a").send("x")
        named[0].websocket.to("a").send("y")
        heard = [None if nothing_comes(each) else each for each in connections[1:2]]
        assert heard == [None]
        assert connections[0].receive() == "x"
        assert connections[2].receive() == connections[3].receive() == "y"
        assert nothing_comes(connections[4])
        assert named[1].websocket.count("a") == (2, 0, True)
        assert other.websocket.count("a") == (1, 0, True)
        named[1].websocket.send_to_all("all")  # what is of one name is one app, of two processes
        assert connections[2].receive() == connections[3].receive() == "all"
        assert nothing_comes(connections[4])
    finally:
        for connection in connections:
            connection.close()


def test_one_extension_of_several_apps(extension: type[WebSocket]) -> None:
    kit = Kit(extension)
    other = Flask("other")
    other.config.update(kit.app.config, UWSGI_WEBSOCKET_PREFIX=None)
    kit.websocket.init_app(other)
    with kit.connect("/chat/a") as a, kit.websocket.test_client(other).connect("/chat/a") as b:
        b.send("alone")
        kit.websocket.to("a").send("to the latest app")
        assert b.receive() == "to the latest app"
        with kit.app.app_context():
            kit.websocket.to("a").send("to the current app")
        assert a.receive() == "to the current app"
        kit.websocket.send_to_all("to both")
        assert a.receive() == b.receive() == "to both"


def test_clients_of_no_app_have_no_rooms(kit: Kit) -> None:
    with kit.connect("/do") as a:
        with pytest.raises(RuntimeError, match="has no rooms"):
            a.join("a")
        with pytest.raises(RuntimeError, match="has no rooms"):
            a.to("a")


def test_inside_tasks_what_is_not_awaited_is_sent_too() -> None:
    kit = Kit(AsyncioWebSocket)
    with kit.connect("/do") as a, kit.connect("/chat/a") as b:
        do(a, "[websocket.to('a').send(str(n)) for n in range(5)] and None")
        assert [b.receive() for _ in range(5)] == list("01234")


def test_callbacks_may_not_wait() -> None:
    """They would stop the loop; they may send without waiting."""
    kit = Kit(AsyncioWebSocket)
    errors: list[BaseException] = []

    def callback() -> None:
        try:
            kit.websocket.to("a").send("no")
        except RuntimeError as error:
            errors.append(error)
        kit.websocket.to("a").send_nowait("yes")

    @kit.websocket.route("/callback")
    async def handler(ws: Any) -> None:
        asyncio.get_running_loop().call_soon(callback)
        await ws.receive()

    with kit.connect("/chat/a") as a, kit.connect("/callback"):
        assert a.receive() == "yes"
    assert "send_nowait" in str(errors[0])


def test_scripts_need_no_server(tmp_path: Path) -> None:
    """What a script sends to a backplane arrives in another process; by default it reaches none."""
    script = tmp_path / "script.py"
    script.write_text(
        "from flask import Flask\n"
        "from flask_uwsgi_websocket import WebSocket\n"
        "app = Flask('shop')\n"
        "websocket = WebSocket(app)\n"
        "with app.app_context():\n"
        "    websocket.to('a').send('nobody is here')\n"
        "    print(websocket.count('a'))\n"
        "    websocket.to('a').send_nowait('x')\n"
    )
    done = subprocess.run(
        [sys.executable, script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == f"{Count(0, 0, True)}\n"
    assert done.stderr == ""


def test_several_workers_without_a_backplane_are_told_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kit = Kit(WebSocket)
    options: dict[str, Any] = {"environ_overrides": {"wsgi.multiprocess": True}}
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with kit.connect("/chat/a", **options):
                pass
    warnings = [record.message for record in caplog.records if "local:///" in record.message]
    assert len(warnings) == 1


def test_apps_that_happen_to_have_the_same_rooms_are_told_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def use(prefix: str | None = None) -> Flask:
        app = Flask("tenant")
        app.config.update(
            UWSGI_WEBSOCKET_BACKPLANE="memory://tenants", UWSGI_WEBSOCKET_PREFIX=prefix
        )
        for _ in range(2):  # several extensions of one app are meant to
            websocket = WebSocket(app)
            with app.app_context():
                websocket.to("a").send("x")
        return app

    apps = [use(), use("one"), use("tenant")]
    assert "the same rooms" not in caplog.text
    apps.append(use())
    assert caplog.text.count("have the same rooms and users, since each is called 'tenant'") == 2


def test_nothing_of_rooms_starts_where_nobody_uses_them(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Callable[..., Any]:
        raise AssertionError("an exchange was made")

    monkeypatch.setattr("flask_uwsgi_websocket.rooms.live.Exchange", refuse)
    with kit.connect("/do") as a:
        assert do(a, "1 + 1") == "2"
        assert do(a, "ws.rooms") == "frozenset()"
        kit.websocket.send_to_all("x")
        assert a.receive() == "x"


def test_an_app_that_is_gone_leaves_nothing(
    extension: type[WebSocket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does one with a backplane of a name, which others may have."""
    monkeypatch.setattr("flask_uwsgi_websocket.rooms.subscriptions.KEEP_TIME", 0.05)
    for backplane in (None, "memory://leaving"):
        kit = Kit(extension, BACKPLANE=backplane)
        with kit.connect("/chat/a") as a, kit.connect("/chat/a") as b:
            a.send("x")
            assert b.receive() == "x"
        a = b = None  # type: ignore[assignment]
        gone = ref(kit.app)
        kit = None  # type: ignore[assignment]
        deadline = time.monotonic() + 30
        while gone() is not None:
            gc.collect()
            gevent.sleep(0.05)
            assert time.monotonic() < deadline
