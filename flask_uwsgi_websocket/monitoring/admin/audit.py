"""The log of what was done on the admin page, and by whom."""

from __future__ import annotations

import logging
from typing import Any

from flask import request

from ...helpers.log import RateLimit
from ...helpers.text import printable

#: Warnings, so that they are kept where nobody has set logging up.
logger = logging.getLogger("flask_uwsgi_websocket.admin")

#: Whoever is refused may come again at once.
_refusals = RateLimit(20)


def log_action(who: str, action: str, result: str, **facts: Any) -> None:
    """Log an action; never what was sent, or is kept in a room.

    :param who: the admin.
    :param result: what became of it.
    :param facts: whom it concerns, as fields of the record.
    """
    named = {name: printable(value) for name, value in facts.items() if value not in (None, "")}
    words = " ".join(f"{name}={value!r}" for name, value in named.items())
    fields = {"event": "admin", "admin": who, "action": action, "result": result, **named}
    logger.warning(
        "admin %s: %s %s: %s", who, action, words, printable(result), extra=_extra(fields)
    )


def log_refusal(reason: str) -> None:
    """Log a request that was refused, unless many are."""
    if _refusals.passes():
        fields = {"event": "admin_refused", "path": printable(request.path), "result": reason}
        logger.warning(
            "admin page: %s of %s refused: %s",
            fields["path"],
            printable(request.remote_addr or "-"),
            printable(reason),
            extra=_extra(fields),
        )


def _extra(fields: dict[str, str]) -> dict[str, str]:
    """Name the fields as those of other lines about WebSockets."""
    fields["admin_address"] = printable(request.remote_addr or "-")
    return {f"websocket_{name}": printable(value) for name, value in fields.items()}
