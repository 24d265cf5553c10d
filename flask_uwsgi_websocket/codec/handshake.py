"""The opening handshake, RFC 6455 section 4, without any I/O: header fields in, header fields out.

A server calls :func:`validate_request` and answers with :func:`response_headers`, or with what
:exc:`~flask_uwsgi_websocket.exceptions.HandshakeError` says. A client sends
:func:`request_headers` and calls :func:`validate_response`.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ..exceptions import HandshakeError, LocalProtocolError

#: RFC 6455 4.1: "The value of this header field MUST be 13."
VERSION: Final = "13"

#: Largest value of a header field that is parsed, in characters. uWSGI's own limit for a whole
#: request is 4 KiB unless configured; nobody's honest list of extensions is longer than this.
MAX_FIELD: Final = 8192

#: RFC 6455 1.3, 4.2.2: appended to the key; "unlikely to be used by network endpoints that do not
#: understand the WebSocket Protocol".
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

# RFC 2616 2.2 (RFC 9110 5.6.2): a token, and optional white space.
_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_OWS: Final = r"[ \t]*"

is_token = re.compile(_TOKEN).fullmatch
_match_element_start = re.compile(rf"[ \t,]*(?:({_TOKEN})|\Z)").match
_match_element_end = re.compile(rf"{_OWS}(?:,|\Z)").match
# RFC 6455 9.1: extension-param = token [ "=" (token | quoted-string) ], where "the value after
# quoted-string unescaping MUST conform to the 'token' ABNF".
_match_parameter = re.compile(
    rf'{_OWS};{_OWS}({_TOKEN})(?:{_OWS}={_OWS}(?:({_TOKEN})|"((?:[^"\\]|\\.)*)"))?'
).match
_unescape = re.compile(r"\\(.)").sub

#: RFC 6455 4.2.1: "a base64-encoded [...] value that, when decoded, is 16 bytes in length": 22
#: characters and padding. The last one has four bits to spare, which need not be zero: they are not
#: in the RFC's own example, 4.1's "AQIDBAUGBwgJCgsMDQ4PEC==".
_is_key = re.compile(r"[A-Za-z0-9+/]{22}==").fullmatch


class HeaderFields(Protocol):
    """The header fields of a message: names without regard to case, lines joined by commas.

    A ``werkzeug`` ``Headers`` is one; so is a ``dict`` whose keys are spelled as in the RFC.
    """

    def get(self, key: str, default: str, /) -> str: ...


@dataclass(frozen=True, slots=True)
class Extension:
    """An element of ``Sec-WebSocket-Extensions`` (RFC 6455 9.1).

    :param parameters: names and values in their order; ``None`` for a name without a value.
    """

    name: str
    parameters: tuple[tuple[str, str | None], ...] = ()


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """A client's opening handshake (RFC 6455 4.2.1).

    :param key: ``Sec-WebSocket-Key``.
    :param subprotocols: those that the client speaks, in its order of preference.
    :param extensions: those that it offers, likewise.
    :param origin: ``None`` where there is no ``Origin``: not a browser.
    """

    key: str
    subprotocols: tuple[str, ...]
    extensions: tuple[Extension, ...]
    origin: str | None


@dataclass(frozen=True, slots=True)
class UpgradeResponse:
    """A server's opening handshake (RFC 6455 4.2.2)."""

    subprotocol: str | None
    extensions: tuple[Extension, ...]


