"""The code of docs/presence.rst, as it stands there."""

from __future__ import annotations

from tests.pages import Page
from tests.server import eventually

PAGE = Page("presence")


def test_a_chat() -> None:
    names = PAGE.run("who_is_it")
    PAGE.run("def online", **names)
    client = names["websocket"].test_client(names["app"])
    with client.session_transaction() as session:
        session.update(user_id=7, name="Ann")
    with client.connect("/chat/a") as first, client.connect("/chat/a") as tab:
        told = [first.receive_json(), first.receive_json()]
        assert {"here": [{"name": "Ann"}]} in told
        assert {"joined": {"name": "Ann"}} in told
        assert tab.receive_json()["here"] == [{"name": "Ann"}]
        tab.send("hi")
        assert first.receive() == "hi"
        assert client.get("/online/a").get_json() == {"names": ["Ann"], "complete": True}
        assert names["websocket"].present(7)


def test_a_table() -> None:
    names = PAGE.run("put_away")
    options = names["websocket"]._rooms.patterns.of("table/1")
    assert (options.max_members, options.presence.grace) == (4, 60)
    names["put_away"]("table/1")


def test_announcing() -> None:
    names = PAGE.run("announce=True")
    eventually(lambda: names["websocket"]._rooms.patterns.of("lobby").announce, "it is set")
