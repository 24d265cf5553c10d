"""The code of docs/origins.rst, as it stands there, and what the page says of the check."""

from __future__ import annotations

from typing import Any

import pytest

from flask_uwsgi_websocket.testing import HandshakeRejected
from tests.pages import Page

PAGE = Page("origins")


def status(names: dict[str, Any], path: str, origin: str | None) -> int:
    client = names["websocket"].test_client(names["app"])
    headers = {} if origin is None else {"Origin": origin}
    try:
        with client.connect(path, headers=headers) as page:
            return int(page.response.status_code)
    except HandshakeRejected as refused:
        return int(refused.response.status_code)


@pytest.fixture
def names() -> dict[str, Any]:
    names = PAGE.run("origins='*'")
    names["websocket"].add_url_rule("/chat", "chat", lambda ws: ws.send("hello"))
    return names


@pytest.mark.parametrize("path", ["/chat", "/public", "/partners"])
def test_what_passes_by_default(names: dict[str, Any], path: str) -> None:
    assert status(names, path, None) == 101
    allowed = {"/chat": "http://localhost", "/partners": "https://partner.example"}
    for origin in ("http://localhost", "https://partner.example", "https://evil.example"):
        expected = 101 if path == "/public" or allowed[path] == origin else 403
        assert status(names, path, origin) == expected, origin


def test_a_list_for_the_app(names: dict[str, Any]) -> None:
    exec(PAGE.code("'http://localhost:3000'"), names)
    for origin in ("https://example.com", "https://a.b.example.com", "http://localhost:3000"):
        assert status(names, "/chat", origin) == 101, origin
    for origin in ("http://localhost", "http://example.com", "https://evil.example"):
        assert status(names, "/chat", origin) == 403, origin
    assert status(names, "/partners", "https://example.com") == 403  # the route's list counts
