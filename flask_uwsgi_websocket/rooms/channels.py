"""Channels: what a record is published to, and what a backplane subscribes to.

A room, a user (all of whose connections are meant), and everybody have a channel each. Their names
are in name spaces of their own, so that no room's name can reach a user's connections.
"""

from __future__ import annotations

import re
from typing import Any

#: That of all clients of an app, and of what concerns each worker.
ALL = "all"
#: Bytes of a name in UTF-8.
MAX_NAME = 255

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")


def room_channel(name: Any) -> str:
    """Return the channel of a room.

    :raises TypeError: for a name that is no str.
    :raises ValueError: for one that is empty, longer than 255 bytes of UTF-8, or has control
        characters in it.
    """
    return f"room:{_checked('room', name)}"


def user_channel(user: Any) -> str:
    """Return the channel of a user, of what ``identify`` returned; raises as above.

    Numbers are taken for their decimal digits, since databases count users.
    """
    return f"user:{_checked('user', str(user) if type(user) is int else user)}"


def user_of(user: Any) -> str:
    """Return the name of a user, as :func:`user_channel` takes it; raises as above."""
    return user_channel(user).partition(":")[2]


def worker_channel(worker: str) -> str:
    """Return the channel of a single worker, for answers to what it asked."""
    return f"worker:{worker}"


def room_of(channel: str) -> str | None:
    """Return the name of the room that a channel is of; None for another channel."""
    kind, _, name = channel.partition(":")
    return name if kind == "room" else None


def _checked(kind: str, name: Any) -> str:
    if not isinstance(name, str):
        kinds = "a str or an int" if kind == "user" else "a str"
        raise TypeError(f"a {kind} is named by {kinds}, not by {type(name).__name__}")
    if _CONTROL.search(name):
        raise ValueError(f"the name of a {kind} has no control characters: {name!a:.80}")
    if not 0 < len(name.encode()) <= MAX_NAME:
        raise ValueError(f"the name of a {kind} has 1 to {MAX_NAME} bytes of UTF-8: {name!a:.80}")
    return name
