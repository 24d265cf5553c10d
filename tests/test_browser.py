"""The examples in a real browser, over a real uWSGI, started as their docstrings say."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import Example, process_of, say, visit
from tests.server import PATIENCE, ROOT

ECHOES = ["echo", "echo-gevent", "echo-asyncio"]
CHATS = ["chat-gevent", "chat-asyncio"]
UWASP = "uwasp-chat"  # the same page again, which does without templates
PROGRAMS = ["python", "uwsgi"]

DESKTOP = {"width": 1200, "height": 800}
PHONE = {"width": 375, "height": 667}

expect.set_options(timeout=PATIENCE * 1000)


def join(page: Page, name: str) -> None:
    """Enter the chat, and wait until all know of it: who goes before that has not been there."""
    page.get_by_label("Your name").fill(name)
    page.get_by_role("button", name="Join").click()
    expect_connected(page)
    expect_line(page, f"{name} joined", ".notice")


@contextmanager
def visit_elsewhere(browser: Browser, example: Example, page: Page) -> Iterator[tuple[Page, str]]:
    """A page of somebody who is connected to another process, and the name that they joined by."""
    for number in range(40):
        name = f"Grace the {number}."
        with visit(browser, example) as other:
            join(other, name)
            if process_of(other) != process_of(page):
                yield other, name
                return
        expect_line(page, f"{name} left", ".notice")
    pytest.fail("40 visitors came to the same process")


def expect_connected(page: Page) -> None:
    expect(page.locator("#status")).to_have_text("Connected")


def expect_closed(page: Page) -> None:
    expect(page.locator("#status")).to_have_text(re.compile(r"^Closed: \d+.*, back in "))


def expect_line(page: Page, text: str, lines: str = "li") -> None:
    expect(page.locator(f"#log {lines}").filter(has_text=text)).to_have_count(1)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", ECHOES)
def test_echo(browser: Browser, tmp_path: Path, name: str, program: str) -> None:
    with Example(name, program, tmp_path) as example, visit(browser, example) as page:
        expect_connected(page)
        said = ["Hello", "Grüße, 世界 🌍", "<b>not bold</b>", "long " * 5000]
        for text in said:
            say(page, text)
        echoed = page.locator("#log li")
        expect(echoed).to_have_count(len(said))
        for line, text in zip(echoed.all(), said, strict=True):
            expect(line).to_have_text(re.compile(rf"^{re.escape(text.strip())}\s*[\d.]+ ms$"))


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", [*CHATS, UWASP])
def test_chat(browser: Browser, tmp_path: Path, name: str, program: str) -> None:
    """Two visitors, of two workers, see each other come, hear each other, and one leave."""
    with Example(name, program, tmp_path) as example, visit(browser, example) as ada:
        join(ada, "Ada")
        expect_line(ada, "Ada joined", ".notice")
        with visit_elsewhere(browser, example, ada) as (grace, her_name):
            assert process_of(grace) != process_of(ada)
            expect_line(ada, f"{her_name} joined", ".notice")
            for page in (ada, grace):
                expect(page.locator("#online")).to_have_text("2 online")

            say(ada, "Hello, Grace")
            expect_line(grace, "Hello, Grace", "li:not(.mine) .bubble")
            expect_line(ada, "Hello, Grace", ".mine .bubble")

            # Markup is text like any other.
            say(grace, "<img src=x onerror=alert(1)>")
            expect_line(ada, "<img src=x onerror=alert(1)>", "li:not(.mine) .bubble")
            expect_line(ada, her_name, ".name")
            expect(ada.locator("#log img")).to_have_count(0)
        expect_line(ada, f"{her_name} left", ".notice")
        expect(ada.locator("#online")).to_have_text("1 online")


@pytest.mark.parametrize("name", ["echo", *CHATS])
def test_reconnect(browser: Browser, tmp_path: Path, name: str) -> None:
    """A page shows that the server went away, and comes back by itself when the server does."""
    with Example(name, "python", tmp_path) as example, visit(browser, example) as page:
        if name in CHATS:
            join(page, "Ada")
        expect_connected(page)
        example.stop()
        expect_closed(page)
        expect(page.get_by_role("button", name="Send")).to_be_disabled()
        example.start()
        expect_connected(page)
        say(page, "Back again")
        expect_line(page, "Back again")


def test_reload(browser: Browser, tmp_path: Path) -> None:
    """Loading the page anew is leaving and coming back."""
    with Example("chat-gevent", "python", tmp_path) as example, visit(browser, example) as ada:
        join(ada, "Ada")
        with visit(browser, example) as grace:
            join(grace, "Grace")
            grace.reload()
            expect_line(ada, "Grace left", ".notice")
            join(grace, "Grace")
            expect(ada.locator("#log .notice").filter(has_text="Grace joined")).to_have_count(2)


def test_tls(browser: Browser, tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    """Behind uWSGI's TLS router the page takes wss:// from its own address."""
    pair = ",".join(map(str, certificate))
    replace = {"--http localhost:5000": f"--https localhost:5000,{pair}"}
    with (
        Example("chat-gevent", "uwsgi", tmp_path, "https", replace) as example,
        visit(browser, example) as page,
    ):
        with page.expect_websocket() as opened:
            join(page, "Ada")
        assert opened.value.url.startswith("wss://")
        say(page, "Privately")
        expect_line(page, "Privately", ".mine .bubble")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("name", ["echo-gevent", "chat-gevent"])
