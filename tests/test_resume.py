"""Clients that get envelopes: which text says what, beside clients that get plain messages."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from websockets.sync.client import ClientConnection

from flask_uwsgi_websocket import WebSocket
from flask_uwsgi_websocket.rooms.envelope import (
    SUBPROTOCOL,
    encode_message,
    former_id_of,
    positions_of,
)
from flask_uwsgi_websocket.rooms.positions import Position
from flask_uwsgi_websocket.rooms.record import KeptRecord, Kind, Record, decode, kept
from flask_uwsgi_websocket.rooms.shares import by_channel, withheld
from flask_uwsgi_websocket.uwasp import Server as ClassServer
from tests.server import PATIENCE, Server


@pytest.fixture
def server(engine: str, shared_server: Callable[..., Server]) -> Server:
    config = {"UWSGI_WEBSOCKET_PING_INTERVAL": 1}
    return shared_server(engine, app="resume", config=config)


@pytest.fixture
def room(token: str) -> str:
    return f"{token}/é"


class Page:
    """A client that offers the subprotocol."""

    def __init__(self, server: Server, path: str, *more: str) -> None:
        opening = server.connect(path, subprotocols=[*more, SUBPROTOCOL])
        self.connection: ClientConnection = opening.__enter__()

    def next(self) -> Any:
        """The next message but signs of life: an object, or bytes."""
        while True:
            message = self.connection.recv(PATIENCE)
            if message != "{}":
                return message if isinstance(message, bytes) else json.loads(message)

    def say(self, command: str) -> Any:
        self.connection.send(command)
        return self.next()


@pytest.fixture
def join(server: Server, room: str) -> Iterator[Callable[..., Page]]:
    """Has pages join the test's room."""
    pages: list[Page] = []

    def join(query: str = "", name: str = room) -> Page:
        page = Page(server, f"/resume/{name}{query}".replace("é", "%C3%A9"))
        pages.append(page)
        assert list(page.next()) == ["hello"]
        assert page.next() == {"in": name}
        return page

    yield join
    for page in pages:
        page.connection.close()


def post(server: Server, path: str, body: bytes, **headers: str) -> None:
    answer = server.http("POST", path.replace("é", "%C3%A9"), body, headers)
    assert answer.status in (200, 204), answer


def test_the_subprotocol_is_for_those_who_offer_it(server: Server, room: str) -> None:
    for offered, agreed in (([], None), (["own.v1"], "own.v1"), (["other"], None)):
        with server.connect("/resume/x", subprotocols=offered) as plain:
            assert plain.subprotocol == agreed
            plain.send("text hi")
            assert plain.recv(PATIENCE) == "hi"
    page = Page(server, "/resume/x", "own.v1")
    assert page.connection.subprotocol == SUBPROTOCOL
    hello = page.next()["hello"]
    assert hello["ping"] == 1
    assert len(hello["id"]) == 36
    page.connection.close()
    with server.connect("/plain/x", subprotocols=[SUBPROTOCOL]) as plain:
        assert plain.subprotocol is None
        assert plain.recv(PATIENCE) == "ready"


def test_what_is_sent_to_one_client(join: Callable[..., Page]) -> None:
    page = join()
    quoted = 'a "quoted" \\ line\u2028 of é \U0001f600'
    assert page.say(f"text {quoted}") == {"text": quoted}
    assert page.say("nb now") == {"text": "now"}
    assert page.say("json é") == {"json": {"you": "é"}}
    assert page.say("bytes raw") == b"raw"
    assert page.say("text-bytes é") == {"text": "é"}


def test_a_handshake_that_waits(server: Server) -> None:
    page = Page(server, "/lazy/x")
    assert list(page.next()) == ["hello"]
    assert page.next() == {"text": "lazy"}
    page.connection.close()


def test_rooms(server: Server, room: str, join: Callable[..., Page]) -> None:
    page, other = join(), join()
    with server.connect(f"/plain/{room}".replace("é", "%C3%A9")) as plain:
        assert plain.recv(PATIENCE) == "ready"
        post(server, f"/to/{room}", "é".encode())
        post(server, f"/to/{room}", b'{"a": 1}', **{"Content-Type": "application/json"})
        post(server, f"/to/{room}?binary=1", b"\xff")
        assert [page.next() for _ in range(3)] == [
            {"room": room, "text": "é"},
            {"room": room, "json": {"a": 1}},
            {"room": room, "b64": "/w=="},
        ]
        assert [plain.recv(PATIENCE) for _ in range(3)] == ["é", '{"a": 1}', b"\xff"]
        page.connection.send(f"others {room} hi")
        assert [other.next() for _ in range(4)][-1] == {"room": room, "text": "hi"}
        assert plain.recv(PATIENCE) == "hi"
        assert page.say(f"room {room} all") == {"room": room, "text": "all"}
        assert page.say("join second") == {"in": "second"}
        page.connection.send(f"leave {room}")
        assert page.next() == {"out": room}


