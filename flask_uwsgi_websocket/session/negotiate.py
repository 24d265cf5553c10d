"""What client and server agree on in the opening handshake, and the answer that says so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..codec import (
    Deflate,
    DeflateSettings,
    UpgradeRequest,
    response_headers,
    select_subprotocol,
)
from ..codec import negotiate as negotiate_compression
from ..connection.limits import Limits
from ..exceptions import HandshakeError
from ..servers.upgrade import Headers, check_headers


@dataclass(frozen=True)
class Settings:
    """The terms that a server offers to one connection."""

    limits: Limits = field(default_factory=Limits)
    subprotocols: Sequence[str] = ()
    #: Whether a client must offer one of them.
    require_subprotocol: bool = False
    #: permessage-deflate (RFC 7692), where the client offers it; None turns it off.
    compression: DeflateSettings | None = None


@dataclass(frozen=True)
class Negotiation:
    """The terms that client and server agreed on in the opening handshake."""

    headers: list[tuple[str, str]]
    subprotocol: str | None
    deflate: Deflate | None
    settings: Settings


def negotiate(request: UpgradeRequest, settings: Settings) -> Negotiation:
    """Choose among what the client offers (RFC 6455 4.2.2, RFC 7692 5).

    :raises HandshakeError: 400, when it offers no subprotocol of those that it must.
    """
    subprotocol = select_subprotocol(request.subprotocols, settings.subprotocols)
    if subprotocol is None and settings.require_subprotocol:
        names = ", ".join(settings.subprotocols)
        raise HandshakeError(400, f"Sec-WebSocket-Protocol must offer a subprotocol of: {names}")
    deflate, extensions = None, None
    if settings.compression is not None:
        deflate, extensions = negotiate_compression(request.extensions, settings.compression)
    headers = response_headers(request.key, subprotocol, extensions or None)
    return Negotiation(headers, subprotocol, deflate, settings)


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
    """Return the header fields of the 101: what was agreed on, and what others may add to it.

    :raises ValueError: for header fields that cannot be sent.
    """
    fields = [
        (name, value)
        for name, value in others
        if name.lower() not in _NOT_IN_101 and not name.lower().startswith("sec-websocket-")
    ]
    check_headers(fields)
    return negotiation.headers + fields
