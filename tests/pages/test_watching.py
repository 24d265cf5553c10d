"""The code of docs/watching.rst, as it stands there."""

from __future__ import annotations

from tests.pages import Page

PAGE = Page("watching")


def test_how_many_are_open() -> None:
    names = PAGE.run("def how_many_are_open")
    client = names["websocket"].test_client(names["app"])
    with client.connect("/chat/a") as ann, client.connect("/chat/b"):
        assert client.get("/open").json == {"connections": 2, "complete": True}
        ann.send("hi")
        assert ann.receive() == "hi"
