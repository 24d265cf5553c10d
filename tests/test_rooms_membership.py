"""Who is in a room, on real uWSGI: in force when `join` returns, and over with the connection."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.server import Server, eventually

APP = "members_of_rooms"


@pytest.fixture
def rooms(engine: str, shared_server) -> Server:
    server: Server = shared_server(engine, app=APP)
    return server


def counts(server: Server) -> dict[str, list[int]]:
    counted: dict[str, list[int]] = json.loads(server.get("/rooms").body)
    return counted


def nobody_is_left(server: Server) -> None:
    eventually(lambda: counts(server) == {}, "all rooms to be empty")

    def left() -> bool:
        # "all", and the channel that the answers come by, are the worker's own.
        state = json.loads(server.get("/left").body)
        return state["members"] == state["joined"] == 0 and state["channels"] <= 2

    eventually(left, "nothing of them to be kept")


def test_join_is_in_force_when_it_returns(rooms: Server) -> None:
    with rooms.raw("/join/a") as first, rooms.raw("/join/a") as second:
        first.message()
        second.message()
        rooms.get("/send/a/1")
        first.text("2")
        assert [second.message(), second.message()] == ["1", "2"]
        rooms.get("/send/a/3")
        assert [first.message(), first.message()] == ["1", "3"]
    nobody_is_left(rooms)


def test_from_views_threads_and_tasks(rooms: Server) -> None:
    with rooms.raw("/join/a?user=ann") as client, rooms.raw("/join/b") as other:
        assert client.message() == "ann"
        assert other.message() == ""
        rooms.get("/send/a/view")
        assert client.message() == "view"
        rooms.get("/user/ann/user")
        assert client.message() == "user"
        rooms.get("/thread/a/thread")
        assert client.message() == "thread"
        rooms.get("/task/a/task")
        assert [client.message(), client.message()] == ["task", "task as well"]
        rooms.get("/send/b/other")
        assert other.message() == "other"


@pytest.mark.parametrize("how", ["returns", "raises", "closes", "leaves", "vanishes"])
def test_leaving_whatever_the_end(rooms: Server, how: str) -> None:
    if how == "raises":
        rooms.allow_log("it sent to another client", "Traceback", "Exception in the WebSocket")
    with rooms.raw(f"/end/{how}") as client:
        assert client.message() == "joined"
        if how == "leaves":
            client.leave()
        elif how == "vanishes":
            client.abort()
    nobody_is_left(rooms)


def test_a_lazy_handshake_is_answered_by_joining(rooms: Server) -> None:
    with rooms.raw("/lazy/a") as client:
        eventually(lambda: counts(rooms) == {"a": [1, 0]}, "it to be in")
        rooms.get("/send/a/x")
        assert client.message() == "x"
    nobody_is_left(rooms)


def test_joining_after_the_end(rooms: Server, token: str) -> None:
    with rooms.raw(f"/late/{token}") as client:
        client.leave()
    eventually(lambda: len(rooms.records(token)) == 2, "both attempts")
    for attempt in rooms.records(token):
        assert attempt == {"error": 1000, "rooms": []}
    nobody_is_left(rooms)


def test_closing_a_room(rooms: Server) -> None:
    with rooms.raw("/join/a") as client:
        client.message()
        rooms.get("/close/a")
        frame = client.read_close()
        assert (frame.code, frame.reason) == (4001, "over")
    nobody_is_left(rooms)


@pytest.mark.slow
def test_rooms_come_and_go(rooms: Server) -> None:
    """10,000 of them leave nothing behind that the 10,000 before did not: they weigh 8 MB."""

    def come_and_go() -> int:
        for name in range(100):
            client.text(str(name))
            assert client.message() == "done"
        eventually(lambda: json.loads(rooms.get("/left").body)["channels"] <= 2, "them to be gone")
        return rooms.rss()

    with rooms.raw("/many/100") as client:
        before = come_and_go()
        assert come_and_go() - before < 4 << 20
    nobody_is_left(rooms)


@pytest.mark.slow
def test_joining_and_leaving_by_many_at_once(rooms: Server) -> None:
    def come_and_go(number: int) -> None:
        for _ in range(10):
            with rooms.raw(f"/join/{number % 3}") as client:
                client.message()
                client.text("x")
                if number % 2:
                    client.abort()

    threads = [threading.Thread(target=come_and_go, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    nobody_is_left(rooms)


def test_a_child_has_nothing_of_its_parents_rooms(rooms: Server, token: str, engine: str) -> None:
    with rooms.raw(f"/fork/{token}") as client:
        assert client.message() == "ready"
        client.text("fork")
        # Nobody promises an order between two processes.
        assert {client.message(), client.message()} == {"from the child", "from the parent"}
        assert rooms.record(token) == {"status": 0, "rooms": ["forked"]}


@pytest.mark.slow
def test_the_end_is_quick_and_silent(engine: str, serve: Callable[..., Any]) -> None:
    server = serve(engine, app=APP)
    with server.raw("/join/a") as client:
        client.message()
        server.get("/send/a/x")
        server.begin_stop()
        server.wait_ended(15)
