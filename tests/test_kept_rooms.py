"""Rooms that keep what is sent to them, on every class of handlers, with the test client."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flask_uwsgi_websocket import BackplaneUnavailable, Publisher, Room, WebSocket
from flask_uwsgi_websocket.exceptions import RoomError
from flask_uwsgi_websocket.rooms import described
from flask_uwsgi_websocket.rooms.envelope import SUBPROTOCOL
from flask_uwsgi_websocket.rooms.positions import Joined, Position
from flask_uwsgi_websocket.rooms.replay import Wanted
from flask_uwsgi_websocket.testing import RoomFaults

from .server import eventually
from .test_rooms_api import CLASSES, Kit, do, nothing_comes


class KeptKit(Kit):
    """An app whose rooms are kept where their names begin with "kept"; all else as in a Kit."""

    def __init__(self, extension: type[WebSocket], **config: Any) -> None:
        super().__init__(extension, **config)
        self.websocket.room("kept/few", history=Room.history(count=3))
        self.websocket.room("kept/present*", history=True, presence=True)
        self.websocket.room("kept/full", history=True, max_members=1)
        self.websocket.room("kept*", history=True)

    def joins(self, connection: Any, arguments: str) -> Joined:
        """Have a handler join; return what it was told."""
        answer = do(connection, f"ws.join({arguments})")
        found = eval(answer, {"Joined": Joined})
        assert isinstance(found, Joined)
        return found


@pytest.fixture(params=CLASSES, ids=lambda cls: cls.__name__)
def kit(request: pytest.FixtureRequest) -> KeptKit:
    return KeptKit(request.param)


def position(text: str | None) -> Position:
    parsed = Position.parse(text)
    assert parsed is not None
    return parsed


def test_what_is_sent_while_nobody_is_there_is_kept(kit: KeptKit) -> None:
    begin = kit.websocket.position("kept")
    sent = [kit.websocket.to("kept").send(f"{number}") for number in range(3)]
    assert [position(each).offset for each in sent] == [1, 2, 3]
    assert {position(each).epoch for each in sent} == {position(begin).epoch}
    assert kit.websocket.position("kept") == sent[-1]
    with kit.connect("/do") as a:
        a.send(f"ws.join('kept', since={begin!r})")
        assert [a.receive() for _ in range(3)] == ["0", "1", "2"]
        assert eval(str(a.receive())) == ("kept", sent[-1], True, 3)
        kit.websocket.to("kept").send("3")
        assert a.receive() == "3"


def test_since_the_end_nothing_is_missing(kit: KeptKit) -> None:
    with kit.connect("/do") as a, kit.connect("/do") as b:
        here = kit.websocket.position("kept")
        assert kit.joins(a, f"'kept', since={here!r}") == ("kept", here, True, 0)
        assert kit.joins(b, "'kept'") == ("kept", here, None, 0)
        assert kit.joins(b, "'kept'") == ("kept", here, None, 0)
        assert kit.joins(b, f"'kept', since={here!r}") == ("kept", here, None, 0)
        assert kit.joins(b, "'plain'") == ("plain", None, None, 0)
        assert kit.joins(b, "'other', since='a.1'") == ("other", None, False, 0)


def test_the_last_messages_are_replayed(kit: KeptKit) -> None:
    for number in range(10):
        kit.websocket.to("kept").send(f"{number}")
    with kit.connect("/do") as a, kit.connect("/do") as b:
        a.send("ws.join('kept', replay=4)")
        assert [a.receive() for _ in range(4)] == ["6", "7", "8", "9"]
        assert eval(str(a.receive()))[2:] == (None, 4)
        b.send("ws.join('kept', replay=99)")
        assert [b.receive() for _ in range(10)] == [f"{number}" for number in range(10)]
        assert eval(str(b.receive()))[2:] == (None, 10)


@pytest.mark.parametrize("number", [-1, 2.5, "5", True])
def test_numbers_of_messages_that_are_none_are_refused(number: Any) -> None:
    kit = KeptKit(WebSocket)
    with pytest.raises(ValueError, match=r"replay is .* a whole number of messages"):
        Wanted.of(None, number)
    with pytest.raises(ValueError, match=r"limit is .* a whole number of messages"):
        kit.websocket.history("kept", limit=number)


@pytest.mark.parametrize(
    "since",
    [
        "",
        "nonsense",
        "0.0",
        "k3v9.1",
        "{epoch}.4",
        "{epoch}.999999999999999",
        "{epoch}.-1",
        "\0" * 99,
    ],
)
def test_a_position_that_is_none_is_told(kit: KeptKit, since: str) -> None:
    for number in range(3):
        kit.websocket.to("kept").send(f"{number}")
    here = kit.websocket.position("kept")
    wrong = since.format(epoch=position(here).epoch)
    with kit.connect("/do") as a:
        assert kit.joins(a, f"'kept', since={wrong!r}, replay=3") == ("kept", here, False, 0)
        kit.websocket.to("kept").send("3")
        assert a.receive() == "3"


def test_what_was_trimmed_is_told(kit: KeptKit) -> None:
    begin = kit.websocket.position("kept/few")
    sent = [kit.websocket.to("kept/few").send(f"{number}") for number in range(5)]
    with kit.connect("/do") as a, kit.connect("/do") as b:
        for since in (begin, sent[0]):
            with kit.connect("/do") as other:
                assert kit.joins(other, f"'kept/few', since={since!r}")[2:] == (False, 0)
        a.send(f"ws.join('kept/few', since={sent[1]!r})")
        assert [a.receive() for _ in range(3)] == ["2", "3", "4"]
        b.send("ws.join('kept/few', replay=5)")
        assert [b.receive() for _ in range(3)] == ["2", "3", "4"]


def test_forgetting_is_told(kit: KeptKit) -> None:
    before = kit.websocket.to("kept").send("1")
    with kit.connect("/do") as a, kit.connect("/do") as b:
        kit.joins(a, "'kept'")
        kit.websocket.forget("kept")
        after = kit.websocket.position("kept")
        assert position(after).offset == 0
        assert position(after).epoch != position(before).epoch
        assert kit.joins(b, f"'kept', since={before!r}") == ("kept", after, False, 0)
        sent = kit.websocket.to("kept").send("2")
        assert sent == str(Position(position(after).epoch, 1))
        assert a.receive() == b.receive() == "2"


def test_history(kit: KeptKit) -> None:
    here = kit.websocket.position("kept")
    assert kit.websocket.history("kept") == ([], here, True)
    first = kit.websocket.to("kept").send("1")
    kit.websocket.to("kept").send(b"\0\xff")
    last = kit.websocket.to("kept").send_json({"three": 3})
    past = kit.websocket.history("kept")
    assert [each.data for each in past.messages] == ["1", b"\0\xff", '{"three": 3}']
    assert [past.messages[0].position, past.messages[-1].position] == [first, last]
    assert past[1:] == (last, True)
    assert kit.websocket.history("kept", after=first).messages == past.messages[1:]
    assert kit.websocket.history("kept", limit=1).messages == past.messages[-1:]
    assert kit.websocket.history("kept", after=here, limit=2).messages == past.messages[:2]
    assert kit.websocket.history("kept", after=here, limit=2).position == past.messages[1].position
    assert kit.websocket.history("kept", after=last) == ([], last, True)
    assert not kit.websocket.history("kept", after="k3v9.1").complete
    for number in range(5):
        kit.websocket.to("kept/few").send(f"{number}")
    epoch = position(kit.websocket.position("kept/few")).epoch
    few = kit.websocket.history("kept/few", after=f"{epoch}.1")
    assert ([each.data for each in few.messages], few.complete) == (["2", "3", "4"], False)
    assert kit.websocket.history("kept/few", after=f"{epoch}.2").complete


def test_a_key_makes_it_safe_to_send_again(kit: KeptKit) -> None:
    with kit.connect("/do") as a:
        kit.joins(a, "'kept'")
        first = kit.websocket.to("kept").send("1", key="order 17")
        assert kit.websocket.to("kept").send_json([2], key="other") != first
        assert kit.websocket.to("kept").send("1", key="order 17") == first
        kit.websocket.to("kept").send("3")
        assert [a.receive() for _ in range(3)] == ["1", "[2]", "3"]
    for rooms in (["plain"], ["kept", "plain"]):
        with pytest.raises(ValueError, match=r"'plain' does not"):
            kit.websocket.to(*rooms).send("x", key="k")
    with pytest.raises(ValueError, match="'all' does not"):
        kit.websocket.to_all().send("x", key="k")
    with pytest.raises(ValueError, match="a key has 255 bytes"):
        kit.websocket.to("kept").send("x", key="k" * 256)
    for key in ("", 1):
        with pytest.raises(TypeError, match="a key is a str"):
            kit.websocket.to("kept").send("x", key=key)


def test_several_rooms_have_a_log_each(kit: KeptKit) -> None:
    with kit.connect("/do") as a, kit.connect("/chat/plain") as b:
        for room in ("kept/1", "kept/2", "plain", "more"):
            kit.joins(a, repr(room))
        assert not isinstance(kit.websocket.to("kept/1", "kept/2", "plain", "more").send("x"), str)
        assert [a.receive() for _ in range(3)] == ["x", "x", "x"]  # as documented
        assert b.receive() == "x"
        assert nothing_comes(a)
        assert nothing_comes(b)
        kit.websocket.to("kept/1", "plain").send_nowait("y")
        assert [a.receive() for _ in range(2)] == ["y", "y"]
    for room in ("kept/1", "kept/2"):
        assert kit.websocket.history(room).messages[0].data == "x"


def test_handlers_send_and_are_told_the_position(kit: KeptKit) -> None:
    with kit.connect("/do") as a, kit.connect("/do") as b:
        kit.joins(a, "'kept'")
        kit.joins(b, "'kept'")
        sent = eval(do(a, "ws.to('kept').send('x')"))
        assert b.receive() == "x"
        assert nothing_comes(a)
        assert sent == kit.websocket.position("kept")
        assert eval(do(a, "websocket.position('kept')")) == sent
        assert "'x'" in do(a, "websocket.history('kept')")
        assert do(a, "websocket.forget('kept')") == "None"


def test_rooms_that_keep_nothing_say_so(kit: KeptKit) -> None:
    for ask in (kit.websocket.position, kit.websocket.history, kit.websocket.forget):
        with pytest.raises(RoomError, match=r"'plain' keeps no messages: .* need history=True"):
            ask("plain")
        with pytest.raises(ValueError, match="1 to 255 bytes"):
            ask("")


def test_somebody_else_has_clients_join_and_leave(kit: KeptKit) -> None:
    with kit.connect("/do") as a, kit.connect("/chat/plain") as b:
        kit.joins(a, "'plain'")
        kit.websocket.to("plain").join("kept")
        kit.wait(lambda: kit.websocket.count("kept").connections == 2)
        kit.websocket.to("kept").send("x")
        assert a.receive() == b.receive() == "x"
        kit.websocket.to("kept", exclude=eval(do(a, "ws.id"))).leave("kept")
        kit.wait(lambda: kit.websocket.count("kept").connections == 1)


def test_whoever_left_gets_nothing_more(kit: KeptKit) -> None:
    with kit.connect("/do") as a:
        joined = kit.joins(a, "'kept'")
        do(a, "ws.leave('kept')")
        kit.websocket.to("kept").send("1")
        assert nothing_comes(a)
        assert do(a, "ws.rooms") == "frozenset()"
        a.send(f"ws.join('kept', since={joined.position!r})")
        assert a.receive() == "1"
        assert eval(str(a.receive()))[2:] == (True, 1)


def test_limits_and_presence_hold_for_kept_rooms(kit: KeptKit) -> None:
    with kit.connect("/do") as a, kit.connect("/do") as b:
        kit.joins(a, "'kept/full'")
        b.send("ws.join('kept/full')")
        assert b.receive() is None
        assert b.close_code == 1013
        kit.joins(a, "'kept/present', info={'name': 'A'}")
        assert [each.info for each in kit.websocket.who("kept/present")] == [{"name": "A"}]
    kit.wait(lambda: not kit.websocket.who("kept/present"))


def test_all_of_a_long_replay_comes_before_what_is_new(kit: KeptKit) -> None:
    begin = kit.websocket.position("kept/long")
    for number in range(100):
        kit.websocket.to("kept/long").send(f"{number}" + "x" * 9000)
    with kit.connect("/do") as a:
        a.send(f"ws.join('kept/long', since={begin!r})")
        kit.wait(lambda: kit.websocket.count("kept/long").connections == 1)
        for number in range(100, 110):
            kit.websocket.to("kept/long").send(f"{number}" + "x" * 9000)
        got = [str(a.receive()) for _ in range(111)]
        numbers = [int(each.rstrip("x")) for each in got if not each.startswith("Joined")]
        assert numbers == list(range(110))


def test_more_than_is_replayed_is_told(kit: KeptKit) -> None:
    begin = kit.websocket.position("kept/long")
    for _ in range(30):
        kit.websocket.to("kept/long").send(bytes(50_000))
    with kit.connect("/do") as a:
        assert kit.joins(a, f"'kept/long', since={begin!r}")[2:] == (False, 0)


def test_hints_that_are_lost_are_repaired(kit: KeptKit) -> None:
    with RoomFaults(kit.app) as faults, kit.connect("/do") as a:
        kit.joins(a, "'kept'")
        for number in range(10):
            if number % 3 == 1:
                faults.lose(1)
            kit.websocket.to("kept").send(f"{number}")
        assert [a.receive() for _ in range(10)] == [f"{number}" for number in range(10)]


def test_a_backplane_that_fails_says_so(kit: KeptKit) -> None:
    with RoomFaults(kit.app) as faults, kit.connect("/do") as a:
        kit.joins(a, "'kept'")
        first = kit.websocket.to("kept").send("1")
        faults.fail()
        for ask in (
            lambda: kit.websocket.to("kept").send("2"),
            lambda: kit.websocket.position("kept"),
            lambda: kit.websocket.history("kept"),
            lambda: kit.websocket.forget("kept"),
        ):
            with pytest.raises(BackplaneUnavailable):
                ask()
        faults.recover()
        assert position(kit.websocket.to("kept").send("2")).offset == position(first).offset + 1
        assert [a.receive(), a.receive()] == ["1", "2"]


def test_envelopes_have_positions(extension_of_resume: Any) -> None:
    kit = extension_of_resume
    begin = kit.websocket.position("kept")
    sent = [kit.websocket.to("kept").send(f"{number}") for number in range(2)]
    with kit.connect("/resume", subprotocols=[SUBPROTOCOL]) as a:
        assert "hello" in json.loads(a.receive())
        a.send(begin)
        assert json.loads(a.receive()) == {"in": "kept", "at": begin, "recovered": True}
        for number in range(2):
            sent_to = {"room": "kept", "at": sent[number], "text": f"{number}"}
            assert json.loads(a.receive()) == sent_to
        a.send("k3v9.1")
        kit.websocket.forget("kept")
        here = kit.websocket.position("kept")
        assert json.loads(a.receive()) == {"in": "kept", "at": here, "recovered": False}


def test_a_client_that_could_not_go_on_at_first_can_later(extension_of_resume: KeptKit) -> None:
    kit = extension_of_resume
    begin = kit.websocket.position("kept")
    sent = kit.websocket.to("kept").send("1")
    path = f"/again?_since=kept:{begin}"
    with RoomFaults(kit.app) as faults, kit.connect(path, subprotocols=[SUBPROTOCOL]) as a:
        assert "hello" in json.loads(a.receive())
        faults.fail()
        a.send("join")
        assert "text" in json.loads(a.receive())  # not that it is out: it would forget where it was
        faults.recover()
        a.send("join")
        assert json.loads(a.receive()) == {"in": "kept", "at": begin, "recovered": True}
        assert json.loads(a.receive()) == {"room": "kept", "at": sent, "text": "1"}


@pytest.fixture(params=CLASSES, ids=lambda cls: cls.__name__)
def extension_of_resume(request: pytest.FixtureRequest) -> KeptKit:
    kit = KeptKit(request.param)

    def resume(ws: Any) -> None:
        for since in ws:
            ws.join("kept", since=since)

    async def resume_asynchronously(ws: Any) -> None:
        async for since in ws:
            await ws.join("kept", since=since)

    handler = resume_asynchronously if kit.asynchronous else resume

    def again(ws: Any) -> None:
        for _ in ws:
            try:
                ws.join("kept")
            except BackplaneUnavailable:
                ws.send("away")

    async def again_asynchronously(ws: Any) -> None:
        async for _ in ws:
            try:
                await ws.join("kept")
            except BackplaneUnavailable:
                await ws.send("away")

    kit.websocket.add_url_rule("/resume", "resume", handler, resume=True)
    handler = again_asynchronously if kit.asynchronous else again
    kit.websocket.add_url_rule("/again", "again", handler, resume=True)
    return kit


def test_a_publisher_that_was_there_before_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it sends first then is kept as well, though it knew of no such rooms."""
    monkeypatch.setattr(described, "_FRESH", 0.0)
    url = "memory://a-publisher-that-was-there-before-the-app"
    with Publisher(url, prefix="under test") as early:
        assert early.to("kept").send("nobody keeps it") is None
        kit = KeptKit(WebSocket, BACKPLANE=url, PREFIX="under test")
        begin = position(kit.websocket.position("kept"))

        def is_described() -> bool:
            with Publisher(url, prefix="under test") as late:
                return late.to("kept").send("1") is not None

        eventually(is_described, "the options of the rooms to be known outside")
        assert position(early.to("kept").send("2")) == (begin.epoch, begin.offset + 2)
