"""Scripts in Lua: what a server does in one step that others see done or not done."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from typing import Any

from .link import Command

_RUN = b"EVALSHA"


class Script:
    """A script, which servers remember by its hash."""

    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self.hash = sha1(self.text, usedforsecurity=False).hexdigest().encode()

    def call(self, keys: Sequence[bytes], *arguments: bytes | str | float) -> Call:
        """Return the command that runs it; in a cluster all keys are of one slot."""
        return (_RUN, self, len(keys), *keys, *arguments)


#: A command, in which a script may stand for its hash.
Call = tuple[Any, ...]


def name_in(call: Call) -> bytes:
    """Return the key or channel that a command is about: it tells the slot."""
    name: bytes = call[3] if call[0] == _RUN else call[1]
    return name


def commands_of(calls: Sequence[Call]) -> Sequence[Command]:
    """Put hashes in the place of scripts; of several commands the first has the script's text.

    So a server that has lost its scripts knows this one for all of them. Else those before another
    process told it again would fail, and those after would overtake them.
    """
    if not [call for call in calls if call[0] == _RUN]:
        return calls
    told: set[Script] = set()
    return [_command_of(call, len(calls) == 1, told) for call in calls]


def _command_of(call: Call, is_alone: bool, told: set[Script]) -> Command:
    script = call[1] if call[0] == _RUN else None
    if script is None:
        return call
    if is_alone or script in told:
        return (_RUN, script.hash, *call[2:])
    told.add(script)
    return with_text(call)


def with_text(call: Call) -> Command:
    """Return the same for a server that does not know the script."""
    return (b"EVAL", call[1].text, *call[2:])
