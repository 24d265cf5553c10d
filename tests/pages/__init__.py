"""The code blocks of README.rst and docs/, as the tests run and check them.

`Page` runs the Python of one. `checks` has what the other languages are checked by, `console` the
commands. A block that none of them can run has a comment right before it, which the reader of the
page does not see: `.. not run: REASON`.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flask

import flask_uwsgi_websocket

ROOT = Path(__file__).resolve().parent.parent.parent

#: Every page, by the name that the file of its tests has: tests/pages/test_NAME.py.
PAGES = {
    "readme": ROOT / "README.rst",
    "contributing": ROOT / "CONTRIBUTING.rst",
    "changes": ROOT / "CHANGES.rst",
    **{path.stem: path for path in sorted(ROOT.glob("docs/*.rst"))},
}
# They are included by pages of the site.
PAGES["contributing"], PAGES["changes"] = ROOT / "CONTRIBUTING.rst", ROOT / "CHANGES.rst"

MARK = re.compile(r"\.\. not run: (.+)")
DIRECTIVE = re.compile(r"( *)\.\. code-block:: *(\S*)$")
#: A literal block whose language nobody is told.
NAMELESS = re.compile(r"^(?!.*\.\. \w).*::$")
#: Other ways to write a block.
FOREIGN = re.compile(r" *(\.\. (code|sourcecode|highlight|parsed-literal|testcode)::|>>> )")


@dataclass(frozen=True)
class Block:
    """A code block: where it is, its language, its text, and why it is not run, if it is not."""

    page: str
    line: int
    language: str
    text: str
    excuse: str | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(name: str) -> list[Block]:
    lines = PAGES[name].read_text(encoding="utf-8").splitlines()
    return list(_blocks(name, lines))


def _blocks(name: str, lines: list[str]) -> Iterator[Block]:
    excuse: str | None = None
    for number, line in enumerate(lines):
        if found := MARK.fullmatch(line.strip()):
            excuse = found[1]
        elif found := DIRECTIVE.match(line):
            body = list(_indented(lines[number + 1 :], len(found[1])))
            yield Block(name, number + 1, found[2], _text(body), excuse)
            excuse = None
        elif line.strip():
            excuse = None


def _indented(lines: list[str], margin: int) -> Iterator[str]:
    for line in lines:
        if line.strip() and len(line) - len(line.lstrip()) <= margin:
            return
        yield line


def _text(body: list[str]) -> str:
    """What a directive holds, without its options."""
    while body and re.match(r" +:[\w-]+:", body[0]):
        body = body[1:]
    return textwrap.dedent("\n".join(body)).strip("\n") + "\n"


def nameless_blocks(name: str) -> list[str]:
    """The lines of a page that begin a block in a way that hides it from its tests."""
    lines = enumerate(PAGES[name].read_text(encoding="utf-8").splitlines(), 1)
    return [
        f"{name}:{number}: {line}"
        for number, line in lines
        if NAMELESS.match(line) or FOREIGN.match(line)
    ]


def without_patches(code: str) -> str:
    """Python that leaves the standard library of the process that runs the tests as it is."""
    return code.replace("GeventWebSocket", "WebSocket")


def scenery(**names: Any) -> dict[str, Any]:
    """What a block takes for granted: an app, an extension, and all names of both packages."""
    app = flask.Flask("shop")
    app.secret_key = "x"
    return {
        **vars(flask_uwsgi_websocket),
        **vars(flask),
        "__name__": "shop",
        "app": app,
        "websocket": flask_uwsgi_websocket.WebSocket(app),
        **names,
    }


class Page:
    """The code of a page, for the tests that run it.

    :param name: the page's file, without its folder and end.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.blocks = blocks_of(name)

    def code(self, part: str) -> str:
        """The one block with this in it."""
        found = [block.text for block in self.blocks if part in block.text]
        assert len(found) == 1, f"{len(found)} blocks of {self.name} have {part!r} in them"
        return found[0]

    def run(self, part: str, /, inside: str | None = None, **names: Any) -> dict[str, Any]:
        """Run the Python block with this in it; return all names that it leaves.

        :param inside: the head of a function that the block is the body of: `def handler(ws):`.
        :param names: what it takes for granted besides an app and its `websocket`.
        """
        code = without_patches(self.code(part))
        if inside:
            code = inside + "\n" + textwrap.indent(code, "    ")
        surroundings = scenery(**names)
        exec(compile(code, f"{self.name}.rst", "exec"), surroundings)
        return surroundings
