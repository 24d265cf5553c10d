"""The opening handshake, RFC 6455 section 4, both sides."""

from __future__ import annotations

import base64
import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import EnvironHeaders, Headers

from flask_uwsgi_websocket.codec import (
    Extension,
    UpgradeResponse,
    accept_key,
    request_headers,
    response_headers,
    select_subprotocol,
    validate_request,
    validate_response,
)
from flask_uwsgi_websocket.codec.handshake import (
    MAX_FIELD,
    new_key,
    parse_extensions,
    parse_tokens,
)
from flask_uwsgi_websocket.exceptions import HandshakeError, LocalProtocolError

KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def request(**fields: str) -> Headers:
    """A right request's header fields, some of them replaced."""
    headers = Headers(request_headers("server.example.com", KEY))
    for name, value in fields.items():
        headers[name.replace("_", "-")] = value
    return headers


def refused(headers: Headers, method: str = "GET", version: str = "HTTP/1.1") -> HandshakeError:
    with pytest.raises(HandshakeError) as caught:
        validate_request(method, headers, version)
    return caught.value


# The server's side


def test_the_example_of_the_rfc() -> None:
    assert accept_key(KEY) == ACCEPT
    request = validate_request(
        "GET",
        {
            "Host": "server.example.com",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": KEY,
            "Origin": "http://example.com",
            "Sec-WebSocket-Protocol": "chat, superchat",
            "Sec-WebSocket-Version": "13",
        },
    )
    assert request.key == KEY
    assert request.origin == "http://example.com"
    assert request.subprotocols == ("chat", "superchat")
    assert request.extensions == ()
    assert response_headers(request.key, "chat") == [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", ACCEPT),
        ("Sec-WebSocket-Protocol", "chat"),
    ]


def test_a_wsgi_environ() -> None:
    environ = {
        "HTTP_HOST": "localhost",
        "HTTP_UPGRADE": "websocket",
        "HTTP_CONNECTION": "keep-alive, Upgrade",
        "HTTP_SEC_WEBSOCKET_KEY": KEY,
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "HTTP_SEC_WEBSOCKET_EXTENSIONS": "x; y",
    }
    request = validate_request("GET", EnvironHeaders(environ))
    assert request.origin is None
    assert request.extensions == (Extension("x", (("y", None),)),)


@pytest.mark.parametrize("upgrade", ["websocket", "WebSocket", "h2c,websocket", "a , websocket "])
@pytest.mark.parametrize("connection", ["Upgrade", "upgrade", "keep-alive, Upgrade", "x,UPGRADE,"])
def test_lists_of_tokens_in_any_case(upgrade: str, connection: str) -> None:
    assert validate_request("GET", request(Upgrade=upgrade, Connection=connection)).key == KEY


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "OPTIONS", "get"])
def test_only_get(method: str) -> None:
    error = refused(request(), method)
    assert error.status == 405
    assert ("Allow", "GET") in error.headers


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/0.9"])
def test_http_1_1_at_least(version: str) -> None:
    assert refused(request(), version=version).status == 400
    assert validate_request("GET", request(), "HTTP/2").key == KEY


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Host", ""),
        ("Upgrade", ""),
        ("Upgrade", "websockets"),
        ("Upgrade", "web socket"),
        ("Connection", ""),
        ("Connection", "keep-alive"),
        ("Connection", "Upgraded"),
    ],
)
def test_fields_that_must_be_right(name: str, value: str) -> None:
    error = refused(request(**{name: value}))
    assert error.status == 400
    assert name in error.reason


@pytest.mark.parametrize("version", ["", "0", "8", "12", "14", "13, 8", "013", "x"])
def test_other_versions_are_told_ours(version: str) -> None:
    error = refused(request(Sec_WebSocket_Version=version))
    assert error.status == 426
    assert ("Sec-WebSocket-Version", "13") in error.headers


@pytest.mark.parametrize(
    "key",
    [
        "",
        "short",
        KEY[:-1],
        KEY + "=",
        KEY[:-2] + "AA",
        f"{KEY}, {KEY}",
        base64.b64encode(bytes(15)).decode(),
        base64.b64encode(bytes(17)).decode(),
        base64.urlsafe_b64encode(b"\xff" * 16).decode(),
    ],
)
def test_wrong_keys(key: str) -> None:
    assert refused(request(Sec_WebSocket_Key=key)).status == 400


@given(st.binary(min_size=16, max_size=16))
def test_every_key_of_16_octets(nonce: bytes) -> None:
    key = base64.b64encode(nonce).decode()
    assert validate_request("GET", request(Sec_WebSocket_Key=f" {key} ")).key == key


@pytest.mark.parametrize("key", ["AQIDBAUGBwgJCgsMDQ4PEC==", KEY[:-3] + "/=="])
def test_bits_of_a_key_that_decode_to_nothing_may_be_any(key: str) -> None:
    # The first is the RFC's own example, 4.1.
    assert validate_request("GET", request(Sec_WebSocket_Key=key)).key == key


def test_subprotocols() -> None:
    def offered(value: str) -> tuple[str, ...]:
        return validate_request("GET", request(Sec_WebSocket_Protocol=value)).subprotocols

    assert offered("") == ()
    assert offered("a") == ("a",)
    assert offered("b,a,\tv1.chat+json , ,") == ("b", "a", "v1.chat+json")
    for wrong in ("a b", "a;b", 'a,"b"', "a/b", "é", "a, a", "a,b,a"):
        assert refused(request(Sec_WebSocket_Protocol=wrong)).status == 400


