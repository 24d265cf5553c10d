"""The code of docs/rooms.rst, as it stands there."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress

import pytest

from flask_uwsgi_websocket.testing import RoomFaults
from tests.pages import Page

PAGE = Page("rooms")


@pytest.mark.parametrize("part", ["def announce", "async for text"])
def test_a_chat(part: str) -> None:
    names = PAGE.run(part)
    PAGE.run("ann.send('hi')\n        assert bob", **names)["test_chat"]()
    with names["websocket"].test_client(names["app"]).connect("/chat/lobby") as ann:
        if part == "def announce":
            assert names["app"].test_client().post("/announce").status_code == 204
            assert ann.receive() == "We close at ten"


def test_all_but_the_page_that_asked() -> None:
    names = PAGE.run("X-WebSocket-ID")
    client = names["websocket"].test_client()
    with client.connect("/notes") as ann, client.connect("/notes") as bob:
        own = {"X-WebSocket-ID": ann.receive_json()["id"]}
        bob.receive_json()
        client.post("/notes", headers=own)
        assert bob.receive() == "reload"
        client.post("/notes")
        assert ann.receive() == bob.receive() == "reload"
        ann.send("bye")
        bob.send("bye")


def test_users() -> None:
    names = PAGE.run("who_is_it")
    client = names["websocket"].test_client()
    with client.connect("/inbox") as nobody:
        assert nobody.receive() is None
        assert nobody.close_code == 4401
    with client.session_transaction() as session:
        session["user_id"] = 7
    with client.connect("/inbox") as first, client.connect("/inbox") as second:
        client.post("/logout")
        for tab in (first, second):
            assert tab.receive() is None
            assert (tab.close_code, tab.close_reason) == (4401, "logged out")


def test_options() -> None:
    names = PAGE.run("slow='latest'")
    patterns = names["websocket"]._rooms.patterns
    assert patterns.of("prices/x").slow == "latest"
    assert patterns.of("log/x").slow == "drop-oldest"
    assert patterns.of("game/x").max_members == 8


def test_a_full_game() -> None:
    block = PAGE.code("except RoomFull").replace("...", "ws.receive()")
    names = PAGE.run("slow='latest'")
    exec(block, names)
    client = names["websocket"].test_client(names["app"])
    players = [client.connect("/game/chess") for _ in range(8)]
    with client.connect("/game/chess") as ninth:
        assert ninth.receive() is None
        assert ninth.close_code == 4409
    for player in players:
        player.send("bye")
        player.close()


def test_a_backplane_that_fails() -> None:
    names = PAGE.run("def announce")
    PAGE.run("test_without_the_backplane", **names)["test_without_the_backplane"](
        names["app"], RoomFaults(names["app"])
    )


@pytest.mark.parametrize("part", ["rooms = defaultdict", "ws.join(name)\n    for message in ws:"])
def test_a_list_of_clients_and_what_takes_its_place(part: str) -> None:
    names = PAGE.run(part, defaultdict=defaultdict, suppress=suppress)
    client = names["websocket"].test_client(names["app"])
    with client.connect("/rooms/a") as ann, client.connect("/rooms/a") as bob:
        with client.connect("/rooms/a") as dead:
            dead.abort()
        ann.send("hi")
        assert ann.receive() == bob.receive() == "hi"


def test_a_task_of_celery() -> None:
    code = PAGE.code("def make_report").replace(
        "Publisher('redis://localhost'", "Publisher('memory://page'"
    )
    names: dict[str, object] = {"__name__": "reports"}
    exec(code, names)
    names["make_report"](7)  # type: ignore[operator]


def test_a_backplane_of_another_package() -> None:
    # tests/test_mesh_conformance.py and its like run such a class.
    assert PAGE.run("class TestPigeon")["TestPigeon"].url == "pigeon://loft"


def test_an_asyncio_program() -> None:
    exec(PAGE.code("asyncio.run(main())").replace("redis://localhost", "memory://page"), {})


def test_a_script() -> None:
    # Which uWSGI it finds by itself is the matter of tests/test_publisher.py.
    code = PAGE.code("with Publisher() as rooms").replace("()", "('memory://page', prefix='shop')")
    exec(code, {})
