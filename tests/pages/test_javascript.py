"""The code of docs/javascript.rst, as it stands there: its page in Chromium."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from websockets.sync.client import connect

from tests.pages import Page
from tests.pages.serving import UWSGI, serving
from tests.server import PATIENCE, eventually, free_port, uwsgi_binary

PAGE = Page("javascript")


@contextmanager
def served(tmp_path: Path) -> Iterator[str]:
    app = [PAGE.code("websocket.client_js"), "import json", PAGE.code("def feed")]
    (tmp_path / "app.py").write_text("\n".join(app))
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/chat.html").write_text(PAGE.code('<ul id="log">'))
    port = free_port()
    command = [uwsgi_binary(), *UWSGI, "--processes", "2", "--http-socket", f"127.0.0.1:{port}"]
    command += ["--touch-reload", str(tmp_path / "reload"), "--module", "app:app"]
    (tmp_path / "reload").touch()
    with serving(command, port, tmp_path) as address:
        yield address


def talk(address: str, numbers: range) -> None:
    """Say something in the room, from a client without envelopes."""
    with connect(f"ws://{address}/chat/lobby", proxy=None, open_timeout=PATIENCE) as client:
        for number in numbers:
            client.send(f"hello {number}")
            assert client.recv(PATIENCE) == f"hello {number}"


def wait_for_reload(tmp_path: Path, reloads: int) -> None:
    def starts() -> bool:
        return (tmp_path / "log").read_text().count("spawned uWSGI worker 2 ") > reloads

    eventually(starts, f"{reloads} reloads")


@pytest.mark.slow
def test_a_page_misses_nothing(browser: Browser, tmp_path: Path) -> None:
    with served(tmp_path) as address:
        page = browser.new_page()
        page.goto(f"http://{address}/chat/lobby")
        log = page.locator("#log li")
        talk(address, range(3))
        expect(log).to_have_text([f"hello {number}" for number in range(3)], timeout=30_000)
        for reloads, number in enumerate(range(3, 9, 3), 1):
            (tmp_path / "reload").write_text(str(number))
            wait_for_reload(tmp_path, reloads)  # which would close what talks meanwhile, too
            talk(address, range(number, number + 3))
        expect(log).to_have_text([f"hello {number}" for number in range(9)], timeout=30_000)
        page.close()


def test_the_test_of_an_app() -> None:
    names = PAGE.run("websocket.client_js")
    PAGE.run("def test_a_page_comes_back", **names)["test_a_page_comes_back"]()


@pytest.mark.slow
def test_what_a_page_may_do(browser: Browser, tmp_path: Path) -> None:
    with served(tmp_path) as address:
        page = browser.new_page()
        page.goto(f"http://{address}/chat/lobby")
        for part in ("newToken()", "retry: code"):
            code = json.dumps(PAGE.code(part))
            run = "new Function('connect', 'newToken', code + 'return chat')"
            opened = f"""async () => {{
                const {{connect}} = await import('/rooms.js'), code = {code}
                const chat = {run}(connect, async () => 'abc')
                return new Promise(done => chat.on('join', room => done(room)))
            }}"""
            assert page.evaluate(opened) == "chat/lobby"
        code = json.dumps(PAGE.code("new Set(['news'])"))
        subscribed = f"""async () => {{
            const {{connect}} = await import('/rooms.js'), feed = connect('/feed')
            new Function('feed', {code})(feed)
            return new Promise(done => feed.on('join', room => done(room)))
        }}"""
        assert page.evaluate(subscribed) == "feed/news"
        page.close()
