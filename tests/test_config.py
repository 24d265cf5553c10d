"""Configuration, and options of routes, that cannot be: told at once, with what is accepted."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
from flask import Blueprint, Flask

from flask_uwsgi_websocket import GeventWebSocket, WebSocket
from flask_uwsgi_websocket.codec import DeflateSettings
from flask_uwsgi_websocket.extension.config import PREFIX, SETTINGS
from flask_uwsgi_websocket.uwasp import Limits, Server, WebSocketMiddleware

LEVELS = ("LOG_OPENED", "LOG_CLOSED", "LOG_ABNORMAL", "LOG_REFUSED")

#: What each key does not take, beside what none takes.
WRONG = {
    "MAX_MESSAGE_SIZE": [None, 0, -1, 1.5, True, math.inf],
    "PING_INTERVAL": [None, -1, math.nan, math.inf, True],
    "PING_TIMEOUT": [None, 0, -1, math.nan],
    "SEND_QUEUE_SIZE": [None, -1, 1.5],
    "SEND_TIMEOUT": [None, 0, -1],
    "SEND_BUFFER": [0, -1, 1.5, True, 1 << 31],
    "MAX_RATE": [0, 5, (), (0, 1), (1, 0), (1.5, 1), (1, -1), (1, "1"), (1, 1, 1), True],
    "MAX_CONNECTIONS": [0, -1, 1.5, True, False, 1025],
    "COMPRESSION": [None, 2, {"level": 9}],
    "ALLOWED_ORIGINS": [5, True, ["https://example.com/path"]],
    "REQUEST_CONTEXT": [None, 2, -1],
    "LEGACY": [None],
    "AGGRESSIVE_PATCH": [None],
    "BACKPLANE": [0, True, "nonsense", "carrier-pigeon://x"],
    "PREFIX": [0, True, "a\tb"],
    "ROOM_MESSAGE_SIZE": [None, 0, -1, 1.5, True],
    "ROOMS_STORE": [None, 0, -1, 1.5, True],
    "MAX_ROOMS": [None, 0, -1, 1.5, True],
    "OTEL": [None, 2, -1],
    "OTEL_MESSAGES": [None, -0.1, 1.1, True, math.nan],
    **{name: [-1, 1.5, True, "LOUD", "Level 5"] for name in LEVELS},
}
WRONG_EVERYWHERE = ["25", "1MB", "", "false", b"1", object()]

RIGHT = {
    "MAX_MESSAGE_SIZE": [1, 1 << 40],
    "PING_INTERVAL": [0, 0.5, 3600],
    "PING_TIMEOUT": [0.1, 20],
    "SEND_QUEUE_SIZE": [0, 1 << 20],
    "SEND_TIMEOUT": [0.5, 20],
    "SEND_BUFFER": [None, 1, 1 << 16, (1 << 31) - 1],
    "MAX_RATE": [None, (1, 1), [20, 0.5], (1, 3600)],
    "MAX_CONNECTIONS": [None, 1, 1024],
    "COMPRESSION": [True, False, 1, DeflateSettings(level=1)],
    "ALLOWED_ORIGINS": [None, "*", ["*"], [], {"https://a.example"}, "https://*.a.example"],
    "REQUEST_CONTEXT": [True, 0],
    "LEGACY": [True, 0],
    "AGGRESSIVE_PATCH": [False],
    "BACKPLANE": [None, "memory://", "memory://name"],
    "PREFIX": ["shop", "", "shop 1"],
    "ROOM_MESSAGE_SIZE": [1, 1 << 24],
    "ROOMS_STORE": [1, 1 << 40],
    "MAX_ROOMS": [1, 1 << 20],
    "OTEL": [True, 0],
    "OTEL_MESSAGES": [0, 1, 0.05],
    **{name: [None, 0, 25, logging.INFO, "INFO", "warning"] for name in LEVELS},
}


def make_app(**config: Any) -> Flask:
    app = Flask(__name__)
    app.config.update({PREFIX + name: value for name, value in config.items()})
    return app


def test_every_key_is_tried_here() -> None:
    assert set(WRONG) == set(RIGHT) == set(SETTINGS)


@pytest.mark.parametrize("name", SETTINGS)
def test_wrong_values_are_told_with_what_is_accepted(name: str) -> None:
    for value in [*WRONG[name], *WRONG_EVERYWHERE]:
        if name == "PREFIX" and isinstance(value, str) and value not in WRONG[name]:
            continue  # that may be any
        accepted = "must be|write|begins with|only for"
        with pytest.raises(ValueError, match=f"^{PREFIX}{name}.* ({accepted}) ") as caught:
            WebSocket(make_app(**{name: value}))
        if name == "BACKPLANE" and isinstance(value, str):
            continue  # it may have a password in it
        assert repr(value) in str(caught.value) or isinstance(value, list)


def test_a_prefix_that_the_backplane_cannot_have_is_refused_at_the_start() -> None:
    app = Flask(__name__)
    app.config.update(
        UWSGI_WEBSOCKET_BACKPLANE="redis+cluster://a", UWSGI_WEBSOCKET_PREFIX="shop{}"
    )
    with pytest.raises(ValueError, match=r"UWSGI_WEBSOCKET_PREFIX: .*choose one without braces"):
        WebSocket(app)


def test_a_prefix_that_no_directory_can_be_named_for_is_refused_at_the_start() -> None:
    WebSocket(make_app(PREFIX="ä" * 42))
    with pytest.raises(ValueError, match=r"UWSGI_WEBSOCKET_PREFIX: .*255 bytes.*a shorter one"):
        WebSocket(make_app(PREFIX="ä" * 43))


def test_the_error_keeps_the_password_of_a_backplane() -> None:
    for url in ("redis://ann:s3cret@h/x", "redis:ann:s3cret@h", "redis://ann:s3cret/@h"):
        with pytest.raises(ValueError, match=f"^{PREFIX}BACKPLANE: ") as caught:
            WebSocket(make_app(BACKPLANE=url))
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("name", SETTINGS)
def test_right_values(name: str) -> None:
    for value in RIGHT[name]:
        app = make_app(**{name: value})
        WebSocket(app)
        assert app.config[PREFIX + name] == value


def test_the_error_names_the_longest_time() -> None:
    for name in ("PING_INTERVAL", "SEND_TIMEOUT"):
        with pytest.raises(ValueError, match="1,000,000,000 at most"):
            WebSocket(make_app(**{name: 1e10}))


def test_nothing_is_patched_with_a_wrong_value() -> None:
    with pytest.raises(ValueError, match="AGGRESSIVE_PATCH is 'no': it must be True or False"):
        GeventWebSocket(make_app(AGGRESSIVE_PATCH="no"))


def test_a_value_that_is_set_later_is_checked_by_the_handshake(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = make_app()
    websocket = WebSocket(app)
    websocket.add_url_rule("/", "x", lambda ws: ws.send("hello"))
    app.config[PREFIX + "PING_INTERVAL"] = "25"
    with pytest.raises(Exception, match="500 INTERNAL"):
        websocket.test_client().connect("/")
    assert "PING_INTERVAL is '25': it must be a number of seconds" in caplog.text
    app.config[PREFIX + "PING_INTERVAL"] = 20
    with websocket.test_client().connect("/") as conn:
        assert conn.receive() == "hello"


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("UWSGI_WEBSOCKET_PING_INTERVALL", ": did you mean UWSGI_WEBSOCKET_PING_INTERVAL?"),
        ("UWSGI_WEBSOCKETS_COMPRESSION", ": did you mean UWSGI_WEBSOCKET_COMPRESSION?"),
        ("UWSGI_WEBSOCKET_LEGACY_BYTES", ": did you mean UWSGI_WEBSOCKET_LEGACY?"),
        ("UWSGI_WEBSOCKET_X", ""),
    ],
)
def test_an_unknown_key_is_warned_of(caplog: pytest.LogCaptureFixture, key: str, hint: str) -> None:
    app = Flask(__name__)
    app.config[key] = 1
    app.config["UWSGI_OTHER"] = 1
    with caplog.at_level(logging.WARNING):
        WebSocket(app)
    assert [record.getMessage() for record in caplog.records] == [
        f"unknown configuration key {key}{hint}"
    ]


@pytest.mark.parametrize("timeout", ["5", None, -1, math.nan, True])
def test_the_extension_s_timeout(timeout: Any) -> None:
    with pytest.raises(ValueError, match=r"^timeout is .* must be a number of seconds"):
        WebSocket(timeout=timeout)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"subprotocols": "chat"}, TypeError, "subprotocols of route /x is 'chat': it is a list"),
        ({"subprotocols": None}, TypeError, "it is a list"),
        ({"subprotocols": {"a", "b"}}, TypeError, "in the order of preference"),
        ({"subprotocols": ["a b"]}, ValueError, "has 'a b' in it"),
        ({"subprotocols": ["a,b"]}, ValueError, "has 'a,b' in it"),
        ({"subprotocols": [b"a"]}, ValueError, "has b'a' in it"),
        ({"subprotocols": [""]}, ValueError, "has '' in it"),
        ({"max_message_size": "1MB"}, ValueError, "max_message_size of route /x is '1MB': it must"),
        ({"max_message_size": 0}, ValueError, "1 or more"),
        ({"max_rate": 5}, ValueError, "max_rate of route /x is 5: it must be False for any or"),
        ({"max_rate": (1, True)}, ValueError, "from 1 to 1,000,000,000 and seconds"),
        ({"max_rate": (10**400, 1)}, ValueError, "from 1 to 1,000,000,000 and seconds"),
        ({"max_connections": 0}, ValueError, "max_connections of route /x is 0: it must be False"),
        ({"max_connections": True}, ValueError, "a whole number, from 1 to 1024"),
        ({"compression": "yes"}, ValueError, "DeflateSettings"),
        ({"lazy": "no"}, ValueError, "True or False"),
        ({"origins": 5}, ValueError, "origins of route /x: 5 is no origin"),
        ({"subprotocol": ["a"]}, TypeError, "no option subprotocol: did you mean subprotocols?"),
        ({"max_size": 5}, TypeError, "no option max_size: did you mean max_message_size?"),
        ({"strict_slash": 5}, TypeError, "no option strict_slash: did you mean strict_slashes?"),
        ({"anything": 5}, TypeError, "no option anything$"),
    ],
)
def test_options_of_routes(options: dict[str, Any], error: type, text: str) -> None:
    websocket = WebSocket()
    text = text.replace("?", r"\?")
    with pytest.raises(error, match=text):
        websocket.route("/x", **options)(lambda ws: None)
    blueprint = Blueprint("b", __name__)
    blueprint.add_url_rule("/x", "x", lambda ws: None, **options)
    with pytest.raises(error, match=text):
        websocket.register_blueprint(blueprint)


@pytest.mark.parametrize("name", ["timeout", "ping_timeout", "max_message_size", "send_queue_size"])
def test_limits_of_uwasp(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} is '5': it must be a"):
        Limits(**{name: "5"})  # type: ignore[arg-type]


def test_compression_of_uwasp() -> None:
    with pytest.raises(ValueError, match=r"^compression is 'yes': it must be True, False or a"):
        WebSocketMiddleware(Flask(__name__), servers=[("/", Server)], compression="yes")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["level", "server_max_window_bits", "threshold"])
def test_settings_of_compression(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} is '9': it must be a whole number"):
        DeflateSettings(**{name: "9"})  # type: ignore[arg-type]
