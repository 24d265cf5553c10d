"""To whom something is sent, and what records that makes."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from flask_uwsgi_websocket.exceptions import ProtocolError
from flask_uwsgi_websocket.rooms.record import Kind, Record, decode
from flask_uwsgi_websocket.rooms.targets import Sender, Targets


class Sent(Targets[None]):
    """Keeps the records."""

    max_size = 100

    def __init__(self) -> None:
        self.records: list[Record] = []

    def _sender(self) -> Sender[None]:
        return self

    def send(self, record: Record) -> None:
        self.records.append(decode(record.encode()))

    send_nowait = send
    dumps = staticmethod(json.dumps)


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.mark.parametrize(
    ("message", "binary", "data", "text"),
    [
        ("é", None, "é".encode(), True),
        ("é", True, "é".encode(), False),
        ("", False, b"", True),
        (b"\xff", None, b"\xff", False),
        (bytearray(b"a"), False, b"a", True),
        (memoryview(b"a"), True, b"a", False),
    ],
)
def test_messages(sent: Sent, message: Any, binary: bool | None, data: bytes, text: bool) -> None:
    sent.to("a").send(message, binary)
    sent.to("a").send_nowait(message, binary)
    assert sent.records == [Record(Kind.MESSAGE, ("room:a",), data, text)] * 2


def test_json(sent: Sent) -> None:
    sent.to("a").send_json({"a": [1, "é"]})
    assert json.loads(sent.records[0].data) == {"a": [1, "é"]}
    assert sent.records[0].text


@pytest.mark.parametrize(
    ("message", "binary", "error"),
    [
        (None, None, TypeError),
        (1, None, TypeError),
        (b"\xff", False, ValueError),
        ("\ud800", None, ValueError),
        ("x" * 101, None, ValueError),
        ("é" * 51, None, ValueError),
    ],
)
def test_what_is_no_message(
    sent: Sent, message: Any, binary: bool | None, error: type[Exception]
) -> None:
    for send in (sent.to("a").send, sent.to("a").send_nowait):
        with pytest.raises(error):
            send(message, binary)
    assert not sent.records


def test_whom(sent: Sent) -> None:
    sent.to("a", "b", "a").send("1")
    sent.to_user("ann", 7).send("2")
    sent.to_all().send("3")
    assert [record.channels for record in sent.records] == [
        ("room:a", "room:b"),
        ("user:ann", "user:7"),
        ("all",),
    ]


def test_nobody(sent: Sent) -> None:
    sent.to_user(*[]).send("to all watchers, of whom there are none")
    assert sent.records[0].channels == ()
    with pytest.raises(TypeError, match="str"):
        sent.to(["a"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="control"):
        sent.to("a\n")


def test_excluded(sent: Sent) -> None:
    client = SimpleNamespace(id="c1")
    sent.to("a", exclude=["x", None, client, "forged\tid", "forged\nid", ""]).send("1")
    sent.to_all(exclude="x").send("2")
    sent.to_user("ann", exclude=client and [client]).send("3")
    assert [record.exclude for record in sent.records] == [("x", "c1"), ("x",), ("c1",)]


@pytest.mark.parametrize("exclude", [5, 0, b"c1", object()])
def test_what_cannot_be_excluded(sent: Sent, exclude: Any) -> None:
    with pytest.raises(TypeError, match="exclude is a client, its id, or several, not"):
        sent.to("a", exclude=exclude)


def test_to_all_takes_no_message(sent: Sent) -> None:
    with pytest.raises(TypeError, match="positional"):
        sent.to_all("a message")  # type: ignore[misc]


@pytest.mark.parametrize("user", [None, b"ann", 1.5, True, ["ann"]])
def test_what_names_no_user(sent: Sent, user: Any) -> None:
    with pytest.raises(TypeError, match="a user is named by a str or an int, not by"):
        sent.to_user(user)


def test_closing_and_moving(sent: Sent) -> None:
    sent.to_user(7).close(4001, "logged out é")
    sent.to("a").close()
    sent.to("a").join("finals ☃")
    sent.to("a").leave("a")
    assert [(record.kind, record.data) for record in sent.records] == [
        (Kind.CLOSE, b"\x0f\xa1" + "logged out é".encode()),
        (Kind.CLOSE, b"\x03\xe8"),
        (Kind.JOIN, "finals ☃".encode()),
        (Kind.LEAVE, b"a"),
    ]
    with pytest.raises(ProtocolError):
        sent.to("a").close(1006)
    with pytest.raises(ValueError, match="bytes"):
        sent.to("a").join("")
