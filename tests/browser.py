"""The examples as their docstrings start them, and pages of a real browser that watch them."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sysconfig
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.server import PATIENCE, ROOT, eventually, free_port

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium, headless, with a new profile that goes when it ends."""
    binary = shutil.which("chromium")
    if binary is None:
        pytest.fail("no Chromium here: apt-get install chromium", pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=binary, args=CHROMIUM_FLAGS, timeout=PATIENCE * 1000
        )
        yield browser
        browser.close()


@contextmanager
def visit(browser: Browser, example: Example, **context: Any) -> Iterator[Page]:
    """A page of a visitor of their own, who sees no error and loads nothing from elsewhere."""
    errors: list[str] = []
    opened = browser.new_context(ignore_https_errors=True, **context)
    opened.set_default_timeout(PATIENCE * 1000)
    try:
        page = opened.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if _is_error(line) else None)
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((example.url, "data:"))
                else errors.append(f"loaded {request.url}")
            ),
        )
        page.goto(example.url)
        yield page
    finally:
        opened.close()
    # That a server is away is no fault of the page.
    errors = [line for line in errors if not line.startswith("WebSocket connection to")]
    assert not errors, errors


def _is_error(line: ConsoleMessage) -> bool:
    """Return whether a console's line is an error; that a page has no icon is none."""
    return line.type == "error" and not line.location["url"].endswith("/favicon.ico")


def process_of(page: Page) -> str:
    """Which of the server's processes a page is connected to, as it shows."""
    process = page.locator("#process")
    expect(process).to_have_text(re.compile(r"process \d+"), timeout=PATIENCE * 1000)
    return process.inner_text()


def say(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_role("button", name="Send").click()


def documented_commands(script: Path) -> dict[str, str]:
    """The commands that a script's docstring gives to start it, by program."""
    docstring = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    commands = re.findall(r"^ {4}(\w.+)", docstring.replace("\\\n", ""), re.MULTILINE)
    return {command.split()[0]: command for command in commands}


class Example:
    """An example's server, started in the repository's root by a command of its docstring.

    :param name: its directory in `examples/`.
    :param program: which of the commands: `python` or `uwsgi`.
    :param replace: parts of the command to replace.
    """

    #: The folder that the command is run in.
    place = ROOT

    def __init__(
        self,
        name: str,
        program: str,
        directory: Path,
        scheme: str = "http",
        replace: Mapping[str, str] | None = None,
    ) -> None:
        [script] = (ROOT / "examples" / name).glob("*.py")
        port = free_port()
        self.url = f"{scheme}://localhost:{port}/"
        self._command = documented_commands(script)[program]
        for old, new in {**(replace or {}), "localhost:5000": f"localhost:{port}"}.items():
            self._command = self._command.replace(old, new)
        self._prepare(self._command, port, directory / "uwsgi.log")

    def _prepare(self, command: str, port: int, log_path: Path) -> None:
        self._command = command
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("FLASK_")},
            "PORT": str(port),
            # As in an activated virtual environment.
            "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
        }
        self._log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Example:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        program, *arguments = shlex.split(self._command)
        found = shutil.which(program, path=self._environment["PATH"])
        assert found, f"no {program} in this environment"
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [found, *arguments],
                cwd=self.place,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        eventually(self._answers, f"`{self._command}` to answer", interval=0.1)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"`{self._command}` ended:\n{self.log()}"
        unverified = ssl._create_unverified_context()
        try:
            with urllib.request.urlopen(self.url, timeout=2, context=unverified) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        """End it as Ctrl-C would; show its log, which pytest keeps for a test that fails."""
        process, self._process = self._process, None
        if process is None:
            return
        for signum in (signal.SIGINT, signal.SIGKILL):
            try:
                os.killpg(process.pid, signum)
                process.wait(PATIENCE)
                break
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        print(f"$ {self._command}\n{self.log()}")

    def log(self) -> str:
        return self._log_path.read_text(errors="replace")
