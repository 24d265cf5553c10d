"""Apps of 0.6 run under UWSGI_WEBSOCKET_LEGACY: nobody is lost but those who leave."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.rawclient import RawClient
from tests.server import Server, eventually

#: Engines on which 0.6 could send to others.
CHATTING = ("gevent", "asyncio")

ECHOES = [
    "/echo",
    "/echo-or-return",
    "/echo-or-continue",
    "/echo-while-connected",
    "/echo-blindly",
]
POLLS = ["/echo-by-polling", "/echo-until-oserror"]
PUSHES = ["/push", "/push-nb", "/push-without-pause", "/push-while-connected"]


@pytest.fixture
def legacy(engine: str, shared_server) -> Iterator[Server]:
    config = {"UWSGI_WEBSOCKET_LEGACY": True, "TEST_TIMEOUT": 0.5}
    server: Server = shared_server(engine, app="legacy", config=config)
    yield server
    assert_at_rest(server)
    server.get("/forget")


def state(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(server.get("/state").body)
    return found


def assert_at_rest(server: Server) -> None:
    eventually(lambda: state(server)["running"] == 0, "all handlers to end")
    assert server.cpu_share(0.3) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("way", ["leave", "close", "abort"])
def test_loops_that_receive(legacy: Server, way: str) -> None:
    check_echoes(legacy, way, ECHOES + POLLS)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["async"])
def test_loops_in_the_async_mode(legacy: Server) -> None:
    check_echoes(legacy, "abort", ECHOES)  # one that sleeps between its polls holds up all others


def check_echoes(legacy: Server, way: str, paths: list[str]) -> None:
    visitors = [legacy.raw(path) for path in paths]
    for message in ("one", "two"):
        for visitor in visitors:
            visitor.text(message)
        assert [visitor.message() for visitor in visitors] == [message] * len(visitors)
    for visitor in visitors:
        getattr(visitor, way)()
    assert_at_rest(legacy)


@pytest.mark.slow
def test_a_first_message_apart(legacy: Server) -> None:
    with legacy.raw("/echo-after-hello") as client:
        client.text("ann")
        client.binary(b"hi")
        assert client.message() == "ann: hi"
    legacy.raw("/echo-after-hello").abort()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["leave", "close", "abort"])
def test_loops_that_only_send(legacy: Server, way: str) -> None:
    visitors = [legacy.raw(path) for path in PUSHES]
    for visitor in visitors:
        assert str(visitor.message()).startswith("now")
    for visitor in visitors:
        getattr(visitor, way)()
    assert_at_rest(legacy)


def test_types_and_dropped_sends(legacy: Server, token: str, engine: str) -> None:
    with legacy.raw(f"/types/{token}") as client:
        assert client.message() == "ready"
        assert legacy.get("/tell?message=text").body == b"1"
        assert client.message() == "text"
    eventually(lambda: len(legacy.records(token)) == 2, "the handler to be through")
    first, second = legacy.records(token)
    assert first == {"nothing": "''" if engine.startswith("asyncio") else "b''"}
    assert second == {"dropped": [None] * 4, "connected": False}


def read(visitor: RawClient, count: int, got: list[Any]) -> None:
    while len(got) < count:
        message = visitor.message()
        if message != "bye":
            got.append(message)


@pytest.mark.slow
@pytest.mark.parametrize("engine", CHATTING)
@pytest.mark.parametrize("path", ["/chat", "/chat-that-forgets-nobody", "/chat-of-queues"])
def test_chats_whose_visitors_vanish(legacy: Server, path: str) -> None:
    """Three stay and say 400 things each; sixty vanish by a reset meanwhile."""
    rounds, others = 400, 2 if path == "/chat" else 3
    staying = [legacy.raw(path) for _ in range(3)]
    eventually(lambda: state(legacy)["running"] == 3, "all to have begun")
    heard: list[list[Any]] = [[] for _ in staying]
    readers = [
        threading.Thread(target=read, args=(visitor, rounds * others, got))
        for visitor, got in zip(staying, heard, strict=True)
    ]
    for reader in readers:
        reader.start()
    for number in range(rounds):
        for name, visitor in enumerate(staying):
            visitor.text(f"{name} {number}")
        if number % 20 == 0:
            vanishing = [legacy.raw(path) for _ in range(3)]
            vanishing[0].text("bye")
            for visitor in vanishing:
                visitor.abort()
    for reader in readers:
        reader.join(60)
    for own, got in enumerate(heard):
        for name in range(3):
            said = [f"{name} {number}" for number in range(rounds)]
            expected = [] if path == "/chat" and name == own else said
            assert [message for message in got if message.startswith(f"{name} ")] == expected
    for visitor in staying:
        visitor.leave()
    eventually(lambda: state(legacy)["users"] == 0, "those who left to be gone")


@pytest.mark.slow
@pytest.mark.parametrize("engine", CHATTING)
def test_every_way_to_send_to_the_dead(legacy: Server) -> None:
    with legacy.raw("/chat-of-a-list") as first, legacy.raw("/chat-of-a-list") as second:
        for number in range(10):
            vanishing = legacy.raw("/chat-of-a-list")
            vanishing.text("bye")
            vanishing.abort()
            first.text(str(number))
            for visitor in (first, second):
                while (message := visitor.message()) != str(number):
                    assert message in ("bye", b"bye", '{"len":3}', '{"len": 3}')
                assert json.loads(visitor.message()) == {"len": 1}
                assert [visitor.message() for _ in range(2)] == [str(number), str(number).encode()]


@pytest.mark.slow
@pytest.mark.parametrize("engine", CHATTING)
def test_handlers_that_only_send_to_others(legacy: Server) -> None:
    with legacy.raw("/chatty") as first:
        names = set()
        for _ in range(5):
            second = legacy.raw("/chatty")
            while (greeting := first.message()) in names:
                pass
            names.add(greeting)
            second.abort()
        # Views send too: to five who have left, and one who is there.
        assert int(legacy.get("/announce?message=news").body) == 6
        while first.message() != "news":
            pass


@pytest.mark.slow
@pytest.mark.parametrize("engine", CHATTING)
def test_a_visitor_who_does_not_read_holds_up_nobody(legacy: Server) -> None:
    paths = ["/chat-that-forgets-nobody"] * 3
    deaf, talker, reader = (legacy.raw(path) for path in paths)
    with deaf, talker, reader:
        eventually(lambda: state(legacy)["clients"] == 3, "all to be there")
        message = "x" * 60_000
        for number in range(1000):
            began = time.monotonic()
            talker.text(message)
            assert talker.message() == reader.message() == message
            assert time.monotonic() - began < 10  # a send that waits takes 20 s to give up
            if number % 20 == 0 and state(legacy)["running"] == 2:
                break
        else:
            raise AssertionError("the deaf visitor was not closed")
        deaf.abort()
        talker.leave()
        reader.leave()
