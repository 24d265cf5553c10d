"""The rooms of the package, and which way imports go between them: see CONTRIBUTING.rst."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "flask_uwsgi_websocket"

#: What still shows on a few screens, and on one.
LONGEST_FILE, LONGEST_FUNCTION = 400, 30

#: Each imports from those before it, never from those behind it.
ROOMS = [
    "helpers",
    "exceptions",
    "metrics",
    "codec",
    "process",
    "connection",
    "engines",
    "inspection",
    "servers",
    "rooms",
    "session",
    "clients",
    "testing",
    "launch",
    "monitoring",
    "extension",
    "websocket",
    "uwasp",
    "runner",
    "commands",
    "pytest_plugin",
]

MODULES = {
    path.relative_to(PACKAGE).with_suffix("").parts: ast.parse(path.read_text())
    for path in sorted(PACKAGE.rglob("*.py"))
}
Name = tuple[str, ...]


def name_of(parts: Name) -> str:
    return "/".join(parts) + ".py"


def imports_of(module: Name) -> Iterator[Name]:
    """Yield the modules of the package that one imports, wherever in it, also for its types."""
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = module[: len(module) - node.level]
            base += tuple(node.module.split(".")) if node.module else ()
            for alias in node.names:
                found = (*base, alias.name)
                is_ours = found in MODULES or (*found, "__init__") in MODULES
                yield found if is_ours else base
        elif isinstance(node, ast.ImportFrom):
            assert not (node.module or "").startswith(PACKAGE.name), name_of(module)


def test_each_room_is_in_the_order() -> None:
    rooms = {module[0] for module in MODULES} - {"__init__", "__main__"}
    assert rooms == set(ROOMS)
    contributing = (ROOT / "CONTRIBUTING.rst").read_text()
    named = [contributing.index(f"\n``{room}``") for room in ROOMS]
    assert named == sorted(named), "the map in CONTRIBUTING.rst has another order"


def test_the_journeys_lead_through_what_is_there() -> None:
    steps = re.findall(
        r"``([\w.]+)``\s+\(``((?:\w+/)+\w+\.py)``", (ROOT / "CONTRIBUTING.rst").read_text()
    )
    assert len(steps) > 15
    for name, path in steps:
        found: object = import_module(f"{PACKAGE.name}.{path[:-3].replace('/', '.')}")
        for part in name.split("."):
            found = getattr(found, part)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_one_way(room: str) -> None:
    later = ROOMS[ROOMS.index(room) + 1 :]
    wrong = [
        f"{name_of(module)} imports {name_of(imported)}"
        for module in MODULES
        if module[0] == room
        for imported in imports_of(module)
        if not imported or imported[0] in later
    ]
    assert not wrong


def test_no_circles() -> None:
    inner = {
        module: {
            imported if imported in MODULES else (*imported, "__init__")
            for imported in imports_of(module)
        }
        for module in MODULES
    }
    TopologicalSorter(inner).prepare()  # raises CycleError, which names it


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_nothing_is_too_long(module: Name) -> None:
    assert len((PACKAGE / name_of(module)).read_text().splitlines()) <= LONGEST_FILE
    for node in ast.walk(MODULES[module]):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[ast.get_docstring(node) is not None :]
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= LONGEST_FUNCTION, node.name
