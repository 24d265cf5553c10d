"""The code of docs/security.rst, as it stands there."""

from __future__ import annotations

import time

from tests.pages import Page

PAGE = Page("security")


def test_too_many_messages() -> None:
    names = PAGE.run("too many messages", time=time)
    client = names["websocket"].test_client(names["app"])
    with client.connect("/chat") as slow:
        slow.send("hello")
    assert slow.close_code == 1000
    with client.connect("/chat") as quick:
        for _ in range(200):
            quick.send("hello")
        assert quick.receive() is None
        assert (quick.close_code, quick.close_reason) == (1008, "too many messages")
