"""Who is in a room: as a store keeps it, and as apps are told it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

#: Bytes of the JSON of an info: it goes to everybody.
MAX_INFO = 4096
#: Lists and objects in each other: whoever reads JSON does that with a stack that has an end.
MAX_DEPTH = 100


@dataclass(frozen=True, slots=True)
class Occupant:
    """A connection in a room, as a store keeps it.

    :param channel: of the room.
    :param connection: its id; ``""`` for a user who has none any more, in grace.
    :param user: whose it is; the id of the connection where nobody knows.
    :param info: JSON, of at most :data:`MAX_INFO` bytes.
    :param since: when the user came, in seconds since 1970.
    :param grace: seconds for which a user without connections stays.
    :param limit: how many users the room may have; 0 for any number.
    """

    channel: str
    connection: str
    user: str
    info: str
    since: float
    grace: float = 0.0
    limit: int = 0


class Left(NamedTuple):
    """A user who has left a room for good, as a store tells one worker."""

    channel: str
    user: str
    info: str
    since: float
    #: Whether nobody is left in the room; of several that left together the last one says so.
    room_is_empty: bool


class Member(NamedTuple):
    """A user in a room, with all connections; or somebody unknown, with one."""

    #: As ``identify`` tells; the id of the connection where it knows nobody.
    user: str
    #: What the latest ``join`` has said.
    info: Any
    #: How many there are; 0 for a moment, while the user may come back.
    connections: int
    #: When the user came, in seconds since 1970.
    since: float


class Members(list[Member]):
    """The members of a room, those first who came first."""

    #: Whether these are all: a backplane that is away leaves those of this worker.
    complete: bool = True


def checked_info(info: str) -> str:
    """Return the JSON of an info, unless it is too long, or not everybody could read it.

    :raises ValueError: above :data:`MAX_INFO` bytes; for NaN, halves of characters, and what is
        deeper than :data:`MAX_DEPTH`.
    """
    size = len(info.encode())
    if size > MAX_INFO:
        raise ValueError(
            f"an info of {size} bytes of JSON: it has {MAX_INFO} at most, since it goes to all in "
            "the room; let it name where there is more"
        )
    try:
        value = json.loads(info, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise _too_deep() from None
    if _depth(value) > MAX_DEPTH:
        raise _too_deep()
    return info


def _depth(value: Any) -> int:
    """Count how many lists and objects are in each other."""
    depth, level = 0, [value]
    while level := [each for each in level if each and isinstance(each, (dict, list))]:
        depth += 1
        level = [
            one for each in level for one in (each.values() if isinstance(each, dict) else each)
        ]
    return depth


def _too_deep() -> ValueError:
    return ValueError(f"an info with more than {MAX_DEPTH} lists and objects in each other")


def _refuse(constant: str) -> None:
    raise ValueError(f"an info has {constant} in it, which is no JSON")


def members_of(occupants: Iterable[Occupant], complete: bool = True) -> Members:
    """Put the connections of each user together."""
    found: dict[str, Member] = {}
    for each in occupants:
        known = found.get(each.user)
        number = (known.connections if known is not None else 0) + bool(each.connection)
        found[each.user] = Member(each.user, json.loads(each.info), number, each.since)
    members = Members(sorted(found.values(), key=lambda member: member.since))
    members.complete = complete
    return members


def member_who_came(occupant: Occupant) -> Member:
    """Return a user who was not there before, as apps are told it."""
    return Member(occupant.user, json.loads(occupant.info), 1, occupant.since)


def member_who_left(left: Left) -> Member:
    """Return a user who has left, as apps are told it."""
    return Member(left.user, json.loads(left.info), 0, left.since)
