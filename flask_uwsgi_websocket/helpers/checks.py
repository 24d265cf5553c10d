"""Settings: kinds of values, the errors for others, and switches in the environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flask import Flask

#: What C can wait for in nanoseconds is 292 years; nobody needs more than this, in seconds.
_LONGEST = 1e9


@dataclass(frozen=True)
class Kind:
    """A kind of values; ``words`` say what is accepted, for the error."""

    words: str
    accepts: Callable[[Any], bool]

    def check(self, name: str, value: Any) -> None:
        """Check that what has this name is of this kind; ValueError says what is accepted."""
        if not self.accepts(value):
            raise ValueError(f"{name} is {value!r}: it must be {self.words}")


def whole(lowest: int, highest: float, unit: str = "") -> Kind:
    """Make the kind of the whole numbers of a range."""
    end = f"{lowest} or more" if highest == float("inf") else f"from {lowest} to {highest}"
    return Kind(
        f"a whole number{unit}, {end}",
        lambda value: _is_number(value, int) and lowest <= value <= highest,
    )


def _is_number(value: Any, kind: Any = (int, float)) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


BYTES = whole(1, float("inf"), " of bytes")
BYTES_OR_NONE = whole(0, float("inf"), " of bytes")
#: Of a buffer of the kernel's, whose size is a C int.
BUFFER = Kind(
    f"None for the system's or {whole(1, 2**31 - 1, ' of bytes').words}",
    lambda value: value is None or whole(1, 2**31 - 1).accepts(value),
)
SECONDS = Kind(
    f"a number of seconds above 0, {_LONGEST:,.0f} at most",
    lambda v: _is_number(v) and 0 < v <= _LONGEST,
)
SECONDS_OR_NONE = Kind(
    f"a number of seconds, {_LONGEST:,.0f} at most, or 0 for none",
    lambda v: _is_number(v) and 0 <= v <= _LONGEST,
)


#: Messages of a rate: more than anybody sends, and what floats count exactly.
_MOST = 1_000_000_000


def _is_rate(value: Any) -> bool:
    return (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and whole(1, _MOST).accepts(value[0])
        and SECONDS.accepts(value[1])
    )


#: A list is what JSON has, as in the environment.
RATE_OR_NONE = Kind(
    f"None for any or (messages, seconds): a whole number from 1 to {_MOST:,} and seconds above 0",
    lambda value: value is None or _is_rate(value),
)
RATE_OR_FALSE = Kind(
    RATE_OR_NONE.words.replace("None", "False"), lambda value: value is False or _is_rate(value)
)
#: Each handshake of who has all of them looks at each.
CONNECTIONS = whole(1, 1024)
CONNECTIONS_OR_NONE = Kind(
    f"None for any number or {CONNECTIONS.words}", lambda v: v is None or CONNECTIONS.accepts(v)
)
CONNECTIONS_OR_FALSE = Kind(
    f"False for any number or {CONNECTIONS.words}", lambda v: v is False or CONNECTIONS.accepts(v)
)
# 0 and 1 are what the environment has, as Flask's from_prefixed_env() reads it.
SWITCH = Kind("True or False", lambda v: isinstance(v, int) and v in (0, 1))


def nearest(name: str, known: Collection[str], prefix: str = "") -> str:
    """Suggest the known name that was meant, prefixed, to end a message; "" if none is similar."""
    similar = get_close_matches(name, known, n=1)
    return f": did you mean {prefix}{similar[0]}?" if similar else ""


def is_on(variable: str, default: bool = False) -> bool:
    """Read yes or no from the environment, as Flask does; the default if it is unset or empty."""
    value = os.environ.get(variable)
    return value.lower() not in ("0", "false", "no") if value else default


def propagates(app: Flask) -> bool:
    """Return whether an app's exceptions go on to its caller, by Flask's own key."""
    propagate = app.config["PROPAGATE_EXCEPTIONS"]
    return bool(app.testing or app.debug if propagate is None else propagate)
