"""A connection as a row of the admin page's table: what is shown, sorted by and searched."""

from __future__ import annotations

import socket
from collections.abc import Callable
from heapq import nsmallest
from operator import attrgetter
from typing import Any, NamedTuple

from ...connection.connection import Connection
from ...helpers.text import path_of
from ...metrics.traffic import opened_at
from ...rooms.live import LiveRooms

#: In the environment of a request for the admin's own WebSocket: who has asked.
ADMIN = "flask_uwsgi_websocket.admin"
#: Characters of what strangers named, and how many of a connection's rooms are shown.
LONGEST, SHOWN_ROOMS = 200, 5


def cut(text: str) -> str:
    """Shorten what may be of any length."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def route_of(connection: Connection) -> str:
    """Return the pattern of a connection's route."""
    return "" if connection.route is None else connection.route.pattern


def address_of(client: Any) -> str:
    """Return the address that a client has connected from."""
    return str(client.environ.get("REMOTE_ADDR", ""))


def known_id(client: Any) -> str:
    """Return a client's id; "" where nobody has asked for it, so that it has none yet."""
    return str(vars(client).get("id", ""))


def _traffic(name: str) -> Callable[[Connection, Any, LiveRooms], Any]:
    get = attrgetter(f"traffic.{name}")
    return lambda connection, client, live: get(connection)


class Sort(NamedTuple):
    """What rows are sorted by."""

    key: Callable[[Connection, Any, LiveRooms], Any]
    is_text: bool = False


#: By their names in a query.
SORTS = {
    "opened": Sort(lambda connection, client, live: opened_at(connection.traffic)),
    "user": Sort(lambda connection, client, live: client.user or "", True),
    "address": Sort(lambda connection, client, live: address_of(client), True),
    "route": Sort(lambda connection, client, live: route_of(connection), True),
    "worker": Sort(lambda connection, client, live: live.engine.process.worker_id()),
    "messages_received": Sort(_traffic("messages_received")),
    "messages_sent": Sort(_traffic("messages_sent")),
    "bytes_received": Sort(_traffic("bytes_received")),
    "bytes_sent": Sort(_traffic("bytes_sent")),
    "latency": Sort(lambda connection, client, live: connection.latency or 0.0),
    "queued": Sort(lambda connection, client, live: connection.queued),
    "rooms": Sort(lambda connection, client, live: len(live.membership.rooms_of(connection))),
}


def brief(connection: Connection, client: Any, live: LiveRooms) -> dict[str, Any]:
    """Make what tells people which connection is meant."""
    return {
        "id": client.id,
        "worker": live.engine.process.worker_id(),
        "host": socket.gethostname(),
        "route": cut(route_of(connection)),
        "user": None if client.user is None else cut(client.user),
        "address": cut(address_of(client)),
    }


def row(connection: Connection, client: Any, live: LiveRooms) -> dict[str, Any]:
    """Make the row of a connection."""
    rooms = live.membership.rooms_of(connection)
    figures = {
        name: SORTS[name].key(connection, client, live)
        for name in ("messages_received", "messages_sent", "bytes_received", "bytes_sent", "queued")
    }
    return {
        **brief(connection, client, live),
        **figures,
        "path": cut(path_of(client.environ)),
        "since": SORTS["opened"].key(connection, client, live),
        "latency": connection.latency,
        "rooms": [cut(room) for room in nsmallest(SHOWN_ROOMS, rooms)],
        "rooms_total": len(rooms),
        "admin": ADMIN in client.environ,
    }
