"""The options of rooms, by patterns of their names."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Literal, get_args

from ..helpers.checks import Kind, nearest, whole

#: What becomes of the messages for a client that reads too slowly: it is closed with 1013; or it
#: gets the room's latest message once it reads again; or it gets the last ones that a queue holds.
Slow = Literal["close", "latest", "drop-oldest"]
SLOW: tuple[Slow, ...] = get_args(Slow)

#: Rooms whose options are remembered: what others are named is looked up anew.
REMEMBERED = 4096

_AT_LEAST_ONE = whole(1, float("inf"))
_MAX_MEMBERS = Kind(
    f"None or {_AT_LEAST_ONE.words}", lambda value: value is None or _AT_LEAST_ONE.accepts(value)
)


@dataclass(frozen=True, slots=True)
class RoomOptions:
    """The options of a room.

    :param slow: what becomes of clients that read too slowly.
    :param max_members: how many there may be; None for any number.
    :raises ValueError: for a value that cannot be meant.
    """

    slow: Slow = "close"
    max_members: int | None = None

    def __post_init__(self) -> None:
        if self.slow not in SLOW:
            choices = ", ".join(map(repr, SLOW))
            hint = nearest(self.slow, SLOW) if isinstance(self.slow, str) else ""
            raise ValueError(f"slow is {self.slow!r}: it must be one of {choices}{hint}")
        _MAX_MEMBERS.check("max_members", self.max_members)


class RoomPatterns:
    """Which options a room has: those of the first pattern that its name matches.

    Patterns are those of shells, as :mod:`fnmatch` reads them: ``*``, ``?``, ``[a-z]``.
    """

    def __init__(self) -> None:
        self._options: dict[str, RoomOptions] = {}
        self._in_use = False
        #: Returns the options of the room of this name.
        self.of = lru_cache(REMEMBERED)(self._find)

    def add(self, pattern: str, **options: Any) -> None:
        """Give options to the rooms whose names match a pattern, and no earlier one.

        :param options: those of :class:`RoomOptions`.
        :raises TypeError: for a pattern that is no str, and for options that there are not.
        :raises ValueError: for a pattern that has options already, and for wrong values.
        :raises RuntimeError: once a room is in use, which would have options of its own.
        """
        if not isinstance(pattern, str):
            raise TypeError(f"a pattern is a str, not {type(pattern).__name__}")
        if self._in_use:
            raise RuntimeError("options are set before the first room is used, where routes are")
        if pattern in self._options:
            raise ValueError(f"the pattern {pattern!r} has options already")
        self._options[pattern] = RoomOptions(**options)

    def _find(self, room: str) -> RoomOptions:
        self._in_use = True
        for pattern, options in self._options.items():
            if fnmatchcase(room, pattern):
                return options
        return DEFAULT


#: Of rooms that match no pattern, and of what is sent to users and to all.
DEFAULT = RoomOptions()