def accept_key(key: str) -> str:
    """Compute the ``Sec-WebSocket-Accept`` that answers a key (RFC 6455 4.2.2, 5.4)."""
    digest = hashlib.sha1(key.encode("ascii") + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


def new_key() -> str:
    """Make a ``Sec-WebSocket-Key``: "a randomly selected 16-byte value" in base64 (4.1)."""
    return base64.b64encode(os.urandom(16)).decode("ascii")


def parse_tokens(name: str, value: str) -> tuple[str, ...]:
    """Read a list of tokens; empty elements don't count. HandshakeError 400 when it is not one."""
    _check_field_size(name, value)
    tokens = tuple(element for part in value.split(",") if (element := part.strip(" \t")))
    for token in tokens:
        if not is_token(token):
            raise HandshakeError(400, f"{name} is not a list of tokens")
    return tokens


def parse_extensions(value: str) -> tuple[Extension, ...]:
    """Read ``Sec-WebSocket-Extensions`` (RFC 6455 9.1); HandshakeError 400 for wrong syntax."""
    name = "Sec-WebSocket-Extensions"
    _check_field_size(name, value)
    extensions = []
    pos = 0
    while pos < len(value):
        start = _match_element_start(value, pos)
        if start is None:
            raise HandshakeError(400, f"{name} is malformed")
        if start[1] is None:
            break
        pos = start.end()
        parameters = []
        while parameter := _match_parameter(value, pos):
            parameters.append((parameter[1], _parameter_value(parameter)))
            pos = parameter.end()
        end = _match_element_end(value, pos)
        if end is None:
            raise HandshakeError(400, f"{name} is malformed")
        pos = end.end()
        extensions.append(Extension(start[1], tuple(parameters)))
    return tuple(extensions)


def _parameter_value(parameter: re.Match[str]) -> str | None:
    token, quoted = parameter[2], parameter[3]
    if quoted is None:
        return token
    value = _unescape(r"\1", quoted)
    if not is_token(value):
        raise HandshakeError(400, "Sec-WebSocket-Extensions quotes what is not a token")
    return value


def _check_field_size(name: str, value: str) -> None:
    if len(value) > MAX_FIELD:
        raise HandshakeError(431, f"{name} is longer than {MAX_FIELD} characters")


def _has_token(headers: HeaderFields, name: str, token: str) -> bool:
    """Return whether a list of tokens has this one, compared without regard to case."""
    value = headers.get(name, "")
    _check_field_size(name, value)
    return any(element.strip(" \t").lower() == token for element in value.split(","))


def _parse_subprotocols(headers: HeaderFields) -> tuple[str, ...]:
    name = "Sec-WebSocket-Protocol"
    subprotocols = parse_tokens(name, headers.get(name, ""))
    # RFC 6455 4.1: "The elements that comprise this value MUST be non-empty strings [...] and MUST
    # all be unique strings."
    if len(set(subprotocols)) < len(subprotocols):
        raise HandshakeError(400, f"{name} names a subprotocol twice")
    return subprotocols


# The server's side


def validate_request(
    method: str, headers: HeaderFields, http_version: str = "HTTP/1.1"
) -> UpgradeRequest:
    """Read the client's opening handshake, RFC 6455 4.2.1.

    :raises HandshakeError: with the status and header fields to answer ("the server MUST stop
        processing the client's handshake and return an HTTP response with an appropriate error
        code (such as 400 Bad Request)").
    """
    _check_get(method, headers, http_version)
    _check_upgrade(headers)
    return UpgradeRequest(
        key=_read_key(headers),
        subprotocols=_parse_subprotocols(headers),
        extensions=parse_extensions(headers.get("Sec-WebSocket-Extensions", "")),
        origin=headers.get("Origin", "") or None,
    )


def _check_get(method: str, headers: HeaderFields, http_version: str) -> None:
    # 1. "An HTTP/1.1 or higher GET request"
    if method != "GET":
        raise HandshakeError(405, "a WebSocket begins with GET", (("Allow", "GET"),))
    if http_version in ("HTTP/0.9", "HTTP/1.0"):
        raise HandshakeError(400, "a WebSocket needs HTTP/1.1")
    # RFC 9110 9.3.1: "content received in a GET request has no generally defined semantics". Here
    # it would be taken for frames.
    if headers.get("Transfer-Encoding", "") or headers.get("Content-Length", "").strip(" \t0"):
        raise HandshakeError(400, "the request for a WebSocket has a body")
    # 2. "A |Host| header field containing the server's authority."
    if not headers.get("Host", ""):
        raise HandshakeError(400, "Host is missing")


def _check_upgrade(headers: HeaderFields) -> None:
    # 3. "An |Upgrade| header field containing the value "websocket", treated as an ASCII
    # case-insensitive value."
    if not _has_token(headers, "Upgrade", "websocket"):
        raise HandshakeError(400, "Upgrade must be websocket")
    # 4. "A |Connection| header field that includes the token "Upgrade", treated as an ASCII
    # case-insensitive value."
    if not _has_token(headers, "Connection", "upgrade"):
        raise HandshakeError(400, "Connection must have Upgrade")
    # 6. "A |Sec-WebSocket-Version| header field, with a value of 13." 4.2.2: otherwise "an
    # appropriate HTTP error code (such as 426 Upgrade Required) and a |Sec-WebSocket-Version|
    # header field indicating the version(s) the server is capable of understanding".
    if headers.get("Sec-WebSocket-Version", "").strip(" \t") != VERSION:
        raise HandshakeError(
            426,
            f"Sec-WebSocket-Version must be {VERSION}",
            (("Sec-WebSocket-Version", VERSION), ("Upgrade", "websocket")),
            kind="version",
        )


def _read_key(headers: HeaderFields) -> str:
    # 5. "A |Sec-WebSocket-Key| header field with a base64-encoded [...] value"
    key = headers.get("Sec-WebSocket-Key", "").strip(" \t")
    if not _is_key(key):
        raise HandshakeError(400, "Sec-WebSocket-Key must be 16 bytes in base64")
    return key


def select_subprotocol(offered: Iterable[str], supported: Sequence[str]) -> str | None:
    """Pick the first subprotocol in the server's order that the client offered (4.2.2)."""
    known = set(offered)
    return next((subprotocol for subprotocol in supported if subprotocol in known), None)


def response_headers(
    key: str, subprotocol: str | None = None, extensions: str | None = None
) -> list[tuple[str, str]]:
    """Make the header fields of ``101 Switching Protocols``, RFC 6455 4.2.2.

    :param extensions: value of ``Sec-WebSocket-Extensions``, as ``negotiate`` gives it.
    """
    headers = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", accept_key(key)),
    ]
    if subprotocol is not None:
        if not is_token(subprotocol):
            raise LocalProtocolError(f"subprotocol {subprotocol!r} is not a token")
        headers.append(("Sec-WebSocket-Protocol", subprotocol))
    if extensions is not None:
        headers.append(("Sec-WebSocket-Extensions", extensions))
    return headers


