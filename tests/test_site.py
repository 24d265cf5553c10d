"""The site of docs/: it builds without a warning, its links lead somewhere, and phones show it."""

from __future__ import annotations

import html.parser
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

import flask_uwsgi_websocket as package
from flask_uwsgi_websocket import (
    Backplane,
    Inbox,
    Publisher,
    WebSocket,
    WebSocketClient,
    runner,
    testing,
    uwasp,
)
from tests.browser import chromium
from tests.server import PATIENCE, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        ["bash", "docs/build.sh", "html", folder],
        cwd=ROOT,
        env={**os.environ, "PYTHON": sys.executable},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout
    return folder


class Document(html.parser.HTMLParser):
    """What a page can be linked to by, what it links to, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors = {""}
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        if tag in {"script", "img", "source"} and "src" in given:
            self.loaded.add(given["src"])
        if tag == "link" and "href" in given:
            self.loaded.add(given["href"])


@pytest.fixture(scope="module")
def documents(site: Path) -> dict[Path, Document]:
    return {path: Document(path) for path in site.rglob("*.html") if "_static" not in path.parts}


def is_elsewhere(url: str) -> bool:
    return bool(urlsplit(url).scheme or urlsplit(url).netloc)


def broken(path: Path, document: Document, documents: dict[Path, Document]) -> Iterator[str]:
    for url in document.links | document.loaded:
        if is_elsewhere(url):
            continue
        file, anchor = urldefrag(unquote(url))
        target = (path.parent / file.partition("?")[0]).resolve() if file else path
        if not target.exists() or (
            anchor and target in documents and anchor not in documents[target].anchors
        ):
            yield f"{path.name}: {url}"


def test_links_lead_somewhere(documents: dict[Path, Document]) -> None:
    assert len(documents) > 15
    assert [
        link for path, document in documents.items() for link in broken(path, document, documents)
    ] == []


def test_nothing_is_loaded_from_elsewhere(documents: dict[Path, Document]) -> None:
    assert {
        url for document in documents.values() for url in document.loaded if is_elsewhere(url)
    } == set()


def test_no_page_is_wider_than_a_phone(site: Path, documents: dict[Path, Document]) -> None:
    wide = {}
    with chromium() as browser:
        page = browser.new_page(viewport=PHONE)
        page.set_default_timeout(PATIENCE * 1000)
        for path in documents:
            page.goto(path.as_uri(), wait_until="load")
            if beyond := page.evaluate(BEYOND):
                wide[path.name] = beyond
    assert wide == {}


#: The elements that stick out, if the page can be scrolled sideways.
BEYOND = """() => {
    const root = document.scrollingElement;
    if (root.scrollWidth <= root.clientWidth) return [];
    return [...document.querySelectorAll('article *')]
        .filter(element => element.getBoundingClientRect().right > root.clientWidth)
        .map(element => element.outerHTML.slice(0, 80)).slice(0, 5);
}"""


MODULES = (package, runner, testing, uwasp)
KINDS = (WebSocket, WebSocketClient, Publisher, Backplane, Inbox)
#: What other rooms of the package call.
NOT_FOR_USERS = {
    *(f"WebSocket.{name}" for name in ("add_engine", "middleware")),
    *(f"Publisher.{name}" for name in ("ask", "dumps", "is_alone", "send", "send_nowait")),
}


def test_the_reference_has_every_public_name(documents: dict[Path, Document]) -> None:
    [api] = [document for path, document in documents.items() if path.name == "api.html"]
    # uWASP's module has its exceptions from the package.
    known = {re.sub(r"\.(exceptions|uwasp)\.", ".", anchor) for anchor in api.anchors}
    names = {
        f"{module.__name__}.{name}".replace(".uwasp.", ".")
        for module in MODULES
        for name in module.__all__
    }
    members = {f"{kind.__name__}.{name}" for kind in KINDS for name in dir(kind)} - NOT_FOR_USERS
    names |= {f"{package.__name__}.{name}" for name in members if "._" not in name}
    assert sorted(names - known) == []


#: What a reader who knows only Flask asks, and where the answer is.
QUESTIONS = {
    "Why 403?": "troubleshooting.html#the-handshake-is-403",
    "Why 502?": "troubleshooting.html#the-handshake-is-502",
    "Why does my broadcast not reach": "troubleshooting.html#a-broadcast-does-not-reach-everybody",
    "How do I log in?": "authentication.html",
    "How do I test?": "testing.html",
    "How do I deploy": "production.html",
    "What happens on reload?": "reload.html",
    "How many sockets fit?": "sizing.html",
    "How do I see them?": "watching.html",
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_start_page_leads_to_an_answer(site: Path, question: str) -> None:
    rows = (site / "index.html").read_text(encoding="utf-8").split("<tr ")
    [row] = [row for row in rows if question in row]
    assert f'href="{QUESTIONS[question]}"' in row


def test_no_row_of_a_table_has_half_a_cell_alone(site: Path) -> None:
    # The second line of a cell in the first column, as docutils takes it.
    halves = []
    for path in site.glob("*.html"):
        for row in path.read_text(encoding="utf-8").split("<tr ")[1:]:
            cells = re.findall(r"<td>(.*?)</td>", row.partition("</tr>")[0], re.DOTALL)
            if len(cells) > 1 and cells[0] and not any(cells[1:]):
                halves.append(f"{path.name}: {cells[0]}")
    assert halves == []


def test_no_row_of_a_table_begins_with_half_a_cell() -> None:
    # A cell of the first column has one line: a second one would be a row of its own.
    halves = []
    for path in (ROOT / "README.rst", ROOT / "CONTRIBUTING.rst", *ROOT.glob("docs/*.rst")):
        lines = path.read_text(encoding="utf-8").splitlines()
        for line, following in itertools.pairwise(lines):
            cells = re.split("  +", line)
            is_half = re.fullmatch(r"\S.{8,}(,| a| or| and| the)", cells[0]) and len(cells) > 1
            if is_half and re.match(r"\S.*\S  +\S", following):
                halves.append(f"{path.name}: {line}")
    assert halves == []
