"""The connections that a user, or an address, may have: who asks for one more is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Request

from ..engines.base import Engine
from ..exceptions import HandshakeError
from ..helpers.wsgi import WSGIEnvironment
from ..session.seats import Seat, client_name, seats_of
from .routing import WebSocketRule

#: In the environment of a request: the seat that it has taken.
_SEAT = "flask_uwsgi_websocket.seat"
#: Seconds after which it may be worth it to try again for whoever has as many as it may.
RETRY_AFTER = "5"


def take_seat(
    request: Request,
    rule: WebSocketRule,
    user: str | None,
    engine: Engine,
    setting: Callable[[str], Any],
) -> None:
    """Take a seat for the connection that is asked for, where there are so and so many.

    :raises HandshakeError: 429, where there is none left.
    """
    most, where = rule.max_connections, rule.pattern
    if most is None:
        most, where = setting("MAX_CONNECTIONS"), ""
    if not most:
        return  # as most have it: an address takes a while to be read
    name = client_name(user, request.remote_addr)
    if name is None:
        return
    seat = seats_of(setting("PREFIX") or "", engine).take(f"{where}\0{name}", most)
    if seat is None:
        client = "address" if user is None else "user"
        reason = f"this {client} has as many connections as it may: {most}"
        headers = (("Retry-After", RETRY_AFTER),)
        raise HandshakeError(429, reason, headers, kind="max_connections")
    request.environ[_SEAT] = seat


def seat_of(environ: WSGIEnvironment) -> Seat | None:
    """Return the seat that a request has, if it has one."""
    return environ.get(_SEAT)


def leave_seat(environ: WSGIEnvironment) -> None:
    """Give up the seat of a request, if it has one."""
    seat = environ.pop(_SEAT, None)
    if seat is not None:
        seat.leave()