# The client's side


def request_headers(
    host: str,
    key: str,
    *,
    subprotocols: Sequence[str] = (),
    extensions: str | None = None,
    origin: str | None = None,
) -> list[tuple[str, str]]:
    """Make the header fields of a client's GET, RFC 6455 4.1.

    :param key: a :func:`new_key`.
    :param extensions: value of ``Sec-WebSocket-Extensions``, as ``offer`` gives it.
    """
    headers = [
        ("Host", host),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", key),
        ("Sec-WebSocket-Version", VERSION),
    ]
    if origin is not None:
        headers.append(("Origin", origin))
    if subprotocols:
        headers.append(("Sec-WebSocket-Protocol", ", ".join(subprotocols)))
    if extensions is not None:
        headers.append(("Sec-WebSocket-Extensions", extensions))
    return headers


def validate_response(
    status: int, headers: HeaderFields, key: str, subprotocols: Sequence[str] = ()
) -> UpgradeResponse:
    """Read the server's opening handshake, RFC 6455 4.1 from "Once the client's opening" on.

    Whether the extensions were offered is for ``accept`` to say.

    :param key: the one sent; so are the subprotocols.
    :raises HandshakeError: when the client must fail the connection.
    """
    # 1. "If the status code received from the server is not 101, the client handles the response
    # per HTTP"
    if status != 101:
        raise HandshakeError(status, f"the server answered {status}")
    # 2. and 3.
    if headers.get("Upgrade", "").strip(" \t").lower() != "websocket":
        raise HandshakeError(status, "Upgrade must be websocket")
    if not _has_token(headers, "Connection", "upgrade"):
        raise HandshakeError(status, "Connection must have Upgrade")
    # 4. "the base64-encoded SHA-1 of the concatenation of the |Sec-WebSocket-Key|" and the GUID
    if headers.get("Sec-WebSocket-Accept", "").strip(" \t") != accept_key(key):
        raise HandshakeError(status, "Sec-WebSocket-Accept does not fit the key")
    # 6. "a subprotocol that was not present in the client's handshake [...]: the client MUST
    # _Fail the WebSocket Connection_."
    subprotocol = headers.get("Sec-WebSocket-Protocol", "").strip(" \t") or None
    if subprotocol is not None and subprotocol not in subprotocols:
        raise HandshakeError(status, f"subprotocol {subprotocol!r} was not offered")
    # 5. the extensions
    return UpgradeResponse(
        subprotocol, parse_extensions(headers.get("Sec-WebSocket-Extensions", ""))
    )
