"""docs/configuration.rst has the options that the code has, with their defaults."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

from flask_uwsgi_websocket.extension import config
from flask_uwsgi_websocket.extension.routing import WebSocketRule
from flask_uwsgi_websocket.rooms.options import RoomOptions
from tests.pages import PAGES
from tests.server import ROOT

PARTS = re.split(r"^(.+)\n-+\n", PAGES["configuration"].read_text(), flags=re.MULTILINE)
SECTIONS = dict(zip(PARTS[1::2], PARTS[2::2], strict=True))
UNITS = {"": 1, " KiB": 1 << 10, " MiB": 1 << 20}


def table(title: str) -> dict[str, Any]:
    """The names in the table of a section, and their defaults."""
    rows = re.findall(r"^``(\w+)`` +(\S.*?)  +\S", SECTIONS[title], re.MULTILINE)
    return {name: value(cell) for name, cell in rows}


def value(cell: str) -> Any:
    if found := re.fullmatch(r"(\d+)( [KM]iB)?", cell):
        return int(found[1]) * UNITS[found[2] or ""]
    return eval(cell.strip("`"))


def test_the_keys_of_an_app() -> None:
    assert table("The app") == {
        config.PREFIX + name: setting.default for name, setting in config.SETTINGS.items()
    }


def test_the_options_of_a_route() -> None:
    parameters = inspect.signature(WebSocketRule).parameters.values()
    ours = [each for each in parameters if each.kind is each.KEYWORD_ONLY]
    # A list reads better than the tuple that it is.
    assert {**table("Routes"), "subprotocols": ()} == {each.name: each.default for each in ours}


def test_the_options_of_a_room() -> None:
    fields = dataclasses.fields(RoomOptions)
    assert table("Rooms") == {field.name: field.default for field in fields}


def test_the_variables() -> None:
    package = "".join(
        path.read_text(encoding="utf-8") for path in ROOT.glob("flask_uwsgi_websocket/**/*.py")
    )
    inner = {"FLASK_UWSGI_SCRIPT", "FLASK_UWSGI_WATCH"}  # from us to us
    known = set(re.findall(r"\bFLASK_UWSGI_[A-Z]+", package)) - inner
    assert set(re.findall(r"^``(\w+)``", SECTIONS["The environment"], re.MULTILINE)) == known
