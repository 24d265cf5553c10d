"""Presence in one process: who is in a room, and what an app is told of that."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from flask import Flask, current_app, g, request

from flask_uwsgi_websocket import (
    AsyncioWebSocket,
    BackplaneUnavailable,
    GeventWebSocket,
    Room,
    RoomError,
    WebSocket,
)
from flask_uwsgi_websocket.extension import room_functions
from flask_uwsgi_websocket.rooms.channels import room_channel
from flask_uwsgi_websocket.rooms.envelope import SUBPROTOCOL
from flask_uwsgi_websocket.rooms.memory import MemoryBackplane
from flask_uwsgi_websocket.rooms.presence import announcements
from flask_uwsgi_websocket.rooms.presence.members import Member
from flask_uwsgi_websocket.rooms.presence.presence import Event, Happened
from flask_uwsgi_websocket.rooms.record import Kind, Record
from flask_uwsgi_websocket.testing import RoomFaults
from tests.server import PATIENCE, eventually

CLASSES = [WebSocket, GeventWebSocket, AsyncioWebSocket]
GRACE = 0.2


class Bench:
    """An app whose clients join the room that their path names, and what it was told."""

    def __init__(self, extension: type[Any]) -> None:
        self.app = Flask("under test")
        self.app.config.update(TESTING=True, UWSGI_WEBSOCKET_AGGRESSIVE_PATCH=False)
        self.websocket: Any = extension(self.app)
        self.told: list[tuple[Any, ...]] = []
        self.contexts: list[bool] = []
        self._set_up()
        self.client = self.websocket.test_client()

    def _set_up(self) -> None:
        self.websocket.room("at once/*", presence=Room.presence(grace=0))
        self.websocket.room("full/*", presence=Room.presence(grace=GRACE), max_members=2)
        self.websocket.room("long/*", presence=Room.presence(grace=120))
        self.websocket.room("loud/*", presence=Room.presence(grace=GRACE), announce=True)
        self.websocket.room("kind/*", presence=Room.presence(grace=GRACE))
        self.websocket.identify(lambda: request.args.get("user"))
        self._add_handlers(isinstance(self.websocket, AsyncioWebSocket))
        self.app.add_url_rule("/who/<path:room>", view_func=self.who)

    def who(self, room: str) -> Any:
        members = self.websocket.who(room)
        count = self.websocket.count(room)
        return {
            "members": [[m.user, m.info, m.connections] for m in members],
            "complete": members.complete,
            "count": list(count),
            "present": "user" in request.args and self.websocket.present(request.args["user"]),
        }

    def note(self, *told: Any) -> None:
        g.noted = True
        self.contexts.append(current_app._get_current_object() is self.app)  # type: ignore[attr-defined]
        self.told.append(told)

    def _add_handlers(self, asynchronous: bool) -> None:
        websocket = self.websocket
        if asynchronous:

            @websocket.route("/<path:room>", resume=True)
            async def wait(ws: Any, room: str) -> None:
                await ws.join(room, info=request.args.get("info"))
                await ws.send("joined")
                async for message in ws:
                    await ws.join(room, info=message or None)
                    await ws.send("joined")

            async def told(room: str, *who: Any) -> None:
                self.note(room, *who)

        else:

            @websocket.route("/<path:room>", resume=True)
            def block(ws: Any, room: str) -> None:
                ws.join(room, info=request.args.get("info"))
                ws.send("joined")
                for message in ws:
                    ws.join(room, info=message or None)
                    ws.send("joined")

            def told(room: str, *who: Any) -> None:
                self.note(room, *who)

        for kind in ("join", "leave", "room_empty"):
            self._add(kind, told)

    def _add(self, kind: str, told: Callable[..., Any]) -> None:
        def plain(*arguments: Any) -> Any:
            return told(kind, *arguments)

        async def coroutine(*arguments: Any) -> Any:
            return await told(kind, *arguments)

        chosen = coroutine if isinstance(self.websocket, AsyncioWebSocket) else plain
        getattr(self.websocket, f"on_{kind}")("*")(chosen)

    @contextmanager
    def joined(self, room: str, **query: str) -> Iterator[Any]:
        arguments = "&".join(f"{key}={value}" for key, value in query.items())
        with self.client.connect(f"/{room}?{arguments}") as ws:
            assert ws.receive(PATIENCE) == "joined"
            yield ws

    def ask(self, room: str, user: str | None = None) -> Any:
        query = {} if user is None else {"user": user}
        return self.app.test_client().get(f"/who/{room}", query_string=query).get_json()

    def waits(self, probe: Callable[[], Any], what: str) -> None:
        def probe_beside_greenlets() -> Any:
            gevent.sleep()  # they are in this very thread
            return probe()

        is_gevent = isinstance(self.websocket, GeventWebSocket)
        eventually(probe_beside_greenlets if is_gevent else probe, what)

    def hears(self, *expected: tuple[str, ...]) -> None:
        self.waits(lambda: len(self.told) >= len(expected), f"{expected}")
        heard = [(kind, room, *(who.user for who in rest)) for kind, room, *rest in self.told]
        assert heard == list(expected)
        self.told.clear()


@pytest.fixture(params=CLASSES)
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(request.param)


def test_a_user_comes_and_leaves_once(bench: Bench) -> None:
    with bench.joined("kind/a", user="ann", info="tab 1"):
        bench.hears(("join", "kind/a", "ann"))
        with bench.joined("kind/a", user="ann", info="tab 2"), bench.joined("kind/a", user="bob"):
            bench.hears(("join", "kind/a", "bob"))
            found = bench.ask("kind/a", "ann")
            assert found["members"] == [["ann", "tab 2", 2], ["bob", None, 1]]
            assert (found["complete"], found["count"]) == (True, [3, 2, True])
            assert found["present"] is True
        bench.hears(("leave", "kind/a", "bob"))
        assert bench.ask("kind/a")["members"] == [["ann", "tab 2", 1]]
    bench.hears(("leave", "kind/a", "ann"), ("room_empty", "kind/a"))
    found = bench.ask("kind/a", "ann")
    assert (found["members"], found["count"], found["present"]) == ([], [0, 0, True], False)
    assert all(bench.contexts)


def test_who_comes_back_in_time_never_left(bench: Bench) -> None:
    with bench.joined("long/a", user="ann"):
        pass
    bench.waits(lambda: bench.ask("long/a")["members"] == [["ann", None, 0]], "ann is in grace")
    with bench.joined("long/a", user="ann"), bench.joined("kind/a", user="bob"):
        assert bench.ask("long/a")["members"] == [["ann", None, 1]]
    bench.hears(
        ("join", "long/a", "ann"),
        ("join", "kind/a", "bob"),
        ("leave", "kind/a", "bob"),
        ("room_empty", "kind/a"),
    )


def test_edges(bench: Bench) -> None:
    """Without grace, and for those whom nobody knows: such a connection does not come back."""
    for _ in range(3):
        with bench.joined("at once/a", user="ann"):
            pass
    each = [
        ("join", "at once/a", "ann"),
        ("leave", "at once/a", "ann"),
        ("room_empty", "at once/a"),
    ]
    bench.hears(*each * 3)
    with bench.joined("kind/a"):
        [[user, _, _]] = bench.ask("kind/a")["members"]
        assert len(user) == 36
        assert bench.ask("kind/a")["count"] == [1, 0, True]
    bench.hears(("join", "kind/a", user), ("leave", "kind/a", user), ("room_empty", "kind/a"))


def test_a_full_room(bench: Bench) -> None:
    with bench.joined("full/a", user="ann"), bench.joined("full/a", user="bob"):
        with bench.joined("full/a", user="ann"):  # a second tab takes no seat
            pass
        with bench.client.connect("/full/a?user=eve") as ws:
            assert ws.receive(PATIENCE) is None
            assert ws.close_code == 1013
        assert [m[0] for m in bench.ask("full/a")["members"]] == ["ann", "bob"]
    bench.waits(lambda: len(bench.told) == 5, "all are told")
    assert [(kind, who[0].user) for kind, _, *who in bench.told[:2]] == [
        ("join", "ann"),
        ("join", "bob"),
    ]
    assert {who[0].user for _, _, *who in bench.told[2:4]} == {"ann", "bob"}
    assert bench.told[4] == ("room_empty", "full/a")


def test_infos(bench: Bench) -> None:
    """Whatever they are, they come to others as they were."""
    with bench.joined("kind/a", user="ann", info="%3Cscript%3E") as ws:
        assert bench.ask("kind/a")["members"] == [["ann", "<script>", 1]]
        for hostile in ("\0\u2028\ud7ff\U0001f600 '\"\\", "x" * 4094):
            ws.send(hostile)
            assert ws.receive(PATIENCE) == "joined"
            assert bench.ask("kind/a")["members"] == [["ann", hostile, 1]]
        ws.send("")  # to join again, saying nothing
        assert ws.receive(PATIENCE) == "joined"
        assert bench.ask("kind/a")["members"] == [["ann", hostile, 1]]


@pytest.mark.parametrize(
    ("info", "error"),
    [
        (object(), TypeError),
        ({"a": float("nan")}, ValueError),
        ("x" * 4095, ValueError),
        ({"a": ["half a character: \ud83d"]}, ValueError),
        (json.loads("[" * 150 + "]" * 150), ValueError),
    ],
    ids=["object", "NaN", "long", "half a character", "deep"],
)
def test_an_info_that_cannot_be(info: Any, error: type[Exception]) -> None:
    """Whoever has it from a client would else keep all in the room from hearing who comes."""
    bench = Bench(WebSocket)
    raised: list[BaseException] = []

    @bench.websocket.route("/try", endpoint="try")
    def attempt(ws: Any) -> None:
        try:
            ws.join("kind/a", info=info)
        except Exception as caught:
            raised.append(caught)
        ws.send(str(len(ws.rooms)))

    with bench.client.connect("/try") as ws:
        assert ws.receive(PATIENCE) == "0"
    assert isinstance(raised[0], error)
    assert bench.ask("kind/a")["members"] == []


def test_members_whom_somebody_else_moves(bench: Bench) -> None:
    """By ``to(...).join()``: they come too, where there is a seat."""
    with ExitStack() as stack:
        for user in ("ann", "bob", "eve"):
            stack.enter_context(bench.joined("hall", user=user))
        with bench.app.test_request_context():
            bench.websocket.to("hall").join("full/a")
        bench.waits(lambda: len(bench.ask("full/a")["members"]) == 2, "two seats are taken")
        with bench.app.test_request_context():
            bench.waits(lambda: bench.websocket.rooms()["full/a"].connections == 2, "one is out")
            bench.websocket.to("hall").leave("full/a")
        bench.waits(lambda: bench.ask("full/a")["members"] == [], "all have left")


def test_who_is_removed_while_it_joins_is_not_there(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscribe = MemoryBackplane.subscribe

    async def remove(backplane: MemoryBackplane, channels: Collection[str]) -> None:
        await subscribe(backplane, channels)
        membership = bench.websocket._rooms.of(bench.app).live().membership
        for client in tuple(bench.websocket.clients):
            membership.remove(client._connection, room_channel("kind/a"))

    monkeypatch.setattr(MemoryBackplane, "subscribe", remove)
    with bench.joined("kind/a", user="ann"):
        bench.hears(("join", "kind/a", "ann"), ("leave", "kind/a", "ann"), ("room_empty", "kind/a"))
        assert bench.ask("kind/a")["members"] == []


def test_a_room_without_presence(bench: Bench) -> None:
    with (
        bench.joined("plain", user="ann", info="told to nobody"),
        bench.app.test_request_context(),
        pytest.raises(RoomError, match="presence=True"),
    ):
        bench.websocket.who("plain")
    assert bench.told == []


def test_what_a_function_raises_is_logged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*told: Any) -> None:
        raise ZeroDivisionError("of the app")

    async def fail_as_well(*told: Any) -> None:
        raise ZeroDivisionError("of the app")

    asynchronous = isinstance(bench.websocket, AsyncioWebSocket)
    bench.websocket.on_join("kind/*")(fail_as_well if asynchronous else fail)
    with pytest.raises(TypeError, match="functions that are told of rooms"):
        bench.websocket.on_leave("kind/*")(fail if asynchronous else fail_as_well)
    with pytest.raises(TypeError, match="pattern"):
        bench.websocket.on_leave(fail)(fail_as_well if asynchronous else fail)
    with bench.joined("kind/a", user="ann"):
        bench.hears(("join", "kind/a", "ann"))
        bench.waits(lambda: caplog.records, "it is logged")
        assert bench.ask("kind/a")["members"] == [["ann", None, 1]]
    [record] = caplog.records
    assert "fail" in record.getMessage()
    assert isinstance(record.exc_info[1], ZeroDivisionError)  # type: ignore[index]
    caplog.clear()


def test_a_function_that_ends_itself_ends_no_other(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """As one does that awaits what somebody has cancelled."""

    def end(*told: Any) -> None:
        raise SystemExit if type(bench.websocket) is WebSocket else gevent.GreenletExit

    async def end_as_well(*told: Any) -> None:
        raise asyncio.CancelledError

    asynchronous = isinstance(bench.websocket, AsyncioWebSocket)
    bench.websocket.on_join("kind/*")(end_as_well if asynchronous else end)
    for user in ("ann", "bob"):
        with bench.joined("kind/a", user=user):
            bench.hears(("join", "kind/a", user))
        bench.hears(("leave", "kind/a", user), ("room_empty", "kind/a"))
    caplog.clear()


def test_a_function_that_holds_up_the_others_is_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room_functions, "_MANY", 3)
    goes_on = threading.Event()
    engine: Any = SimpleNamespace(
        asynchronous=False,
        killed=(),
        start_task=lambda work, *args, **options: threading.Thread(target=work).start(),
    )
    functions = room_functions.RoomFunctions(1.0)

    def sends_a_mail(room: str) -> None:
        goes_on.wait(PATIENCE)

    functions.add(Happened.EMPTY, "*", sends_a_mail)
    for _ in range(6):
        functions.tell(Flask("under test"), engine, Event(Happened.EMPTY, "a"))
    goes_on.set()
    assert "sends_a_mail" in caplog.text
    caplog.clear()


def test_a_backplane_that_is_away(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    with bench.joined("kind/a", user="ann") as ann, RoomFaults(bench.app) as faults:
        bench.hears(("join", "kind/a", "ann"))
        faults.fail()
        found = bench.ask("kind/a")
        assert (found["members"], found["complete"]) == ([["ann", None, 1]], False)
        ann.close()
        faults.recover()
        bench.hears(("leave", "kind/a", "ann"), ("room_empty", "kind/a"))
    assert bench.ask("kind/a")["complete"] is True


def test_who_is_refused_hears_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent to a full room while the store judges, too."""
    enter = MemoryBackplane.enter

    async def send_first(backplane: MemoryBackplane, occupants: Any) -> Any:
        if any(occupant.user == "eve" for occupant in occupants):
            channels = (room_channel("full/a"),)
            await backplane.publish([Record(Kind.MESSAGE, channels, b"secret", text=True)])
            await asyncio.sleep(0.1)
        return await enter(backplane, occupants)

    monkeypatch.setattr(MemoryBackplane, "enter", send_first)
    with bench.joined("full/a", user="ann") as ann, bench.joined("full/a", user="bob"):
        with bench.client.connect("/full/a?user=eve") as eve:
            assert eve.receive(PATIENCE) is None
            assert eve.close_code == 1013
        assert ann.receive(PATIENCE) == "secret"


