"""The options of rooms, by patterns of their names."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Literal, TypeVar, get_args

from ..helpers.checks import SECONDS, SECONDS_OR_NONE, SWITCH, Kind, nearest, whole

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


#: Messages of a kept room: more is a database's work.
MAX_COUNT = 10_000
#: Bytes of the messages of a kept room; older ones go.
MAX_KEPT = 16 << 20


@dataclass(frozen=True, slots=True)
class History:
    """How much a room keeps of what is sent to it: 16 MiB at most.

    :param count: of messages: 10,000 at most.
    :param seconds: for which each is kept.
    :raises ValueError: for a value that cannot be meant.
    """

    count: int = 100
    seconds: float = 300.0

    def __post_init__(self) -> None:
        whole(1, MAX_COUNT, " of messages").check("count", self.count)
        SECONDS.check("seconds", self.seconds)


@dataclass(frozen=True, slots=True)
class PresenceOptions:
    """How a room tells who is in it.

    :param grace: seconds for which somebody whose last connection has gone is still there.
    :raises ValueError: for a value that cannot be meant.
    """

    grace: float = 10.0

    def __post_init__(self) -> None:
        SECONDS_OR_NONE.check("grace", self.grace)


class Room:
    """What the options of a room are made by: ``history=Room.history(count=500)``."""

    history = History
    presence = PresenceOptions


@dataclass(frozen=True, slots=True)
class RoomOptions:
    """The options of a room.

    :param slow: what becomes of clients that read too slowly.
    :param max_members: how many there may be, of users where there is presence; None for any
        number.
    :param history: what it keeps, so that clients can resume: True for 100 messages and 300
        seconds, or a :class:`History`; None for nothing.
    :param presence: whether it can be asked who is there: True, or a :class:`PresenceOptions`.
    :param announce: whether its clients are told who comes and leaves.
    :raises ValueError: for a value that cannot be meant.
    """

    slow: Slow = "close"
    max_members: int | None = None
    history: History | None = None
    presence: PresenceOptions | None = None
    announce: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "history", _made("history", self.history, History))
        object.__setattr__(self, "presence", _made("presence", self.presence, PresenceOptions))
        SWITCH.check("announce", self.announce)
        if self.announce and self.presence is None:
            raise ValueError("announce needs presence=True: else nobody knows who is there")
        if self.slow not in SLOW:
            choices = ", ".join(map(repr, SLOW))
            hint = nearest(self.slow, SLOW) if isinstance(self.slow, str) else ""
            raise ValueError(f"slow is {self.slow!r}: it must be one of {choices}{hint}")
        _MAX_MEMBERS.check("max_members", self.max_members)


_T = TypeVar("_T")


def _made(name: str, value: Any, kind: type[_T]) -> _T | None:
    """Return an option that may be given as a switch."""
    if value is None or isinstance(value, kind):
        return value
    if value is True or value is False:
        return kind() if value else None
    raise ValueError(f"{name} is {value!r}: it must be True, False or Room.{name}(...)")


class RoomPatterns:
    """Which options a room has: those of the first pattern that its name matches.

    Patterns are those of shells, as :mod:`fnmatch` reads them: ``*``, ``?``, ``[a-z]``.
    """

    def __init__(self) -> None:
        self._options: dict[str, RoomOptions] = {}
        self._in_use = False
        #: Whether any room keeps what is sent to it.
        self.keep = False
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
        made = self._options[pattern] = RoomOptions(**options)
        self.keep |= made.history is not None

    def have_presence(self) -> bool:
        """Return whether there are rooms with presence."""
        return any(options.presence is not None for options in self._options.values())

    def describe(self) -> str:
        """Return all of them as JSON, for processes that do not have the app."""
        return json.dumps({pattern: asdict(options) for pattern, options in self._options.items()})

    @classmethod
    def described(cls, text: str) -> RoomPatterns:
        """Make those of a description; ValueError for what is none, or one of another release."""
        patterns = cls()
        try:
            for pattern, options in json.loads(text).items():
                history, presence = options.pop("history"), options.pop("presence")
                patterns.add(
                    pattern,
                    history=history and History(**history),
                    presence=presence and PresenceOptions(**presence),
                    **options,
                )
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"no description of rooms that this release knows: {error}") from None
        return patterns

    def pattern_of(self, room: str) -> str | None:
        """Return the pattern whose options a room has; None where it matches none."""
        self._in_use = True
        return next((each for each in self._options if fnmatchcase(room, each)), None)

    def _find(self, room: str) -> RoomOptions:
        pattern = self.pattern_of(room)
        return DEFAULT if pattern is None else self._options[pattern]


#: Of rooms that match no pattern, and of what is sent to users and to all.
DEFAULT = RoomOptions()
