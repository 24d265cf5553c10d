"""The site builds without a warning, and the code on its pages works: see tests/pages."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pages import (
    PAGES,
    Block,
    blocks_of,
    nameless_blocks,
    scenery,
    test_terminal,
    without_patches,
)
from tests.pages.checks import CHECKS
from tests.pages.console import check, commands, programs, serves, uwsgi_commands
from tests.server import ROOT

BLOCKS = [block for name in PAGES for block in blocks_of(name)]
RUN = [block for block in BLOCKS if not block.excuse]


def in_language(*names: str) -> list[Block]:
    return [block for block in RUN if block.language in names and not is_run_elsewhere(block)]


# The blocks that tests/pages/test_PAGE.py runs


def parts_run(name: str) -> Iterator[str]:
    """What the tests of a page call its blocks by, to run them."""
    yield from test_terminal.BLOCKS.get(name, ())
    tests = ROOT / f"tests/pages/test_{name}.py"
    if not tests.exists():
        return
    for node in ast.walk(ast.parse(tests.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in {"run", "code"} and node.args:
                yield from strings(node.args[0])
            elif node.func.attr == "parametrize" and "part" in ast.unparse(node.args[0]):
                yield from strings(node.args[1])


def strings(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


PARTS = {name: set(parts_run(name)) for name in PAGES}


def is_run_elsewhere(block: Block) -> bool:
    return any(part in block.text for part in PARTS[block.page])


# All blocks


@pytest.mark.parametrize("name", PAGES)
def test_each_block_says_its_language(name: str) -> None:
    known = {*CHECKS, "python", "console"}
    assert nameless_blocks(name) == []
    assert [f"{b}: {b.language}" for b in blocks_of(name) if b.language not in known] == []


@pytest.mark.parametrize("block", in_language(*CHECKS), ids=str)
def test_a_block_is_read_by_what_it_is_for(block: Block, tmp_path: Path) -> None:
    CHECKS[block.language](block.text, tmp_path)


# Python


def defines(block: Block) -> bool:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return any(isinstance(node, kinds) for node in ast.walk(ast.parse(block.text)))


@pytest.mark.parametrize("block", in_language("python"), ids=str)
def test_a_block_of_python_runs(block: Block) -> None:
    assert not defines(block), f"run what it defines, in tests/pages/test_{block.page}.py"
    exec(compile(without_patches(block.text), str(block), "exec"), scenery())


# Commands

CONSOLE = [block for block in BLOCKS if block.language == "console"]


@pytest.mark.parametrize("block", CONSOLE, ids=str)
def test_commands(block: Block) -> None:
    assert commands(block.text), "no line begins with '$ '"
    check(block.text)
    if not block.excuse and not is_run_elsewhere(block):
        assert programs(block.text) <= {"uwsgi"}, "run it in tests/pages/, or say why it is not run"


UWSGI = {line: None for block in in_language("console") for line in uwsgi_commands(block.text)}


@pytest.mark.slow
@pytest.mark.parametrize("command", UWSGI)
def test_uwsgi_starts_by_a_command(command: str, tmp_path: Path) -> None:
    serves(command, tmp_path)


# Files


@pytest.mark.parametrize("name", PAGES)
def test_included_files_are_those_that_other_tests_run(name: str) -> None:
    text = PAGES[name].read_text(encoding="utf-8")
    included = re.findall(r"^ *\.\. literalinclude:: (\S+)", text, re.MULTILINE)
    tested = ("../examples/", "../docs/deploy/", "deploy/", "monitoring/")
    assert [file for file in included if not file.startswith(tested)] == []
