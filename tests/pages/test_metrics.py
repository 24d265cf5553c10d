"""The code of docs/metrics.rst, and that the page names what there is."""

from __future__ import annotations

import re
from typing import get_type_hints

from flask_uwsgi_websocket.metrics.observers import REASONS
from flask_uwsgi_websocket.metrics.snapshot import RouteSnapshot
from flask_uwsgi_websocket.rooms.metrics import RoomsMetrics
from tests.pages import PAGES, Page

PAGE = Page("metrics")


def test_how_much() -> None:
    names = PAGE.run("def how_much")
    client = names["websocket"].test_client(names["app"])
    with client.connect("/chat/ann") as ws:
        ws.send("hi")
        assert ws.receive() == "ann: hi"
        assert client.get("/how-much").json == {"open": 1, "messages": 1}


def test_each_figure_and_each_reason_is_told() -> None:
    told = re.findall(
        r"^``(\w+)``(?:, ``(\w+)``)?", PAGES["metrics"].read_text(encoding="utf-8"), re.MULTILINE
    )
    figures = RoomsMetrics()
    figures.of("room:a")
    rooms = figures.snapshot()
    parts = (rooms, rooms["patterns"]["*"], rooms["backplane"])
    of_rooms = {name for part in parts for name in part if name not in ("patterns", "backplane")}
    expected = {*get_type_hints(RouteSnapshot), *REASONS} | of_rooms
    assert expected <= {name for names in told for name in names}