def test_layout(
    browser: Browser, tmp_path: Path, name: str, viewport: dict[str, int], scheme: str
) -> None:
    """Nothing sticks out, and the newest line is in view; a screenshot stays for the eye."""
    with (
        Example(name, "python", tmp_path) as example,
        visit(browser, example, viewport=viewport, color_scheme=scheme) as page,
    ):
        if name in CHATS:
            page.screenshot(path=tmp_path / "join.png")
            join(page, "Ada Lovelace")
            with visit(browser, example) as grace:
                join(grace, "Grace")
                say(grace, "Has anybody seen the moth that lived in relay 70?")
                expect_line(page, "relay 70")
        expect_connected(page)
        for text in ["Yes.", "It flew off at noon, " + "and came back, " * 20, "0123456789" * 20]:
            say(page, text)
        expect_line(page, "0123456789")
        expect(page.locator("#log li").last).to_be_in_viewport()
        page.screenshot(path=tmp_path / "page.png")
        for element in ("document.documentElement", "document.getElementById('log')"):
            assert page.evaluate(f"{element}.scrollWidth <= {element}.clientWidth"), element
        box = page.get_by_role("button", name="Send").bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= viewport["width"]
        assert box["y"] + box["height"] <= viewport["height"]


def test_what_examples_share_is_the_same(tmp_path: Path) -> None:
    """Each directory stands alone when it is copied, so some of its files are copies."""
    ignore = shutil.ignore_patterns("__pycache__")
    shared = shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=ignore)
    subprocess.run(["bash", shared / "share.sh"], check=True)
    differing = [
        str(path.relative_to(shared))
        for path in shared.rglob("*")
        if path.is_file()
        and path.read_bytes() != (ROOT / "examples" / path.relative_to(shared)).read_bytes()
    ]
    assert not differing, "run `bash examples/share.sh`, which copies from the file's owner"


def test_uploads_of_a_browser_through_the_router(browser: Browser, shared_server) -> None:
    server = shared_server("gevent", "http")
    page = browser.new_page()
    page.goto(f"http://{server.address}/ready")
    sizes = [size + more for size in (4096, 32768, 65536, 131072) for more in (-200, 0, 1)]
    answers = page.evaluate(
        """sizes => Promise.all(sizes.map(async size => {
            const answer = await fetch('/upload', {method: 'POST', body: new Uint8Array(size)});
            return answer.text();
        }))""",
        [*sizes, 1, 5_000_000],
    )
    page.close()
    assert answers == [hashlib.sha256(bytes(size)).hexdigest() for size in [*sizes, 1, 5_000_000]]
