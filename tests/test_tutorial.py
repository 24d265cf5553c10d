"""The quick start and the tutorial's steps in a real browser, as the pages start them.

The last step is what the tutorial ends with: its ini file, behind nginx with TLS.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import Example, say, visit
from tests.server import PATIENCE, ROOT, eventually, free_port

TUTORIAL = ROOT / "examples" / "tutorial"

expect.set_options(timeout=PATIENCE * 1000)


class Step(Example):
    """A step's folder, copied out, and started by the command that the page gives."""

    def __init__(self, folder: Path, directory: Path, command: str = "python chat.py") -> None:
        port = free_port()
        self.url = f"http://localhost:{port}/"
        self.place = shutil.copytree(folder, directory / folder.name, dirs_exist_ok=True)
        for script in self.place.glob("*.py"):  # the page's port may be somebody else's here
            code = script.read_text()
            script.write_text(code.replace("app.run(", f"app.run(port={port}, "))
        self._prepare(command, port, directory / "uwsgi.log")

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        assert "Traceback" not in self.log()


def lines(page: Page) -> list[str]:
    return page.locator("li").all_inner_texts()


def expect_lines(page: Page, *texts: str) -> None:
    expect(page.locator("li")).to_have_text(list(texts))


def expect_connected(page: Page) -> None:
    expect(page.get_by_text("Connected", exact=True)).to_be_visible()


def test_quick_start(browser: Browser, tmp_path: Path) -> None:
    folder = ROOT / "examples" / "quickstart"
    with Step(folder, tmp_path, "python hello.py") as step, visit(browser, step) as page:
        expect_connected(page)
        say(page, "hello")
        expect_lines(page, "You said: hello")


def test_a_page_and_an_echo(browser: Browser, tmp_path: Path) -> None:
    with Step(TUTORIAL / "1-echo", tmp_path) as step, visit(browser, step) as page:
        page.wait_for_function("socket.readyState === WebSocket.OPEN")
        say(page, "<b>hello</b>")
        expect_lines(page, "<b>hello</b>")


def test_everybody_hears(browser: Browser, tmp_path: Path) -> None:
    with (
        Step(TUTORIAL / "2-room", tmp_path) as step,
        visit(browser, step) as ada,
        visit(browser, step) as bob,
    ):
        for page in (ada, bob):
            page.wait_for_function("socket.readyState === WebSocket.OPEN")
        # The handshake is answered before a handler joins.
        eventually(lambda: say(ada, "hello") or lines(bob), "Bob to hear", interval=0.2)
        assert lines(bob)[0] == "hello"


def enter(page: Page, room: str) -> None:
    page.get_by_label("Room").fill(room)
    page.get_by_role("button", name="Enter").click()
    expect(page.get_by_role("heading")).to_have_text(room)
    expect_connected(page)


def test_rooms_and_coming_back(browser: Browser, tmp_path: Path) -> None:
    with (
        Step(TUTORIAL / "3-rooms", tmp_path) as step,
        visit(browser, step) as ada,
        visit(browser, step) as bob,
    ):
        enter(ada, "tea & cake")
        enter(bob, "work")
        eventually(lambda: say(bob, "at work") or lines(bob), "Bob to hear", interval=0.2)
        eventually(lambda: say(ada, "<i>tea</i>") or lines(ada), "Ada to hear", interval=0.2)
        assert set(lines(ada)) == {"<i>tea</i>"}

        step.stop()
        expect(ada.locator("#status")).to_have_text("Connection lost, trying again")
        step.start()
        expect_connected(ada)


def log_in(page: Page, name: str, password: str = "secret") -> None:
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def chat_and_log_out(browser: Browser, step: Step) -> None:
    with visit(browser, step) as ada, visit(browser, step) as bob:
        for page, name in ((ada, "ada"), (bob, "bob")):
            log_in(page, name)
            enter(page, "tea")
        eventually(lambda: say(ada, "hello") or lines(bob), "Bob to hear", interval=0.2)
        assert lines(bob)[0] == "ada: hello"

        other = ada.context.new_page()
        other.goto(step.url)
        other.get_by_role("button", name="Log out").click()
        expect(ada.get_by_role("heading")).to_have_text("Log in")  # by 4401
        log_in(ada, "ada", "guess")
        expect(ada.get_by_role("alert")).to_contain_text("This name is taken")


def test_login(browser: Browser, tmp_path: Path) -> None:
    with Step(TUTORIAL / "4-login", tmp_path) as step:
        chat_and_log_out(browser, step)


#: Nobody need wait for ten seconds of grace.
PRESENCE = "presence=Room.presence(grace=1)"