def test_a_message_to_several_rooms_says_one_that_the_client_is_in(
    server: Server, room: str, join: Callable[..., Page]
) -> None:
    first, second = join(), join(name=f"{room}2")
    post(server, f"/to/{room},{room}2", b"hi")
    assert first.next() == {"room": room, "text": "hi"}
    assert second.next() == {"room": f"{room}2", "text": "hi"}
    assert second.say(f"join {room}") == {"in": room}
    post(server, f"/to/{room},{room}2", b"once")
    assert first.next() == second.next() == {"room": room, "text": "once"}


def test_users_and_all(server: Server, token: str, join: Callable[..., Page]) -> None:
    page = join(f"?user={token}")
    post(server, f"/to/-?user={token}", b"you")
    assert page.next() == {"text": "you"}
    post(server, f"/to/-?user={token}&binary=1", b"\xff")
    assert page.next() == b"\xff"
    with server.connect("/plain/x") as plain:
        assert plain.recv(PATIENCE) == "ready"
        for path in ("/to/all", "/send_to_all"):
            post(server, path, b"everybody")
            assert page.next() == {"text": "everybody"}
            assert plain.recv(PATIENCE) == "everybody"
        post(server, "/send_to_all?binary=1", b"\xff")
        assert page.next() == plain.recv(PATIENCE) == b"\xff"


def test_clients_that_others_move(server: Server, room: str, join: Callable[..., Page]) -> None:
    page = join()
    post(server, f"/move/{room}/join/finals", b"")
    assert page.next() == {"in": "finals"}
    post(server, "/move/finals/leave/finals", b"")
    assert page.next() == {"out": "finals"}


def test_signs_of_life(join: Callable[..., Page]) -> None:
    page = join()
    assert [page.connection.recv(PATIENCE) for _ in range(2)] == ["{}", "{}"]


def test_kept_rooms(server: Server, token: str) -> None:
    """A client comes back, and gets what it has missed, but not what it had said itself."""
    room = f"kept/{token}"
    begin = server.get(f"/position/{room}").body.decode()
    epoch, _, offset = begin.partition(".")
    page, other = Page(server, f"/resume/{room}"), Page(server, f"/resume/{room}")
    id = page.next()["hello"]["id"]
    other.next()
    assert page.next() == other.next() == {"in": room, "at": begin}
    post(server, f"/to/{room}", b"1")
    first = f"{epoch}.{int(offset) + 1}"
    assert page.next() == other.next() == {"room": room, "at": first, "text": "1"}
    assert page.say(f"others {room} mine") == {"room": room, "at": f"{epoch}.{int(offset) + 2}"}
    assert other.next()["text"] == "mine"
    page.connection.close()
    post(server, f"/to/{room}", b"[3]", **{"Content-Type": "application/json"})
    post(server, f"/to/{room}?binary=1", b"\xff")

    again = Page(server, f"/resume/{room}?_since=x:k.1,{room}:{first}&_was={id}")
    again.next()
    assert again.next() == {"in": room, "at": first, "recovered": True}
    assert [again.next() for _ in range(3)] == [
        {"room": room, "at": f"{epoch}.{int(offset) + 2}"},
        {"room": room, "at": f"{epoch}.{int(offset) + 3}", "json": [3]},
        {"room": room, "at": f"{epoch}.{int(offset) + 4}", "b64": "/w=="},
    ]
    post(server, f"/to/{room}", b"5")
    assert again.next()["text"] == "5"
    stranger = Page(server, f"/resume/{room}?_since={room}:{first}")
    stranger.next()
    assert stranger.next()["recovered"] is True
    assert stranger.next()["text"] == "mine"
    for each in (other, again, stranger):
        each.connection.close()


@pytest.mark.parametrize("at", ["", "other.1", "x", "k.-1", "%FF", "{epoch}.99"])
def test_a_position_that_is_none(server: Server, token: str, at: str) -> None:
    room = f"kept/{token}"
    post(server, f"/to/{room}", b"1")
    top = server.get(f"/position/{room}").body.decode()
    page = Page(server, f"/resume/{room}?_since={room}:{at.format(epoch=top.partition('.')[0])}")
    page.next()
    assert page.next() == {"in": room, "at": top, "recovered": False}
    # The handshake has said it once.
    page.connection.send(f"leave {room}")
    assert page.next() == {"out": room}
    assert page.say(f"join {room}") == {"in": room, "at": top}
    page.connection.close()


def test_clients_as_those_of_0_6() -> None:
    app = Flask("legacy")
    app.config["UWSGI_WEBSOCKET_LEGACY"] = True
    websocket = WebSocket(app)

    @websocket.route("/", resume=True)
    def handler(ws: Any) -> None:
        ws.join("a")
        ws.send(b"bytes")
        ws.send_binary(b"\xff")
        ws.send_json({"a": 1})
        websocket.to("a").send(b"from a room")
        websocket.send_to_all(b"to all")
        while ws.receive():
            pass
        ws.send("in vain")

    with websocket.test_client().connect(subprotocols=[SUBPROTOCOL]) as page:
        assert "hello" in page.receive_json()
        assert page.receive_json() == {"in": "a"}
        assert page.receive_json() == {"text": "bytes"}
        assert page.receive() == b"\xff"
        assert page.receive_json() == {"json": {"a": 1}}
        assert page.receive_json() == {"room": "a", "b64": "ZnJvbSBhIHJvb20="}
        assert page.receive_json() == {"text": "to all"}