def test_a_store_that_takes_nobody(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who joins is in, and known later; but for rooms that have so many seats."""

    async def refuse(*_: object) -> None:
        raise BackplaneUnavailable("its disk is full")

    with monkeypatch.context() as full:
        full.setattr(MemoryBackplane, "enter", refuse)
        ann = bench.client.connect("/kind/a?user=ann")
        assert ann.receive(PATIENCE) == "joined"
        with bench.client.connect("/full/a?user=bob") as bob:
            assert bob.receive(PATIENCE) is None
            assert bob.close_code == 1013
        assert bench.ask("kind/a")["members"] == []
        assert bench.told == []
    with ann:
        bench.hears(("join", "kind/a", "ann"))
        assert bench.ask("kind/a")["members"] == [["ann", None, 1]]
    bench.hears(("leave", "kind/a", "ann"), ("room_empty", "kind/a"))
    warned = [record.getMessage() for record in caplog.records if record.module == "presence"]
    assert warned == ["who is in a room is not known to all workers: its disk is full"]


def test_a_worker_ends_though_its_store_takes_nothing(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    live = bench.websocket._rooms.of(bench.app).live()
    with bench.joined("kind/a", user="ann") as ann, RoomFaults(bench.app) as faults:
        faults.fail()
        ann.close()
        stopping = asyncio.run_coroutine_threadsafe(live.presence.stop(), live.exchange._loop)
        stopping.result(PATIENCE)


def test_many(bench: Bench) -> None:
    """A hundred come and leave at once: each is told once, and few threads are there for it."""
    before = threading.active_count()
    with ExitStack() as stack:
        for number in range(100):
            stack.enter_context(bench.joined("at once/a", user=f"user{number % 50}"))
        bench.waits(lambda: len(bench.told) == 50, "all are told")
        found = bench.ask("at once/a")
        assert found["count"] == [100, 50, True]
        assert {member[2] for member in found["members"]} == {2}
        own = 0 if isinstance(bench.websocket, GeventWebSocket) else 200
        assert threading.active_count() < before + own + 20
    bench.waits(lambda: len(bench.told) == 101, "all have left")
    assert [kind for kind, *_ in bench.told].count("room_empty") == 1


class Page:
    """A client that gets envelopes."""

    def __init__(self, ws: Any) -> None:
        self._ws = ws

    def hears(self) -> dict[str, Any]:
        """Return the next news of presence, without the room."""
        while "presence" not in (message := json.loads(self._ws.receive(PATIENCE))):
            assert "joined" not in message
        found: dict[str, Any] = message["presence"]
        assert found.pop("room") == "loud/a"
        return found


def test_pages_are_told(bench: Bench) -> None:
    """Those that want envelopes; others get what the app sends, and nothing else."""
    with (
        bench.joined("loud/a", user="plain") as plain,
        bench.client.connect("/loud/a?user=ann&info=A", subprotocols=[SUBPROTOCOL]) as ws,
    ):
        page = Page(ws)
        seen: dict[str, Any] = {}
        while "ann" not in seen:
            news = page.hears()
            seen |= {who["user"]: who["info"] for who in news["join"]}
            assert news["leave"] == []
        assert seen["ann"] == "A"
        assert news["count"] == 2
        with bench.joined("loud/a", user="bob", info="<b>"):
            assert page.hears() == {
                "count": 3,
                "join": [{"user": "bob", "info": "<b>"}],
                "leave": [],
            }
        assert page.hears() == {"count": 2, "join": [], "leave": [{"user": "bob"}]}
        plain.send("info")
        assert plain.receive(PATIENCE) == "joined"


@pytest.mark.parametrize(("number", "max_size"), [(201, 1 << 20), (10, 40_000)])
def test_pages_are_told_the_number_where_the_news_are_too_much(number: int, max_size: int) -> None:
    """As of many who come and leave at once: each may have 4 KiB to say of itself."""

    class Exchange:
        options = SimpleNamespace(max_size=max_size)
        sent: list[Record]
        work: Callable[[], Any]

        def run_soon(self, work: Callable[[], Any], delay: float) -> None:
            self.work, self.sent = work, []

        async def call(self, feature: str, do: Any) -> Any:
            return [], True

        send_nowait = property(lambda self: self.sent.append)

    exchange: Any = Exchange()
    news = announcements.Announcements(exchange)
    for each in range(number):
        news.add("loud/a", Member(f"{each}", "x" * 4000, 1, 0.0), has_left=False)
    asyncio.run(exchange.work())
    [record] = exchange.sent
    assert json.loads(record.data) == {"presence": {"room": "loud/a", "count": 0}}


def test_pages_of_a_large_room_are_told_the_number(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcements, "MOST_NAMED", 2)
    with ExitStack() as stack:
        for number in range(3):
            stack.enter_context(bench.joined("loud/a", user=f"user{number}"))
        ws = stack.enter_context(bench.client.connect("/loud/a", subprotocols=[SUBPROTOCOL]))
        page = Page(ws)
        while (news := page.hears()) != {"count": 4}:
            assert news["count"] < 4
