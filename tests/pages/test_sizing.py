"""The code of docs/sizing.rst, as it stands there."""

from __future__ import annotations

from tests.pages import Page

PAGE = Page("sizing")


def test_how_many_are_open() -> None:
    names = PAGE.run("def sockets")
    websocket = names["websocket"]

    @websocket.route("/chat")
    def chat(ws):
        ws.join("chat")
        ws.receive()

    client = websocket.test_client(names["app"])
    with client.connect("/chat") as one, client.connect("/chat") as other:
        assert client.get("/sockets").json == {"this worker": 2, "rooms": {"chat": 2}}
        for each in (one, other):
            each.send("bye")
