"""docs/codes.rst has every code that we send, and every status that we answer with."""

from __future__ import annotations

import re

from flask_uwsgi_websocket import exceptions
from tests.pages import PAGES
from tests.server import ROOT

CLOSE, REFUSED = PAGES["codes"].read_text(encoding="utf-8").split("\nHandshakes that are refused\n")


def first_column(text: str) -> set[str]:
    return set(re.findall(r"^(\d{3,4}) ", text, re.MULTILINE))


def package() -> str:
    files = ROOT.glob("flask_uwsgi_websocket/**/*.py")
    return "".join(path.read_text(encoding="utf-8") for path in files)


def test_close_codes() -> None:
    sent = set(re.findall(r"(?<![\d:.#_])(10(?:0\d|1[0-4]))(?!\d)", package()))
    assert sent - {"1004"} <= first_column(CLOSE)


def test_statuses() -> None:
    answered = set(re.findall(r"HandshakeError\(\s*([45]\d\d),", package()))
    own = {str(kind.status) for kind in vars(exceptions).values() if hasattr(kind, "status")}
    assert answered | own == first_column(REFUSED)
