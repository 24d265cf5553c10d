"""`examples/pubsub-gevent` and `pubsub-asyncio` in a real browser, with a real Redis."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import Example, process_of, say, visit
from tests.server import PATIENCE, free_port

NAMES = ["pubsub-gevent", "pubsub-asyncio"]


class Redis:
    """A Redis of the test's own, which can go and come back."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ["--save", "", "--bind", "127.0.0.1", "--dir", str(self._directory)]
        self._process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), *options], stdout=subprocess.DEVNULL
        )

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(PATIENCE)
            self._process = None


@pytest.fixture
def redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis]:
    redis = Redis(tmp_path)
    monkeypatch.setenv("REDIS_URL", redis.url)  # examples inherit the environment
    redis.start()
    yield redis
    redis.stop()


def expect_connected(page: Page) -> None:
    expect(page.locator("#status")).to_have_text("Connected", timeout=PATIENCE * 1000)


def expect_lines(page: Page, texts: list[str], lines: str = "li") -> None:
    bubbles = page.locator(f"#log {lines} .bubble")
    patterns = [re.compile("^" + re.escape(text)) for text in texts]
    expect(bubbles).to_have_text(patterns, timeout=PATIENCE * 1000)


@pytest.mark.parametrize("program", ["python", "uwsgi"])
@pytest.mark.parametrize("name", NAMES)
def test_channels(browser: Browser, tmp_path: Path, redis: Redis, name: str, program: str) -> None:
    """Visitors of a channel hear each other, whichever process they are in; others don't."""
    with (
        Example(name, program, tmp_path) as example,
        visit(browser, example) as ada,
        visit(browser, example) as grace,
        visit(browser, example) as joan,
    ):
        joan.get_by_role("link", name="music").click()
        expect(joan).to_have_url(f"{example.url}channels/music")
        for page in (ada, grace, joan):
            expect_connected(page)
        load_until_elsewhere(grace, ada)
        assert process_of(grace) != process_of(ada)
        say(ada, "Hello, lobby")
        expect_lines(grace, ["Hello, lobby"], "li:not(.mine)")
        say(grace, "<b>not bold</b>")
        expect_lines(ada, ["Hello, lobby", "<b>not bold</b>"])
        expect_lines(ada, ["Hello, lobby"], ".mine")
        say(joan, "Hello, music")
        expect_lines(joan, ["Hello, music"])
        expect_lines(ada, ["Hello, lobby", "<b>not bold</b>"])


def load_until_elsewhere(page: Page, other: Page) -> None:
    """Load a page until it is connected to another process than another one."""
    for _ in range(40):
        if process_of(page) != process_of(other):
            return
        page.reload()
    pytest.fail("a page was connected to the same process 40 times")


def test_examples_hear_each_other(browser: Browser, tmp_path: Path, redis: Redis) -> None:
    """What is on other machines is there for them, whatever its engine."""
    (tmp_path / "other").mkdir()
    with (
        Example(NAMES[0], "python", tmp_path) as one,
        Example(NAMES[1], "python", tmp_path / "other") as other,
        visit(browser, one) as ada,
        visit(browser, other) as grace,
    ):
        for page in (ada, grace):
            expect_connected(page)
        say(ada, "Hello")
        expect_lines(grace, ["Hello"], "li:not(.mine)")
        say(grace, "Hello to you")
        expect_lines(ada, ["Hello", "Hello to you"])


@pytest.mark.parametrize("name", NAMES)
def test_redis_goes_and_comes_back(
    browser: Browser, tmp_path: Path, redis: Redis, name: str
) -> None:
    with Example(name, "python", tmp_path) as example, visit(browser, example) as page:
        expect_connected(page)
        redis.stop()
        say(page, "Is anybody there?")
        expect(page.locator("#status")).to_have_text(
            re.compile("Closed: 1013, back in"), timeout=PATIENCE * 1000
        )
        redis.start()
        expect_connected(page)
        say(page, "Back again")
        expect_lines(page, ["Back again"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1200])
def test_layout(browser: Browser, tmp_path: Path, redis: Redis, width: int, scheme: str) -> None:
    viewport = {"width": width, "height": 720}
    with (
        Example(NAMES[0], "python", tmp_path) as example,
        visit(browser, example, viewport=viewport, color_scheme=scheme) as page,
    ):
        expect_connected(page)
        texts = ["Short.", "It flew off at noon, " + "and came back, " * 30, "0123456789" * 20]
        for text in texts:
            say(page, text)
        expect_lines(page, [text.strip() for text in texts])
        page.screenshot(path=tmp_path / "page.png")
        for element in ("document.documentElement", "document.getElementById('log')"):
            assert page.evaluate(f"{element}.scrollWidth <= {element}.clientWidth"), element
        box = page.get_by_role("button", name="Send").bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= width
        assert box["y"] + box["height"] <= 720
