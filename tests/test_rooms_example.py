"""The example with rooms in two browsers, while its network is cut and its workers are killed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, Page, expect

from tests.browser import Example, say, visit
from tests.cable import Cable
from tests.js_clients import Chromium, Runtime, runtime
from tests.server import PATIENCE, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

DESKTOP, PHONE = {"width": 1040, "height": 700}, {"width": 390, "height": 780}

expect.set_options(timeout=PATIENCE * 1000)


class Visitor:
    """Somebody in a browser, whichever it is."""

    def __init__(self, browser: Runtime, url: str, name: str) -> None:
        self._browser = browser
        self.url = url
        self.name = name

    def join(self) -> None:
        self._browser.go(self.url)
        self._do(f"document.querySelector('#name').value = {json.dumps(self.name)}")
        self._do("document.querySelector('#join').requestSubmit()")
        self.is_connected()

    def _do(self, script: str) -> Any:
        return self._browser.evaluate(script)

    def text(self, selector: str) -> str:
        found: str = self._do(f"document.querySelector({json.dumps(selector)})?.textContent ?? ''")
        return found

    def texts(self, selector: str) -> list[str]:
        found: list[str] = self._do(
            f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent)"
        )
        return found

    def is_connected(self, but_not_to: int = 0) -> None:
        """Wait for it; but for a process that was killed, which the page may not have heard of."""

        def probe() -> bool:
            try:
                return self.text("#status") == "Connected" and self.process != but_not_to
            except (AssertionError, Error, ValueError):  # the page is just being left, or is new
                return False

        eventually(probe, f"{self.name} is connected")

    def is_away(self) -> None:
        eventually(lambda: self.text("#status").startswith("Away"), f"{self.name} is away")

    @property
    def process(self) -> int:
        return int(self.text("#process").removeprefix("process "))

    def say(self, text: str) -> None:
        self._do(f"document.querySelector('#text').value = {json.dumps(text)}")
        self._do("document.querySelector('#composer').requestSubmit()")

    def reload(self) -> None:
        self._browser.go(self.url)
        self.is_connected()

    def leave(self) -> None:
        self._browser.go("about:blank")

    def hears(self, *texts: str) -> None:
        """Wait for the last of these; then these are all, in this order."""
        eventually(lambda: self.log[-1:] == [texts[-1]], f"{self.name} hears {texts[-1]}")
        assert self.log == list(texts)

    @property
    def log(self) -> list[str]:
        return self.texts("#log .bubble")

    def sees(self, *names: str) -> None:
        eventually(
            lambda: sorted(self.texts("#members .name")) == sorted(names), f"{names} are here"
        )


@pytest.fixture(scope="module")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    with runtime("firefox", tmp_path_factory.mktemp("firefox")) as browser:
        yield browser


class Tab(Chromium):
    """A page of the browser that other tests use as well."""

    def __init__(self, page: Page) -> None:
        self._page = page


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def test_nothing_is_missing(browser: Browser, firefox: Runtime, tmp_path: Path) -> None:
    with Example("rooms", "uwsgi", tmp_path) as example, browser.new_context() as context:
        port = int(example.url.rstrip("/").rpartition(":")[2])
        with Cable(port) as cable:
            ada = Visitor(Tab(context.new_page()), f"http://localhost:{cable.port}/", "Ada")
            grace = Visitor(firefox, example.url, "Grace <i>")
            ada.join()
            grace.join()
            while grace.process == ada.process:
                grace.reload()
            go_through_it(ada, grace, cable)


def go_through_it(ada: Visitor, grace: Visitor, cable: Cable) -> None:
    for each in (ada, grace):
        each.sees("Ada", "Grace <i>")
    said = ["Hello, Ada", "<img src=x onerror=alert(1)>"]
    for text in said:
        grace.say(text)
    ada.hears(*said)

    her_process = ada.process
    cable.cut()
    ada.is_away()
    kill(her_process)
    for number in range(5):
        said.append(f"while Ada was away {number}")
        grace.say(said[-1])
        grace.hears(*said)
    cable.mend()
    ada.is_connected()
    ada.hears(*said)

    her_process = grace.process
    kill(her_process)
    ada.is_connected(but_not_to=her_process)  # it may have been both of theirs
    for number in range(5):
        said.append(f"while Grace was away {number}")
        ada.say(said[-1])
        ada.hears(*said)
    grace.is_connected(but_not_to=her_process)
    grace.hears(*said)
    for each in (ada, grace):
        each.reload()
        each.hears(*said)  # what was said before the page was loaded
        each.sees("Ada", "Grace <i>")
    assert ada.texts("nav [data-room=lobby] .count") == ["2"]
    ada.leave()
    grace.sees("Grace <i>")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_layout(browser: Browser, tmp_path: Path, scheme: str) -> None:
    """Nothing sticks out, on a desk or a phone; screenshots stay for the eye."""
    with (
        Example("rooms", "python", tmp_path) as example,
        visit(browser, example, viewport=DESKTOP, color_scheme=scheme) as ada,
        visit(browser, example, viewport=PHONE, color_scheme=scheme) as grace,
    ):
        for page, name in ((ada, "Ada Lovelace"), (grace, "Grace " + "Hopper" * 10)):
            page.screenshot(path=tmp_path / "join.png")
            page.get_by_label("Your name").fill(name)
            page.get_by_role("button", name="Join").click()
            expect(page.locator("#status")).to_have_text("Connected")
        for text in ("It flew off at noon, " + "and came back, " * 20, "0123456789" * 20):
            say(grace, text)
        for page, viewport in ((ada, DESKTOP), (grace, PHONE)):
            expect(page.locator("#log li")).to_have_count(2)
            expect(page.locator("#log li").last).to_be_in_viewport()
            expect(page.locator("#members li")).to_have_count(2)
            page.screenshot(path=tmp_path / f"{viewport['width']}-{scheme}.png")
            fits(page, viewport)
        ada.get_by_role("link", name="Garden").click()
        expect(ada.get_by_role("heading", name="Garden")).to_be_visible()
        expect(grace.locator("nav [data-room=garden] .count")).to_have_text("1")
        ada.goto(f"{example.url}_ws/")
        expect(ada.locator("#rows tbody tr")).to_have_count(1)
        expect(ada.locator("#rooms")).to_contain_text("chat/lobby")
        eventually(lambda: shows_grace(ada, example), "her connection among the metrics")


def shows_grace(page: Page, example: Example) -> bool:
    metrics = page.request.get(f"{example.url}metrics")
    return 'flask_websocket_connections{route="/<name>"} 1' in metrics.text()


def fits(page: Page, viewport: dict[str, int]) -> None:
    for element in ("document.documentElement", "document.getElementById('log')"):
        assert page.evaluate(f"{element}.scrollWidth <= {element}.clientWidth"), element
    box = page.get_by_role("button", name="Send").bounding_box()
    assert box is not None
    assert box["x"] + box["width"] <= viewport["width"]
    assert box["y"] + box["height"] <= viewport["height"]
