"""What the spans of connections are called by, as far as OpenTelemetry has names for it."""

from __future__ import annotations

import re
from typing import Any

from ...helpers.text import path_of, printable
from ...helpers.wsgi import WSGIEnvironment

#: The instrumentation scope: its name, and where the names of attributes are from.
SCOPE = "flask_uwsgi_websocket"
SCHEMA = "https://opentelemetry.io/schemas/1.37.0"

_SCHEMES = {"http": "ws", "https": "wss"}

#: Attributes by the keys of the environment that have them, where it has.
_TEXTS = {
    "REMOTE_ADDR": "client.address",
    "HTTP_USER_AGENT": "user_agent.original",
    "HTTP_SEC_WEBSOCKET_VERSION": "network.protocol.version",
}


def request_attributes(environ: WSGIEnvironment, route: str) -> dict[str, Any]:
    """Return the attributes of an upgrade request: no query string, and no field but its agent."""
    scheme = environ.get("wsgi.url_scheme", "http")
    address, port = _server(environ)
    attributes: dict[str, Any] = {
        "http.request.method": "GET",
        "http.route": route,
        "network.protocol.name": "websocket",
        "server.address": address,
        "url.path": printable(path_of(environ)),
        "url.scheme": _SCHEMES.get(scheme, scheme),
    }
    if re.fullmatch("[0-9]{1,5}", port):  # a client may write any number
        attributes["server.port"] = int(port)
    for key, name in _TEXTS.items():
        if key in environ:
            attributes[name] = printable(environ[key])
    return attributes


def _server(environ: WSGIEnvironment) -> tuple[str, str]:
    """Return the host and port that the client asked for; the port is "" where it named none."""
    host = environ.get("HTTP_HOST") or environ.get("SERVER_NAME", "")
    name, colon, port = host.rpartition(":")
    if not colon or port.endswith("]"):  # an IPv6 address without a port
        return printable(host), ""
    return printable(name), port
