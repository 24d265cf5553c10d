"""The code of docs/relays.rst, as it stands there."""

from __future__ import annotations

import contextlib
import queue
import threading

from tests.pages import Page
from tests.server import eventually

PAGE = Page("relays")


def test_a_queue_beside_the_client() -> None:
    subscriptions: set[queue.Queue[str | None]] = set()
    names = PAGE.run(
        "def pass_on",
        contextlib=contextlib,
        queue=queue,
        subscriptions=subscriptions,
        threading=threading,
    )
    with names["websocket"].test_client(names["app"]).connect("/news") as conn:
        conn.send("hi")
        for subscription in list(subscriptions):
            subscription.put("news")
        assert conn.receive() == "news"
    eventually(lambda: not subscriptions, "the subscription to end")
