"""How many are in a room, over all workers: the question, the answers, and their sum."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, NamedTuple

from .channels import room_channel, user_channel, user_of
from .membership import Membership
from .presence.members import Occupant
from .questions import Answers

#: How many connections, and a name for each of the users among them that are identified.
_Part = tuple[int, Iterable[str]]


class Count(NamedTuple):
    """How many are in a room."""

    connections: int
    #: How many different ones: those whom ``identify`` knows, each once.
    users: int
    #: Whether all of them are known: all workers have answered in time.
    complete: bool


def count_question(room: str) -> dict[str, Any]:
    """Make the question how many are in a room."""
    return {"ask": "count", "room": room}


def rooms_question() -> dict[str, Any]:
    """Make the question which rooms there are."""
    return {"ask": "rooms"}


def user_question(user: str | int) -> dict[str, Any]:
    """Make the question whether there is a user."""
    return {"ask": "user", "user": user_of(user)}


def answer(membership: Membership, question: dict[str, Any]) -> Any:
    """Answer one of the questions for one worker; None for another question."""
    if question["ask"] == "count":
        return _part(membership, question["room"])
    if question["ask"] == "user":
        connections = list(membership.members(user_channel(question["user"])))
        return any(not connection.ended for connection in connections)
    if question["ask"] == "rooms":
        return {room: _part(membership, room) for room in membership.rooms()}
    return None


def count_of(answers: Answers) -> Count:
    """Sum the answers of all workers for one room."""
    return _sum(answers.answers, answers.complete)


def count_of_occupants(occupants: Iterable[Occupant], complete: bool) -> Count:
    """Count who is in a room with presence; users in grace are among them."""
    found = list(occupants)
    users = {each.user for each in found if each.user != each.connection}
    return Count(sum(bool(each.connection) for each in found), len(users), complete)


def counts_of(answers: Answers) -> dict[str, Count]:
    """Sum the answers of all workers for all rooms."""
    parts: dict[str, list[_Part]] = {}
    for answered in answers.answers:
        for room, part in answered.items():
            parts.setdefault(room, []).append(part)
    return {room: _sum(parts[room], answers.complete) for room in sorted(parts)}


def _part(membership: Membership, room: str) -> _Part:
    members = list(membership.members(room_channel(room)))
    clients = [client for each in members if (client := each.client) is not None]
    users = {client.user for client in clients if client.user is not None}
    return len(clients), sorted(map(_hashed, users))


def _hashed(user: str) -> str:
    """Make a short name, since a worker may have very many."""
    return blake2b(user.encode(), digest_size=6).hexdigest()


def _sum(parts: list[Any], complete: bool) -> Count:
    users = {user for _, part in parts for user in part}
    return Count(sum(connections for connections, _ in parts), len(users), complete)
