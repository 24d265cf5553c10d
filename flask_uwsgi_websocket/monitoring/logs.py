"""One line of the log for each WebSocket that opens, closes or is refused."""

from __future__ import annotations

from typing import Any

from flask import current_app

from ..helpers.log import level_of, logger
from ..helpers.text import path_of, shown
from ..helpers.wsgi import WSGIEnvironment
from ..metrics.observers import End, Observer, Refusal
from ..servers.upgrade import upgrade_of

#: A logger of its own, so that these lines can go elsewhere.
connection_logger = logger.getChild("connection")

#: What a connection ends with that has nothing wrong with it (RFC 6455 7.4.1): it was closed, by a
#: page that was left or a worker that stopped, or its network went away, as phones' do all day.
_USUAL = {1000, 1001, 1005, 1006}

#: From here on codes mean what the app says (RFC 6455 7.4.2).
_OF_APPS = 3000


class LogLines(Observer):
    """Logs what happens to connections, at the levels that the app configures.

    Nothing that a message, a cookie or a query string holds is in them, and no text of a client's
    can begin a line.
    """

    def opened(self, client: Any) -> None:
        level = _level(client._app.config, "OPENED")
        if level is None:
            return
        fields = _fields_of(client, "opened")
        fields["route"] = client._connection.route.pattern
        _log(level, "WebSocket %(path)s opened by %(client)s", fields)

    def closed(self, client: Any, end: End) -> None:
        if client is None:
            return  # it could not be opened, which is logged
        level = _level(client._app.config, "CLOSED" if _is_usual(end) else "ABNORMAL")
        if level is None:
            return
        fields = {**_fields_of(client, "closed"), **end._asdict()}
        fields["reason"] = shown(end.reason)
        because = f" ({fields['reason']})" if end.reason else ""
        _log(
            level,
            f"WebSocket %(path)s of %(client)s closed with %(code)d%(because)s {_BY[end.by]} after "
            "%(seconds).3f s, %(messages_received)d messages (%(bytes_received)d bytes) received, "
            "%(messages_sent)d (%(bytes_sent)d) sent",
            fields,
            because=because,
        )

    def refused(self, environ: WSGIEnvironment, refusal: Refusal) -> None:
        level = _level(current_app.config, "REFUSED")
        if level is None or _is_logged(environ):
            return
        fields = {
            **_fields(environ, "refused"),
            "status": refusal.status,
            "route": refusal.route,
            "refusal": refusal.reason,
            "detail": shown(refusal.detail),
        }
        text = "WebSocket %(path)s of %(client)s refused with %(status)d (%(refusal)s)"
        _log(level, f"{text}: %(detail)s" if refusal.detail else text, fields)


_BY = {"client": "by the client", "server": "by the server", "lost": "without a Close"}


def _is_usual(end: End) -> bool:
    return end.error is None and (end.code in _USUAL or end.code >= _OF_APPS)


def _is_logged(environ: WSGIEnvironment) -> bool:
    """Return whether the log has a line for a refusal already, which says what to do."""
    failure = upgrade_of(environ).failure
    return failure is not None and getattr(failure, "is_logged", True)


def _level(config: Any, event: str) -> int | None:
    """Return the level of a kind of lines, where they go anywhere."""
    level = level_of(config[f"UWSGI_WEBSOCKET_LOG_{event}"])
    return level if level is not None and connection_logger.isEnabledFor(level) else None


def _fields(environ: WSGIEnvironment, event: str) -> dict[str, Any]:
    return {
        "event": event,
        "path": shown(path_of(environ)),
        "client": shown(environ.get("REMOTE_ADDR") or "-"),
    }


def _fields_of(client: Any, event: str) -> dict[str, Any]:
    user = client.user
    return {
        **_fields(client.environ, event),
        "id": client.id,
        "user": None if user is None else shown(user),
    }


def _log(level: int, text: str, fields: dict[str, Any], **also: Any) -> None:
    extra = {f"websocket_{name}": value for name, value in fields.items()}
    connection_logger.log(level, text, {**fields, **also}, extra=extra)
