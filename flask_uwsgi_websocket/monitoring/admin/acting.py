"""What is done to one connection, by the worker that has it: the question and the answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...connection.connection import Connection
from ...exceptions import ConnectionClosed, LocalProtocolError
from ...rooms.live import LiveRooms
from .rows import brief, known_id

ASK = "admin.act"
#: Statuses for what could not be done: it has ended or does not read; it cannot be meant.
CONFLICT, BAD = 409, 400


def answer(live: LiveRooms, question: Any) -> dict[str, Any]:
    """Do what is asked, if this worker has the connection; say what has come of it."""
    for connection in live.connections():
        client = connection.client
        if client is not None and known_id(client) == question["id"]:
            done = _ACTIONS[question["do"]](connection, client, question)
            return {**done, "connection": brief(connection, client, live)}
    return {}


def _close(connection: Connection, client: Any, question: Any) -> dict[str, Any]:
    if connection.ended:
        return {"status": CONFLICT, "error": "this connection has ended already"}
    try:
        connection.start_closing(question["code"], question["reason"])
    except LocalProtocolError as error:
        return {"status": BAD, "error": str(error)}
    return {"done": "closing", "message": f"closing with {question['code']}"}


def _send(connection: Connection, client: Any, question: Any) -> dict[str, Any]:
    if connection.congested:  # send_nb() would close it
        return {"status": CONFLICT, "error": "it reads too slowly: its queue is full"}
    try:
        client.send_nb(question["text"])
    except ConnectionClosed:
        return {"status": CONFLICT, "error": "this connection has ended already"}
    if connection.queued:
        connection.flush()
    if queued := connection.queued:
        return {
            "done": "queued",
            "queued": queued,
            "message": f"queued: {queued} bytes wait for the client to read",
        }
    return {"done": "sent", "queued": 0, "message": "sent"}


_ACTIONS: dict[str, Callable[[Connection, Any, Any], dict[str, Any]]] = {
    "close": _close,
    "send": _send,
}
