"""The opening handshake: what speaks against it, and what client and server agree on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import responses
from logging import Logger

from werkzeug.datastructures import EnvironHeaders

from .. import codec
from ..connection.base import Limits
from ..exceptions import EngineError, HandshakeError
from ..helpers.engines import WEBSOCKETS
from ..helpers.log import RateLimit, logger
from ..helpers.text import path_of, printable, shown
from ..helpers.wsgi import StartResponse, WSGIEnvironment
from ..servers.find import server_of
from ..servers.upgrade import Headers, check_headers
from .origins import check_origin

_upgrade_lost = RateLimit()


def is_upgrade_request(environ: WSGIEnvironment) -> bool:
    """Return whether a request asks for a WebSocket, rightly or wrongly."""
    return (
        "HTTP_SEC_WEBSOCKET_KEY" in environ
        or "websocket" in environ.get("HTTP_UPGRADE", "").lower()
    )


def admit(
    environ: WSGIEnvironment,
    engine: str,
    origins: str | Collection[str] | None,
    *,
    host: str,
    setting: str,
    classes: Mapping[str, str] = WEBSOCKETS,
    log: Logger = logger,
) -> codec.UpgradeRequest:
    """Check all that may speak against a handshake, in this order; return what the client asks.

    :param origins: as ``allowed`` of :func:`~.origins.is_allowed`; ``setting`` is for the log.
    :raises HandshakeError: when the request is wrong, there is no room, or a page may not connect.
    :raises EngineError: when the server was not started for the engine.
    """
    request = codec.validate_request(
        environ["REQUEST_METHOD"],
        EnvironHeaders(environ),
        environ.get("SERVER_PROTOCOL", "HTTP/1.1"),
    )
    server_of(environ).check(environ, engine, classes)
    path = path_of(environ)
    check_origin(request.origin, host, origins, path=path, setting=setting, logger=log)
    return request


def refusal(
    error: HandshakeError | EngineError,
    environ: WSGIEnvironment,
    *,
    log: Logger = logger,
    reveal: bool = False,
) -> HandshakeError:
    """Log what speaks against a handshake, where the log is to know; return the client's answer.

    :param reveal: whether the client is the developer, who may know how the server is run.
    """
    if isinstance(error, HandshakeError):
        _log_lost_upgrade(error, environ)
        return error
    log.error("WebSocket %s refused: %s", shown(path_of(environ)), error)
    reason = str(error) if reveal else "WebSockets do not work here; the server's log says why"
    return HandshakeError(error.status, reason, kind="engine")


def _log_lost_upgrade(error: HandshakeError, environ: WSGIEnvironment) -> None:
    """Log, at most once a minute, that a proxy in front has kept the upgrade to itself."""
    lost = (
        environ.get("SERVER_PROTOCOL") == "HTTP/1.0"
        or "websocket" not in environ.get("HTTP_UPGRADE", "").lower()
        or "upgrade" not in environ.get("HTTP_CONNECTION", "").lower()
    )
    # A client's own mistake looks different: it has sent a key.
    if (
        error.status == 400
        and lost
        and "HTTP_SEC_WEBSOCKET_KEY" in environ
        and _upgrade_lost.passes()
    ):
        error.is_logged = True
        logger.warning(
            "WebSocket %s refused: %s. A proxy in front does not pass the upgrade on: beside its "
            "proxy_pass, nginx needs proxy_http_version 1.1; proxy_set_header Upgrade "
            "$http_upgrade; and proxy_set_header Connection $connection_upgrade",
            shown(path_of(environ)),
            error.reason,
        )


def refuse(error: HandshakeError, start_response: StartResponse) -> Sequence[bytes]:
    """Answer a handshake that cannot be accepted with plain HTTP."""
    body = f"{printable(error.reason)}\n".encode()
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    status = f"{error.status} {responses.get(error.status, 'Refused')}"
    start_response(status, headers + list(error.headers))
    return [body]


@dataclass(frozen=True, slots=True)
class Settings:
    """The terms that a server offers to one connection."""

    limits: Limits = field(default_factory=Limits)
    subprotocols: Sequence[str] = ()
    #: Whether a client must offer one of them.
    require_subprotocol: bool = False
    #: permessage-deflate (RFC 7692), where the client offers it; None turns it off.
    compression: codec.DeflateSettings | None = None


@dataclass(frozen=True, slots=True)
class Negotiation:
    """The terms that client and server agreed on in the opening handshake."""

    headers: list[tuple[str, str]]
    subprotocol: str | None
    deflate: codec.Deflate | None
    limits: Limits


def negotiate(request: codec.UpgradeRequest, settings: Settings) -> Negotiation:
    """Choose among what the client offers (RFC 6455 4.2.2, RFC 7692 5).

    :raises HandshakeError: 400, when it offers no subprotocol of those that it must.
    """
    subprotocol = codec.select_subprotocol(request.subprotocols, settings.subprotocols)
    if subprotocol is None and settings.require_subprotocol:
        names = ", ".join(settings.subprotocols)
        reason = f"Sec-WebSocket-Protocol must offer a subprotocol of: {names}"
        raise HandshakeError(400, reason, kind="subprotocol")
    deflate, extensions = None, None
    if settings.compression is not None:
        deflate, extensions = codec.negotiate(request.extensions, settings.compression)
    headers = codec.response_headers(request.key, subprotocol, extensions or None)
    return Negotiation(headers, subprotocol, deflate, settings.limits)


#: Header fields of which only the handshake knows how they must be in a 101, and those which it
#: must not have. RFC 9110 8.6: "A server MUST NOT send a Content-Length header field in any
#: response with a status code of 1xx (Informational)"; RFC 9112 6.1 says it of Transfer-Encoding;
#: and there is no content to describe.
_NOT_IN_101 = {
    "connection",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "keep-alive",
    "trailer",
    "transfer-encoding",
    "upgrade",
}


def switch_headers(negotiation: Negotiation, others: Iterable[tuple[str, str]]) -> Headers:
    """Return the 101's fields: what was agreed on, and what others may add; else ValueError."""
    fields = [
        (name, value)
        for name, value in others
        if name.lower() not in _NOT_IN_101 and not name.lower().startswith("sec-websocket-")
    ]
    check_headers(fields)
    return negotiation.headers + fields
