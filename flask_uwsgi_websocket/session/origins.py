"""The origins whose pages may open WebSockets: the check of ``Origin`` (RFC 6455 10.2, RFC 6454).

Origins are compared in one form, whoever wrote them: small letters, the letters of other scripts
as they travel (``xn--...``), IPv6 addresses at their shortest, no default port, no slash.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address
from logging import Logger
from typing import Any

from ..exceptions import HandshakeError
from ..helpers.log import RateLimit, logger
from ..helpers.text import shown

#: Enough for whoever sets origins up; others must not fill the log.
_refusals = RateLimit(20)

#: Origins that have no host: of sandboxed documents, and of files in some browsers.
_WITHOUT_HOST = frozenset({"null", "file://"})

_DEFAULT_PORTS = {"http": 80, "https": 443}

# RFC 6454 6.2, and one slash more, which people write.
_match = re.compile(
    r"([A-Za-z][A-Za-z0-9+.\-]*)://(\[[0-9A-Fa-f:.]+\]|[^\s/\\:?#@\[\]]+)(?::([0-9]{0,5}))?/?"
).fullmatch

# Each is a dot in a host's name (UTS #46).
_DOTS = re.compile("[.\u3002\uff0e\uff61]")


def normal_origin(origin: str) -> str | None:
    """Return an origin in its normal form; None for what is none."""
    if origin.lower() in _WITHOUT_HOST:
        return origin.lower()
    with suppress(UnicodeError):
        origin = origin.encode("latin-1").decode()  # WSGI's way with bytes that came as UTF-8
    parts = _match(origin)
    if parts is None:
        return None
    scheme, host, port = parts[1].lower(), parts[2], int(parts[3] or 0)
    try:
        host = f"[{IPv6Address(host[1:-1])}]" if host.startswith("[") else _ascii_host(host)
    except ValueError:
        return None
    if port > 65535 or not host.isprintable():
        return None
    return f"{scheme}://{host}" + (
        f":{port}" if port not in (0, _DEFAULT_PORTS.get(scheme)) else ""
    )


def _ascii_host(host: str) -> str:
    """Spell a host's name in the letters that travel (RFC 5890: A-labels)."""
    labels = _DOTS.split(unicodedata.normalize("NFKC", host).lower())
    return ".".join(
        label if label.isascii() else f"xn--{label.encode('punycode').decode()}" for label in labels
    )


@dataclass(frozen=True)
class Origins:
    """Origins as they were configured.

    :param all: whether any will do.
    :param exact: in their normal form.
    :param subdomains: begin and end of those that have one label or more between the two.
    """

    all: bool
    exact: frozenset[str]
    subdomains: tuple[tuple[str, str], ...]

    def __contains__(self, origin: str) -> bool:
        """Return whether an origin, in its normal form, is one of these."""
        return (
            self.all
            or origin in self.exact
            or any(
                origin.startswith(begin)
                and origin.endswith(end)
                and len(origin) > len(begin) + len(end)
                for begin, end in self.subdomains
            )
        )


def parse_origins(configured: str | Collection[str]) -> Origins:
    """Read origins as they are configured.

    :param configured: an origin or several; ``"*"`` is all of them, and
        ``"https://*.example.com"`` the hosts below ``example.com``, however far.
    :raises ValueError: for what is no origin; says what is accepted.
    """
    if not isinstance(configured, Collection) or isinstance(configured, (str, bytes)):
        configured = (configured,)
    return _parse(tuple(configured))


@lru_cache
def _parse(configured: tuple[Any, ...]) -> Origins:
    exact, subdomains = set(), []
    for origin in configured:
        if origin == "*":
            continue
        text = origin if isinstance(origin, str) else ""
        pattern = text.partition("://")[2].startswith("*.")
        normal = normal_origin(text.replace("*.", "", pattern))
        if not normal or "*" in normal or normal.startswith(("ws:", "wss:")):
            raise ValueError(
                f"{origin!r} is no origin: write 'https://example.com' (the scheme of the page, "
                "its host and the port, without a path), 'https://*.example.com' for the hosts "
                "below it, 'null', or '*' for all"
            )
        if pattern:
            scheme, _, host = normal.partition("://")
            subdomains.append((f"{scheme}://", f".{host}"))
        else:
            exact.add(normal)
    return Origins("*" in configured, frozenset(exact), tuple(subdomains))


def is_allowed(origin: str | None, host: str, allowed: str | Collection[str] | None) -> bool:
    """Return whether pages of an origin may open WebSockets here.

    Browsers send WebSocket requests across sites, with cookies: RFC 6455 10.2.

    :param host: the request's.
    :param allowed: as for :func:`parse_origins`; None for those on ``host``.
    """
    if origin is None:  # not a browser
        return True
    if allowed is not None:
        origins = parse_origins(allowed)
        return origins.all or (normal_origin(origin) or "") in origins
    # Not the same scheme: a proxy in front may speak TLS for us.
    scheme, _, rest = origin.partition("://")
    normal = normal_origin(origin) if rest else None
    return normal is not None and normal == normal_origin(f"{scheme}://{host}")


def check_origin(
    origin: str | None,
    host: str,
    allowed: str | Collection[str] | None,
    *,
    path: str,
    setting: str,
    logger: Logger = logger,
) -> None:
    """Check an origin as :func:`is_allowed` does, and refuse others with HandshakeError 403.

    The path and ``setting``, where origins are configured, are for the log.
    """
    if is_allowed(origin, host, allowed):
        return
    error = HandshakeError(403, f"origin {origin} is not allowed", kind="origin")
    if _refusals.passes():
        error.is_logged = True
        how = _how_to_allow(origin, host, setting)
        logger.warning("WebSocket %s refused: %s", shown(path), how, stacklevel=2)
    raise error


def _how_to_allow(origin: str | None, host: str, setting: str) -> str:
    """Say why an origin was refused, and what to do if that is wrong."""
    normal = normal_origin(origin or "")
    if normal is None:
        return f"its Origin {shown(origin)} is none; only '*' in {setting} allows it"
    return (
        f"origin {shown(origin)} is not allowed on host {shown(host)}; to allow it, add "
        f"{shown(normal)!r} to "
        f"{setting}, or let ProxyFix find the host behind a proxy"
    )
