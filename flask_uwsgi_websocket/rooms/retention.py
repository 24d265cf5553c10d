"""What of a log is kept, and for how long."""

from __future__ import annotations

from collections.abc import Iterable

from .options import MAX_KEPT, History

#: Seconds for which a key makes it safe to send a message again.
KEY_TIME = 300.0
#: Bytes that a message costs besides its own.
OVERHEAD = 100
#: Seconds for which the epoch of a log without messages is kept, at least: else whoever comes back
#: to a quiet room would have to load it anew.
_LEAST_LIFE = 3600.0


def life(seconds: float) -> float:
    """Return for how many seconds a log is kept that nobody uses.

    :param seconds: for which its messages are.
    """
    return max(10 * seconds, _LEAST_LIFE)


def trim(
    entries: Iterable[tuple[int, float, int]], top: int, size: int, history: History, now: float
) -> tuple[int, int]:
    """Return which messages of a log are to go, so that it keeps what a history says.

    :param entries: offset, time and bytes of each, the oldest first; no more are taken than needed.
    :param size: bytes of all of them, with what each costs.
    :return: the offset of the last one to go, or 0; and the bytes of those that go.
    """
    last = freed = 0
    for offset, time, length in entries:
        is_within = offset > top - history.count and size - freed <= MAX_KEPT
        if is_within and time > now - history.seconds:
            break
        last = offset
        freed += length + OVERHEAD
    return last, freed
