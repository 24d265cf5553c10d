"""The code of docs/index.rst, as it stands there."""

from __future__ import annotations

from tests.pages import Page

PAGE = Page("index")


def test_an_echo() -> None:
    names = PAGE.run("def echo")
    with names["websocket"].test_client(names["app"]).connect("/echo") as conn:
        conn.send("hi")
        assert conn.receive() == "hi"
