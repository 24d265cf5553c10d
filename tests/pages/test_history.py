"""The code of docs/history.rst, as it stands there."""

from __future__ import annotations

from tests.pages import Page

PAGE = Page("history")


def test_a_chat() -> None:
    names = PAGE.run("def chat(ws, name)")
    websocket = names["websocket"]
    client = websocket.test_client(names["app"])
    for number in range(60):
        websocket.to("chat/a").send(f"{number}")
    with client.connect("/chat/a") as one:
        assert [one.receive() for _ in range(50)] == [f"{number}" for number in range(10, 60)]
        one.send("hi")
        assert one.receive() == "hi"


def test_coming_back() -> None:
    names = PAGE.run("def feed")
    websocket = names["websocket"]
    websocket.room("chat/*", history=True)
    client = websocket.test_client(names["app"])
    since = websocket.position("chat/feed")
    websocket.to("chat/feed").send("news")
    with client.connect("/feed") as one, client.connect("/feed") as other:
        one.send(since)
        assert one.receive() == "news"
        other.send("made up")
        assert other.receive() == "reload"


def test_between_page_and_socket() -> None:
    names = PAGE.run("def orders", load_orders=lambda: "no orders")
    names["websocket"].room("chat/*", history=True)
    position = names["websocket"].position("chat/orders")
    shown = names["app"].test_client().get("/orders").text
    assert shown == f"no orders since {position}"


def test_sending_again() -> None:
    names = PAGE.run("def pay")
    names["websocket"].room("chat/*", history=True)
    assert names["pay"](17) == names["pay"](17) != names["pay"](18)
