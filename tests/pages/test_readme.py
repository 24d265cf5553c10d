"""README.rst: its code, its figures, its links."""

from __future__ import annotations

import io
import re

import pytest
import readme_renderer.rst

from tests.pages import PAGES, Page
from tests.server import ROOT

PAGE = Page("readme")
TEXT = PAGES["readme"].read_text(encoding="utf-8")
BENCHMARKS = PAGES["benchmarks"].read_text(encoding="utf-8")


def test_a_chat() -> None:
    names = PAGE.run("websocket.to(name)")
    client = names["websocket"].test_client(names["app"])
    with client.connect("/chat/a") as ann, client.connect("/chat/a") as bob:
        ann.send("hi")
        assert ann.receive() == bob.receive() == "hi"


def test_the_quick_start_is_the_one_of_the_site() -> None:
    # tests/test_tutorial.py runs that one.
    assert PAGE.code("You said") == (ROOT / "examples/quickstart/hello.py").read_text()


#: The rows with figures: the table that they are from.
FIGURES = {
    "Echo, messages a second": "Echo, 50 connections, 32 B",
    "Room of 1,000": "1,000 members, 1 room, 8 messages of 200 B under way",
    "KiB for an idle connection": "Memory of the server for each idle connection, in KiB",
}
SERVERS = (
    "ours, gevent|ours, gevent, Redis",
    "Flask-Sock, gunicorn, gevent",
    "Flask-SocketIO, gunicorn, gevent",
    r"Starlette, uvicorn, websockets-sansio|Starlette, uvicorn, Redis by hand",
)


@pytest.mark.parametrize("row", FIGURES)
def test_figures_are_those_of_the_benchmarks(row: str) -> None:
    section = BENCHMARKS.split(f"\n{FIGURES[row]}\n~~", 1)[1].split("\n~~~", 1)[0]
    cells = re.split("  +", re.search(rf"^{row}.*", TEXT, re.MULTILINE)[0])[1:]  # type: ignore[index]
    for cell, server in zip(cells, SERVERS, strict=True):
        found = re.search(rf"^(?:{server})  +(\S+)", section, re.MULTILINE)
        assert cell.strip() == (found[1] if found else "\\-"), server


def test_links_lead_to_files() -> None:
    targets = set(re.findall(r"<([\w./-]+)>`_|image:: (\S+)", TEXT))
    files = [link or image for link, image in targets]
    assert len(files) > 20
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_the_index_of_packages_shows_it() -> None:
    warnings = io.StringIO()
    assert readme_renderer.rst.render(TEXT, stream=warnings), warnings.getvalue()
    assert warnings.getvalue() == ""


def test_the_site_begins_alike() -> None:
    def sentence(name: str) -> str:
        return PAGES[name].read_text(encoding="utf-8").split("=====\n")[1].split("\n\n")[0]

    assert sentence("readme").strip("=\n") == sentence("index").strip("=\n")


def test_its_width() -> None:
    # Terminals and the index of packages show code and tables as they are.
    assert [line for line in TEXT.splitlines() if len(line) > 120] == []
