"""Positions in the log of a kept room, and what a client is told that joins a room."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

#: 15 digits are exact as a number of JavaScript's, and of Lua's.
_POSITION = re.compile(r"([0-9a-z]{1,32})\.(0|[1-9][0-9]{0,14})", re.ASCII)


class Position(NamedTuple):
    """How far a log has been read.

    :param epoch: of the log: another one means that it is not the log that was read.
    :param offset: of the last message that was read; they count from 1, without holes.
    """

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.offset}"

    @classmethod
    def parse(cls, text: object) -> Position | None:
        """Read what :func:`str` has made of one; None for all else, which clients may send."""
        found = _POSITION.fullmatch(text) if isinstance(text, str) else None
        return None if found is None else cls(found[1], int(found[2]))


def new_epoch() -> str:
    """Make the epoch of a new log, which no other log has."""
    return os.urandom(6).hex()


class Joined(NamedTuple):
    """A room that a client is in.

    :param room: its name.
    :param position: from where on the client gets every message; None where none are kept.
    :param recovered: whether it has got all that came since the position that it asked for; None
        if it did not ask. Where it is False, the client has to load the room's state anew.
    :param replayed: how many messages of the past it has got.
    """

    room: str
    position: str | None = None
    recovered: bool | None = None
    replayed: int = 0
