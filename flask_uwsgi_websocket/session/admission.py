"""Which upgrade requests are admitted, and how the others are refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from http.client import responses
from logging import Logger
from typing import TYPE_CHECKING

from werkzeug.datastructures import EnvironHeaders

from ..codec import UpgradeRequest, validate_request
from ..exceptions import EngineError, HandshakeError
from ..helpers.engines import WEBSOCKETS
from ..helpers.log import RateLimit, logger
from ..helpers.text import path_of, printable
from ..servers.find import server_of
from .origins import check_origin

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_upgrade_lost = RateLimit()


def is_upgrade_request(environ: WSGIEnvironment) -> bool:
    """Tell whether a request asks for a WebSocket, rightly or wrongly."""
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
) -> UpgradeRequest:
    """Check all that may speak against a handshake, in this order; return what the client asks.

    :param engine: that of the class which serves it.
    :param origins: whose pages may connect; None: those on ``host``.
    :param setting: where origins are configured, for the log.
    :param classes: the class for each engine, for messages.
    :raises HandshakeError: when the request is wrong, there is no room, or a page may not connect.
    :raises EngineError: when the server was not started for the engine.
    """
    request = validate_request(
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
    tell: bool = False,
) -> HandshakeError:
    """Log what speaks against a handshake, where the log is to know; return the client's answer.

    :param tell: whether the client is the developer, who may know how the server is run.
    """
    if isinstance(error, HandshakeError):
        _log_lost_upgrade(error, environ)
        return error
    log.error("WebSocket %s refused: %s", printable(path_of(environ)), error)
    reason = str(error) if tell else "WebSockets do not work here; the server's log says why"
    return HandshakeError(error.status, reason)


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
        logger.warning(
            "WebSocket %s refused: %s. A proxy in front does not pass the upgrade on: beside its "
            "proxy_pass, nginx needs proxy_http_version 1.1; proxy_set_header Upgrade "
            "$http_upgrade; and proxy_set_header Connection $connection_upgrade",
            printable(path_of(environ)),
            error.reason,
        )


def refuse(error: HandshakeError, start_response: StartResponse) -> Sequence[bytes]:
    """Answer a handshake that cannot be accepted with plain HTTP."""
    body = f"{printable(error.reason)}\n".encode()
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    status = f"{error.status} {responses.get(error.status, 'Refused')}"
    start_response(status, headers + list(error.headers))
    return [body]