def test_who_is_here_and_what_was_said(browser: Browser, tmp_path: Path) -> None:
    people = Step(TUTORIAL / "5-people", tmp_path)
    code = (people.place / "chat.py").read_text()
    assert "presence=True" in code
    (people.place / "chat.py").write_text(code.replace("presence=True", PRESENCE))
    with people as step, visit(browser, step) as ada:
        log_in(ada, "ada")
        enter(ada, "tea")
        say(ada, "nobody here?")
        expect_lines(ada, "ada: nobody here?")
        with visit(browser, step) as bob:
            log_in(bob, "bob")
            enter(bob, "tea")
            expect_lines(bob, "ada: nobody here?")
            for page in (ada, bob):
                expect(page.locator("#people")).to_have_text("Here: ada, bob")
            bob.reload()
            expect_lines(bob, "ada: nobody here?")
        expect(ada.locator("#people")).to_have_text("Here: ada")


@pytest.mark.slow
def test_the_tutorials_own_tests(tmp_path: Path) -> None:
    place = shutil.copytree(TUTORIAL / "5-people", tmp_path / "chat")
    environment = {name: os.environ[name] for name in os.environ if name[:7] != "PYTEST_"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    result = subprocess.run(
        [*command, "-c", os.devnull, "--rootdir", place, "test_chat.py"],
        cwd=place,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "5 passed" in result.stdout


class Production(Step):
    """The last step: uWSGI by docs/deploy/chat.ini, and nginx with TLS before it."""

    def __init__(self, directory: Path, certificate: tuple[Path, Path]) -> None:
        super().__init__(TUTORIAL / "5-people", directory, "uwsgi --ini chat.ini")
        port = free_port()
        self.url = f"https://localhost:{port}/"
        self._directory = directory
        (self.place / "chat.ini").write_text(self._here("chat.ini"))
        self._write_nginx(port, certificate)
        self._environment["FLASK_SECRET_KEY"] = "0123456789abcdef"

    def _here(self, name: str) -> str:
        """A file of docs/deploy, with paths of the test's own."""
        text = (ROOT / "docs" / "deploy" / name).read_text()
        text = text.replace("/srv/chat/venv", sys.prefix)
        return re.sub("/(srv|run)/chat", str(self.place), text)

    def _write_nginx(self, port: int, certificate: tuple[Path, Path]) -> None:
        site = re.sub(r"listen \[::\].*", "", self._here("nginx.conf"))
        live = "/etc/letsencrypt/live/chat.example.com/"
        replaced = {
            "listen 80;": f"listen 127.0.0.1:{free_port()};",
            "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
            "chat.example.com;": "localhost;",
            f"{live}fullchain.pem": str(certificate[0]),
            f"{live}privkey.pem": str(certificate[1]),
            # Where the port is not 443, nginx has to be told it.
            "include uwsgi_params;": "include /etc/nginx/uwsgi_params;"
            f"uwsgi_param HTTP_HOST $host:{port};",
        }
        for old, new in replaced.items():
            assert old in site, old
            site = site.replace(old, new)
        paths = "".join(
            f"{name}_temp_path {self._directory}/{name};"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        # As root nginx would serve as another user, who may not open what the test has made.
        user = f"user {Path.home().owner()};" if os.geteuid() == 0 else ""
        (self._directory / "nginx.conf").write_text(
            f"{user}daemon off; pid {self._directory}/nginx.pid; events {{}}\n"
            f"http {{ include /etc/nginx/mime.types; access_log off; {paths}\n{site} }}"
        )

    @contextmanager
    def behind_nginx(self) -> Iterator[None]:
        binary = shutil.which("nginx") or "/usr/sbin/nginx"
        command = [binary, "-p", self._directory, "-e", "stderr"]
        command += ["-c", self._directory / "nginx.conf"]
        with (self._directory / "nginx.log").open("wb") as log:
            nginx = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            yield
        finally:
            nginx.send_signal(signal.SIGTERM)
            nginx.wait(PATIENCE)
            print((self._directory / "nginx.log").read_text())

    def reload(self) -> None:
        """Do what `systemctl reload chat` does."""
        (self.place / "fifo").write_text("c")


RECORD_STATUS = """() => {
    window.seen = [];
    const status = document.getElementById("status");
    new MutationObserver(() => seen.push(status.textContent)).observe(status, {childList: true});
}"""


def test_production(browser: Browser, tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    production = Production(tmp_path, certificate)
    with production.behind_nginx(), production:
        chat_and_log_out(browser, production)
        with visit(browser, production) as page:
            log_in(page, "eve")
            enter(page, "tea")
            assert page.locator("#log").get_attribute("data-url").startswith("wss://")
            page.evaluate(RECORD_STATUS)
            production.reload()
            # It may be back before anybody has looked.
            eventually(lambda: page.evaluate("seen.includes('Connected')"), "Eve to come back")
            assert page.evaluate("seen[0]") == "Connection lost, trying again"
            eventually(lambda: say(page, "still here") or lines(page), "Eve", interval=0.5)


@pytest.mark.parametrize("name", ["templates/room.html"])
def test_what_steps_share_is_the_same(name: str) -> None:
    assert (TUTORIAL / "3-rooms" / name).read_text() == (TUTORIAL / "4-login" / name).read_text()
