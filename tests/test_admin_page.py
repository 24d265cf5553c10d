"""The admin page in real browsers, in front of a real app with two workers."""

from __future__ import annotations

import subprocess

import flask_uwsgi_websocket
from tests.js_clients import program
from tests.server import ROOT

STATIC = ROOT / flask_uwsgi_websocket.__name__ / "monitoring/admin/static"


def test_its_scripts_are_typed() -> None:
    command = [program("tsc", "node-typescript"), "--noEmit", "--allowJs", "--checkJs", "--strict"]
    command += ["--module", "es2022", "--target", "es2022", "--moduleResolution", "node"]
    command += ["--lib", "es2022,dom,dom.iterable", str(STATIC / "admin.js")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


def test_no_script_is_long() -> None:
    lines = {path.name: len(path.read_text().splitlines()) for path in STATIC.glob("*.js")}
    assert max(lines.values()) <= 350, lines
