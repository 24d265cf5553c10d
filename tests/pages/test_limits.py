"""The code of docs/limits.rst, as it stands there."""

from __future__ import annotations

from tests.pages import Page

PAGE = Page("limits")


def test_connections() -> None:
    names = PAGE.run("max_connections=2")
    client = names["websocket"].test_client(names["app"])
    for _ in range(3):
        with client.connect("/status") as status:
            assert status.receive() == "up"


def test_rates() -> None:
    stored: list[str] = []
    names = PAGE.run("max_rate=(10, 5)", store=stored.append)
    client = names["websocket"].test_client(names["app"])
    with client.connect("/upload") as upload:
        for number in range(100):
            upload.send(str(number))
    assert stored == [str(number) for number in range(100)]
    with client.connect("/chat") as chat:
        for _ in range(5):
            chat.send("hello")
    assert chat.close_code == 1000
