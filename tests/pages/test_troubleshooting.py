"""What docs/troubleshooting.rst says is in the log, against what the code says there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from tests.pages import PAGES
from tests.server import ROOT


@cache
def said() -> str:
    """All that the package's code can say: its strings, which a quotation may cross."""
    return "\n".join(
        text for path in ROOT.glob("flask_uwsgi_websocket/**/*.py") for text in strings(path)
    )


def strings(path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            parts = (p.value if isinstance(p, ast.Constant) else "{}" for p in node.values)
            yield "".join(map(str, parts))


def rows() -> Iterator[str]:
    """The first column of the table of our lines, each row in one line."""
    page = PAGES["troubleshooting"].read_text(encoding="utf-8")
    table = page.partition("Lines of the log\n---")[2].partition("Lines at the start")[0]
    width = len(re.findall(r"^=+", table, re.MULTILINE)[0])
    cells: list[str] = []
    for line in table.splitlines():
        if line[:2] == "``":
            cells.append(line[:width])
        elif cells and line[:1].strip() and not line.startswith("="):
            cells[-1] = f"{cells[-1].strip()} {line[:width]}"
    return (cell.strip().strip("`") for cell in cells)


ROWS = list(rows())


def test_there_are_rows() -> None:
    assert len(ROWS) > 20


@pytest.mark.parametrize("row", ROWS)
def test_the_log_says_so(row: str) -> None:
    for part in row.replace("WebSocket /x", "...").split("..."):
        # The program's own words around what differs from case to case.
        assert re.sub(r"\(\w+\)", "(%s)", part.strip()) in said(), part
