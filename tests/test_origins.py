"""Whose pages may open WebSockets: origins in every spelling, as sent and as configured."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from flask import Flask

from flask_uwsgi_websocket import WebSocket
from flask_uwsgi_websocket.helpers.log import RateLimit
from flask_uwsgi_websocket.session import origins
from flask_uwsgi_websocket.session.origins import is_allowed, normal_origin, parse_origins
from flask_uwsgi_websocket.testing import HandshakeRejected
from flask_uwsgi_websocket.uwasp import Server, WebSocketMiddleware


@pytest.mark.parametrize(
    ("origin", "normal"),
    [
        ("https://example.com", "https://example.com"),
        ("HTTPS://Example.COM/", "https://example.com"),
        ("https://example.com:443", "https://example.com"),
        ("http://example.com:80/", "http://example.com"),
        ("http://example.com:443", "http://example.com:443"),
        ("https://example.com:08443", "https://example.com:8443"),
        ("https://example.com:", "https://example.com"),
        ("http://[::1]:5000", "http://[::1]:5000"),
        ("http://[0:0:0:0:0:0:0:1]:80", "http://[::1]"),
        ("http://[2001:DB8::00FF]", "http://[2001:db8::ff]"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("https://BÜCHER.example", "https://xn--bcher-kva.example"),
        ("https://XN--bcher-kva.example", "https://xn--bcher-kva.example"),
        ("https://straße.example", "https://xn--strae-oqa.example"),
        ("https://例え。テスト", "https://xn--r8jz45g.xn--zckzah"),
        ("https://bücher.example".encode().decode("latin-1"), "https://xn--bcher-kva.example"),
        ("null", "null"),
        ("file://", "file://"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ("", None),
        ("*", None),
        ("example.com", None),
        ("//example.com", None),
        ("https://", None),
        ("https:///", None),
        ("https://example.com/path", None),
        ("https://example.com?x", None),
        ("https://user@example.com", None),
        ("https://example.com:65536", None),
        ("https://example.com:x", None),
        ("https://[::1", None),
        ("https://[1:2]", None),
        ("https://exa mple.com", None),
        ("https://a, https://b", None),
        ("https://example.com\\@evil.example", None),
        ("https://evil\x1b.example", None),
    ],
)
def test_the_normal_form(origin: str, normal: str | None) -> None:
    assert normal_origin(origin) == normal


@pytest.mark.parametrize(
    ("allowed", "origin", "host", "is_"),
    [
        (None, None, "a.example", True),
        (None, "https://a.example", "A.example", True),
        (None, "https://a.example", "a.example:443", True),
        (None, "http://a.example:80", "a.example", True),
        (None, "https://a.example", "a.example:80", False),
        (None, "https://a.example:8443", "a.example", False),
        (None, "http://[::1]:5000", "[0::1]:5000", True),
        (None, "https://xn--bcher-kva.example", "bücher.example", True),
        (None, "https://a.example.evil.example", "a.example", False),
        (None, "null", "null", False),
        (None, "file://", "", False),
        ("*", "null", "a.example", True),
        (["*"], "rubbish", "a.example", True),
        (("https://b.example", "*"), "https://c.example", "a.example", True),
        ([], "https://a.example", "a.example", False),
        ("https://B.example:443/", "https://b.example", "a.example", True),
        (["https://b.example"], "https://b.example:443", "a.example", True),
        (["https://b.example"], "http://b.example", "a.example", False),
        (["https://b.example"], "https://b.example:8443", "a.example", False),
        (["http://[0::1]"], "http://[::1]", "a.example", True),
        (["https://bücher.example"], "https://xn--bcher-kva.example", "a.example", True),
        ({"null"}, "null", "a.example", True),
        (["file://"], "file://", "a.example", True),
        (["null"], "rubbish", "a.example", False),
    ],
)
def test_who_is_allowed(allowed: Any, origin: str | None, host: str, is_: bool) -> None:
    assert is_allowed(origin, host, allowed) is is_


@pytest.mark.parametrize(
    ("origin", "is_"),
    [
        ("https://www.example.com", True),
        ("https://a.b.example.com", True),
        ("https://WWW.example.com:443", True),
        ("https://example.com", False),
        ("https://.example.com", False),
        ("https://evil-example.com", False),
        ("https://evilexample.com", False),
        ("https://example.com.evil.example", False),
        ("http://www.example.com", False),
        ("https://www.example.com:8443", False),
        ("https://evil.example/.example.com", False),
    ],
)
def test_a_pattern_is_for_the_hosts_below(origin: str, is_: bool) -> None:
    assert is_allowed(origin, "a.example", "https://*.Example.com/") is is_


def test_a_pattern_with_a_port() -> None:
    allowed = ["https://*.example.com:8443"]
    assert is_allowed("https://www.example.com:8443", "a.example", allowed)
    assert not is_allowed("https://www.example.com", "a.example", allowed)


@pytest.mark.parametrize(
    "wrong",
    [
        "example.com",
        "https://example.com/app",
        "wss://example.com",
        "https://*",
        "https://*example.com",
        "https://www.*.com",
        "*.example.com",
        "",
        "https://a.example,https://b.example",
        [None],
        [b"https://a.example"],
    ],
)
def test_what_is_no_origin_is_refused_at_once(wrong: Any) -> None:
    expected = pytest.raises(ValueError, match=r"is no origin: write 'https://example\.com'")
    with expected:
        parse_origins(wrong)
    with expected:
        WebSocket().add_url_rule("/x", "x", lambda ws: None, origins=wrong)
    with expected:
        WebSocketMiddleware(Flask(__name__), servers=[("/x", Server)], origins=wrong)


def test_refusals_do_not_fill_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origins, "_refusals", RateLimit(3))
    websocket = WebSocket(Flask(__name__))
    websocket.add_url_rule("/x", "x", lambda ws: None)
    for number in range(10):
        with pytest.raises(HandshakeRejected):
            websocket.test_client().connect("/x", origin=f"https://{number}.example")
    assert [record.args[1].split()[1] for record in caplog.records] == [
        f"https://{number}.example" for number in range(3)
    ]


def test_the_log_names_what_to_set(caplog: pytest.LogCaptureFixture) -> None:
    app = Flask(__name__)
    websocket = WebSocket(app)
    websocket.add_url_rule("/<room>", "room", lambda ws, room: None)
    websocket.add_url_rule("/own", "own", lambda ws: None, origins=[])

    def refused(path: str, origin: str) -> str:
        caplog.clear()
        with pytest.raises(HandshakeRejected) as caught, caplog.at_level(logging.WARNING):
            websocket.test_client().connect(path, origin=origin)
        assert caught.value.status == 403
        assert "\x1b" not in caught.value.response.text
        (record,) = caplog.records
        assert "\n" not in record.getMessage()
        assert "\x1b" not in record.getMessage()
        return record.getMessage()

    said = refused("/café", "HTTPS://Bücher.example:443")
    assert "WebSocket /café refused" in said
    assert "add 'https://xn--bcher-kva.example' to UWSGI_WEBSOCKET_ALLOWED_ORIGINS" in said
    app.config["UWSGI_WEBSOCKET_ALLOWED_ORIGINS"] = ["https://bücher.example"]
    websocket.test_client().connect("/café", origin="HTTPS://Bücher.example:443").close()
    assert "to the route's origins=" in refused("/own", "https://b.example")
    said = refused("/a%0aforged%1b[31m", "https://evil\x1b[2J.example")
    assert "/a\\nforged\\x1b[31m refused" in said
    assert "https://evil\\x1b[2J.example is none" in said
