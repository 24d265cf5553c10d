"""Where rooms.js runs: Node, Chromium and Firefox, which evaluate JavaScript for a test."""

from __future__ import annotations

import json
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidHandshake
from websockets.sync.client import ClientConnection, connect

from flask_uwsgi_websocket.extension.extension import CLIENT_JS
from tests.server import PATIENCE, ROOT, eventually, free_port

#: Waits are random: here they are short, and as a test says.
PRELUDE = """
globalThis.luck = 0.01
Math.random = () => luck
globalThis.events = []
globalThis.start = (url, names = [], options = {}) => {
  globalThis.chat?.close()
  events.length = 0
  globalThis.chat = rooms.connect(url, options)
  for (const name of ['state', 'message', 'join', 'leave', 'resync', 'presence', '*', ...names])
    chat.on(name, (...values) => events.push([name, ...values.map(plain)]))
}
globalThis.plain = value =>
  value instanceof ArrayBuffer ? {bytes: [...new Uint8Array(value)]} : value
null
"""


def program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"no {name} here: apt-get install {package}", pytrace=False)
    return found


def in_json(script: str) -> str:
    """What gives the value of a script as JSON."""
    value = f"(await (0, eval)({json.dumps(script)})) ?? null"
    return f"(async () => JSON.stringify({value}))()"


def as_json(expression: str) -> str:
    """The same without `eval`, which a page may forbid; an expression only."""
    return f"(async () => JSON.stringify((await ({expression})) ?? null))()"


#: Where the middle of an element is, once it is in view.
MIDDLE = """(element => {
    element.scrollIntoView({block: 'center', behavior: 'instant'})
    const {x, y, width, height} = element.getBoundingClientRect()
    return [x + width / 2, y + height / 2]
})(%s)"""


class Runtime(ABC):
    """Something that runs JavaScript."""

    @abstractmethod
    def evaluate(self, script: str) -> Any:
        """The value of an expression, or of the promise that it gives; JSON can say it."""

    def go(self, url: str) -> None:  # noqa: B027
        """Go to a page."""

    def visit(self, url: str) -> None:
        """Go to a page that has the client."""
        self.go(url)
        eventually(lambda: self.evaluate("!!globalThis.rooms"), "the module")

    def prepare(self, url: str) -> None:
        """Begin anew, on a page of this server."""
        self.visit(url)
        self.evaluate(PRELUDE)


class Node(Runtime):
    def __init__(self, stack: ExitStack, directory: Path) -> None:
        script = str(ROOT / "tests/rooms_client.mjs")
        # Outside of a package Node knows a module by its name alone.
        module = shutil.copy(CLIENT_JS, directory / "rooms.mjs")
        self._process = subprocess.Popen(
            [program("node", "nodejs"), script, str(module)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(self._process.wait, PATIENCE)
        stack.callback(self._process.kill)
        stack.enter_context(self._process.stdout)  # type: ignore[arg-type]
        stack.enter_context(self._process.stdin)  # type: ignore[arg-type]

    def evaluate(self, script: str) -> Any:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(script) + "\n")
        stdin.flush()
        answer = json.loads(stdout.readline())
        assert "error" not in answer, answer
        return answer["value"]


class Browser(Runtime):
    """One that has pages, a mouse and a keyboard."""

    @abstractmethod
    def run(self, code: str) -> str:
        """The string that a promise gives."""

    def evaluate(self, script: str) -> Any:
        return json.loads(self.run(in_json(script)))

    def read(self, expression: str) -> Any:
        """The value of an expression, or of the promise that it gives, on any page."""
        return json.loads(self.run(as_json(expression)))

    def click(self, element: str) -> None:
        """Click into the middle of an element, by the expression that gives it."""
        self.click_at(*map(round, self.read(MIDDLE % element)))

    @abstractmethod
    def click_at(self, x: int, y: int) -> None:
        """Move the mouse there, and click."""

    @abstractmethod
    def press(self, key: str) -> None:
        """Press a key of `KEYS`, or one with a character."""


#: Keys by their names, and what WebDriver calls them.
KEYS = {
    "Delete": "\ue017",
    "End": "\ue010",
    "Enter": "\ue007",
    "Escape": "\ue00c",
    "Space": " ",
    "Tab": "\ue004",
}


class Chromium(Browser):
    def __init__(self, stack: ExitStack, directory: Path) -> None:
        from tests.browser import chromium

        self.browser = stack.enter_context(chromium())
        self._page = self.browser.new_page()
        self._page.set_default_timeout(PATIENCE * 1000)

    def go(self, url: str) -> None:
        self._page.goto(url)

    def run(self, code: str) -> str:
        return str(self._page.evaluate(code))

    def click_at(self, x: int, y: int) -> None:
        self._page.mouse.click(x, y)

    def press(self, key: str) -> None:
        self._page.keyboard.press(key)


class Firefox(Browser):
    """Debian's Firefox, by WebDriver BiDi, which is JSON over a WebSocket."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        port = free_port()
        command = [program("firefox-esr", "firefox-esr"), "--headless", "--no-remote"]
        command += ["--profile", str(directory), "--remote-debugging-port", str(port)]
        environment = {
            "HOME": str(directory),
            "PATH": "/usr/bin:/bin",
            "MOZ_DISABLE_CONTENT_SANDBOX": "1",
        }
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        stack.callback(process.wait, PATIENCE)
        stack.callback(process.kill)
        self._number = 0
        # Its first start makes a profile, which takes a busy machine long; it answers meanwhile,
        # but begins no session.
        self._patience = 2 * PATIENCE
        opening = eventually(lambda: self._open(port), "Firefox to answer", self._patience, 0.2)
        self._connection = stack.enter_context(opening)
        self._do("session.new", capabilities={})
        # In the tab that it opens by itself the focus is in the location bar, which leaves the page
        # the keys, but none that presses a button.
        self._context = self._do("browsingContext.create", type="tab")["context"]
        self._patience = PATIENCE

    def _open(self, port: int) -> ClientConnection | None:
        address = f"ws://127.0.0.1:{port}/session"
        try:
            opening = connect(address, proxy=None, compression=None, max_size=None)
            return opening.__enter__()
        except (OSError, InvalidHandshake):
            return None

    def _do(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        self._connection.send(json.dumps(command))
        while True:
            answer = json.loads(self._connection.recv(self._patience))
            if answer.get("id") == self._number:
                assert answer["type"] == "success", answer
                return answer["result"]

    def go(self, url: str) -> None:
        self._do("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def run(self, code: str) -> str:
        answer = self._do(
            "script.evaluate",
            expression=code,
            target={"context": self._context},
            awaitPromise=True,
        )
        assert answer["type"] == "success", answer
        return str(answer["result"]["value"])

    def click_at(self, x: int, y: int) -> None:
        moves = [{"type": "pointerMove", "x": x, "y": y}]
        moves += [{"type": f"pointer{way}", "button": 0} for way in ("Down", "Up")]
        self._act(type="pointer", id="mouse", actions=moves)

    def press(self, key: str) -> None:
        presses = [{"type": f"key{way}", "value": KEYS.get(key, key)} for way in ("Down", "Up")]
        self._act(type="key", id="keyboard", actions=presses)

    def _act(self, **source: Any) -> None:
        self._do("input.performActions", context=self._context, actions=[source])


@contextmanager
def runtime(name: str, directory: Path) -> Iterator[Runtime]:
    with ExitStack() as stack:
        kinds = {"node": Node, "chromium": Chromium, "firefox": Firefox}
        yield kinds[name](stack, directory)