def test_select_subprotocol_goes_by_the_servers_order() -> None:
    assert select_subprotocol(("a", "b"), ("b", "a")) == "b"
    assert select_subprotocol(iter(("a", "b")), ["c", "b"]) == "b"
    assert select_subprotocol(("a",), ()) is None
    assert select_subprotocol((), ("a",)) is None


def test_response_headers_cannot_be_injected() -> None:
    for wrong in ("a b", "a\r\nSet-Cookie: x", ""):
        with pytest.raises(LocalProtocolError):
            response_headers(KEY, wrong)


# Lists


@pytest.mark.parametrize(
    ("value", "extensions"),
    [
        ("", ()),
        (" , ,", ()),
        ("a", (Extension("a"),)),
        ("a,b", (Extension("a"), Extension("b"))),
        (" ,a\t,, b,", (Extension("a"), Extension("b"))),
        ("a;x", (Extension("a", (("x", None),)),)),
        ("a ; x = 1 ;y", (Extension("a", (("x", "1"), ("y", None))),)),
        ('a; x="1"', (Extension("a", (("x", "1"),)),)),
        (r'a; x="\1\2", b', (Extension("a", (("x", "12"),)), Extension("b"))),
        ("a; x, a; y", (Extension("a", (("x", None),)), Extension("a", (("y", None),)))),
    ],
)
def test_extensions(value: str, extensions: tuple[Extension, ...]) -> None:
    assert parse_extensions(value) == extensions


@pytest.mark.parametrize(
    "value",
    [
        *("a b", ";", "a;", "a; ", "a;;x", "a; =1", "a; x=", "a; x y", "a; x=1 2", "a=1", "a/1"),
        *('"a"', 'a; x="', 'a; x="1', 'a; x="1"2', 'a; x=""', 'a; x="1 2"', 'a; x="1,2"', "é"),
        *('a; "x"', 'a; x="1\\"', "a; x='", "a\n", "a; x=\x00"),
    ],
)
def test_malformed_extensions(value: str) -> None:
    if value == "a; x='":  # an apostrophe is a token
        assert parse_extensions(value) == (Extension("a", (("x", "'"),)),)
        return
    with pytest.raises(HandshakeError) as caught:
        parse_extensions(value)
    assert caught.value.status == 400


def test_fields_are_limited() -> None:
    for name in ("Upgrade", "Connection", "Sec_WebSocket_Protocol", "Sec_WebSocket_Extensions"):
        error = refused(request(**{name: "a" * (MAX_FIELD + 1)}))
        assert error.status == 431
        assert name.replace("_", "-") in error.reason


@pytest.mark.parametrize(
    "nasty", ["a;" * 5000, "a; x=" + '"' + "\\" * 8000, "," * 8192, " " * 8192, "a" + " " * 8000]
)
def test_parsing_takes_no_time(nasty: str) -> None:
    started = time.process_time()
    for parse in (parse_extensions, lambda value: parse_tokens("X", value)):
        with contextlib.suppress(HandshakeError):
            parse(nasty[:MAX_FIELD])
    assert time.process_time() - started < 0.5


@given(st.text(alphabet='a1;=", \\\t\x00é', max_size=40))
def test_parsing_raises_nothing_else(value: str) -> None:
    extensions: tuple[Extension, ...] = ()
    with contextlib.suppress(HandshakeError):
        extensions = parse_extensions(value)
    said = ", ".join(
        "; ".join([extension.name, *(f"{n}={v}" if v else n for n, v in extension.parameters)])
        for extension in extensions
    )
    assert parse_extensions(said) == extensions


# The client's side


def answer(**fields: str) -> Headers:
    headers = Headers(response_headers(KEY))
    for name, value in fields.items():
        headers[name.replace("_", "-")] = value
    return headers


def test_both_sides_understand_each_other() -> None:
    key = new_key()
    asked = request_headers(
        "localhost", key, subprotocols=("a", "b"), extensions="x; y=1", origin="http://localhost"
    )
    request = validate_request("GET", Headers(asked))
    assert request.subprotocols == ("a", "b")
    assert request.origin == "http://localhost"
    said = Headers(response_headers(request.key, "b", "x; y=1"))
    response = validate_response(101, said, key, ("a", "b"))
    assert response == UpgradeResponse("b", (Extension("x", (("y", "1"),)),))


def test_keys_differ() -> None:
    assert new_key() != new_key()


def test_an_answer_without_anything() -> None:
    assert validate_response(101, answer(), KEY) == UpgradeResponse(None, ())


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (200, {}),
        (426, {}),
        (101, {"Upgrade": "h2c"}),
        (101, {"Upgrade": ""}),
        (101, {"Connection": "close"}),
        (101, {"Sec_WebSocket_Accept": ""}),
        (101, {"Sec_WebSocket_Accept": ACCEPT.lower()}),
        (101, {"Sec_WebSocket_Protocol": "c"}),
        (101, {"Sec_WebSocket_Protocol": "a, b"}),
        (101, {"Sec_WebSocket_Extensions": "a;"}),
    ],
)
def test_answers_that_a_client_refuses(status: int, fields: dict[str, str]) -> None:
    with pytest.raises(HandshakeError):
        validate_response(status, answer(**fields), KEY, ("a", "b"))
