"""docs/commands.rst has each command."""

from __future__ import annotations

import re

from flask_uwsgi_websocket.__main__ import main
from flask_uwsgi_websocket.commands.cli import websocket
from tests.pages import PAGES

TEXT = PAGES["commands"].read_text(encoding="utf-8")


def test_each_command_has_a_section() -> None:
    assert set(re.findall(r"command-help:: (\S+)", TEXT)) == set(websocket.commands)


def test_what_needs_no_app_is_named() -> None:
    named = TEXT[TEXT.index("\nWithout an app\n") :]
    assert [name for name in main.commands if f"``{name}``" not in named] == []