def test_compressed_envelopes() -> None:
    app = Flask("compressed")
    websocket = WebSocket(app)

    @websocket.route("/", resume=True, compression=True)
    def handler(ws: Any) -> None:
        ws.join("a")
        for text in ws:
            ws.send(text)
            websocket.to("a").send(text)

    long = "long " * 1000
    options: Any = {"subprotocols": [SUBPROTOCOL], "compression": True}
    with websocket.test_client().connect(**options) as page:
        page.receive_json()
        page.receive_json()
        for _ in range(3):
            page.send(long)
            assert page.receive_json() == {"text": long}
            assert page.receive_json() == {"room": "a", "text": long}


def test_classes_resume_too() -> None:
    app = Flask("classes")
    websocket = WebSocket(app)

    @websocket.server("/", resume=True)
    class Chat(ClassServer):
        def on_open(self) -> None:
            self.ws.join("a")

        def on_message(self, message: str) -> None:
            self.ws.to("a").send(message)
            self.ws.send(message)

    client = websocket.test_client()
    with client.connect(subprotocols=[SUBPROTOCOL]) as page, client.connect() as plain:
        assert [*page.receive_json(), *page.receive_json()] == ["hello", "in"]
        plain.send("hi")
        assert plain.receive() == "hi"
        assert page.receive_json() == {"room": "a", "text": "hi"}


def test_the_route_option_is_checked() -> None:
    websocket = WebSocket()
    with pytest.raises(ValueError, match="resume of route /a is 'yes'"):
        websocket.add_url_rule("/a", "a", lambda ws: None, resume="yes")
    with pytest.raises(ValueError, match="resume=True"):
        websocket.add_url_rule("/a", "a", lambda ws: None, subprotocols=[SUBPROTOCOL])


def test_records_say_what_is_json() -> None:
    record = Record(Kind.MESSAGE, ("room:a",), b'{"x":1}', True, json=True)
    assert decode(record.encode()) == record
    assert encode_message(record, "room:a") == (1, b'{"room":"a","json":{"x":1}}')
    body = KeptRecord(Kind.MESSAGE, ("room:a",), b"1", True, json=True).body()
    in_log = decode(kept(body, Position("k3v9", 7), 1.0).encode())
    assert encode_message(in_log, "room:a") == (1, b'{"room":"a","at":"k3v9.7","json":1}')


def test_who_is_excluded_gets_positions_of_kept_rooms() -> None:
    def message(number: int, *exclude: str) -> Record:
        record = KeptRecord(Kind.MESSAGE, ("room:a",), b"secret", True, exclude)
        return kept(record.body(), Position("k", number), 1.0)

    records = [message(1), message(2, "x", "y", "x"), Record(Kind.MESSAGE, (), exclude=("x",))]
    x, y, z, gone = (SimpleNamespace(client=SimpleNamespace(id=id)) for id in "xyzg")
    gone.client = None
    receivers: list[Any] = [x, y, z, gone]
    [([record], who)] = withheld(records, receivers, [x, z, gone])  # type: ignore[list-item]
    assert who == [x]
    assert encode_message(record, "room:a") == (1, b'{"room":"a","at":"k.2"}')


def test_positions_in_a_url() -> None:
    assert positions_of("") == positions_of("_since=") == positions_of("a=_since") == {}
    query = "x=1&_since=b%3Ak.2,%C3%A9%252C%253A%2525%2F%3Ak.1&_was=old"
    assert positions_of(query) == {"b": "k.2", "é,:%/": "k.1"}
    assert positions_of("_since=b:k.2,c:") == {"b": "k.2", "c": ""}
    assert (former_id_of(query), former_id_of("")) == ("old", "")
    many = positions_of("_since=" + ",".join(f"room{number}:k.{number}" for number in range(999)))
    assert 100 < len(many) < 140
    assert all(f"room{position[2:]}" == room for room, position in many.items())


@given(st.text())
def test_no_query_is_an_error(query: str) -> None:
    positions_of(query)
    positions_of(f"_since={query}")
    former_id_of(f"_was={query}")


def test_shares_by_channel() -> None:
    records = [Record(Kind.MESSAGE, ("room:a", "room:b")), Record(Kind.MESSAGE, ("room:b",))]
    members: dict[str, Any] = {"room:a": ["x"], "room:b": ["x", "y", "z"]}
    receivers: list[Any] = ["x", "y", "z", "gone"]
    assert by_channel(records, receivers, members.__getitem__) == [
        (("room:a", "room:b"), ["x", "gone"]),
        (("room:b", "room:b"), ["y", "z"]),
    ]
    assert by_channel(records[1:], receivers, members.__getitem__) == [(("room:b",), receivers)]
