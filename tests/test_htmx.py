"""The example with htmx, in Chromium: fragments for visitors of two workers, one of which dies."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import Example, process_of, say, visit
from tests.server import PATIENCE

expect.set_options(timeout=PATIENCE * 1000)

PHONE = {"width": 375, "height": 667}


def enter(page: Page, name: str, room: str = "Garden") -> None:
    page.get_by_label("Your name").fill(name)
    page.get_by_role("button", name=room).click()
    expect(page.locator("#talk")).to_have_class("open")
    expect(page.locator("#here")).to_contain_text(name)


def expect_lines(page: Page, lines: list[str]) -> None:
    expect(page.locator("#log li")).to_have_text(lines)


@contextmanager
def visit_elsewhere(browser: Browser, example: Example, page: Page) -> Iterator[Page]:
    """A page of somebody who is connected to another process."""
    for _ in range(40):
        with visit(browser, example) as other:
            enter(other, "Grace")
            if process_of(other) != process_of(page):
                yield other
                return
    pytest.fail("40 visitors came to the same process")


@pytest.mark.parametrize("program", ["python", "uwsgi"])
def test_talks(browser: Browser, tmp_path: Path, program: str) -> None:
    with Example("htmx", program, tmp_path) as example, visit(browser, example) as ada:
        enter(ada, "Ada <3")
        say(ada, "Hello, garden")
        with visit_elsewhere(browser, example, ada) as grace:
            # What was said before is there, and who is here.
            expect_lines(grace, ["Ada <3 Hello, garden"])
            for page in (ada, grace):
                expect(page.locator("#here")).to_have_text("Ada <3, Grace")
            say(grace, "<img src=x onerror=alert(1)>")
            lines = ["Ada <3 Hello, garden", "Grace <img src=x onerror=alert(1)>"]
            expect_lines(ada, lines)
            expect_lines(grace, lines)
            with visit(browser, example, viewport=PHONE, color_scheme="dark") as bob:
                enter(bob, "Bob", "Kitchen")
                for number in range(25):
                    say(bob, f"Line {number}")
                    expect(bob.locator("#log li")).to_have_count(number + 1)
                expect(bob.locator("#log li").last).to_be_in_viewport()
                assert bob.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]

            died = process_of(ada)
            os.kill(int(died.split()[-1]), signal.SIGKILL)
            expect(ada.locator("#process")).not_to_have_text(died)
            expect(ada.locator("#talk")).to_have_class("open")
            say(grace, "Still there?")
            lines.append("Grace Still there?")
            expect_lines(ada, lines)
            expect_lines(grace, lines)
            assert re.fullmatch(r"process \d+", process_of(ada))
