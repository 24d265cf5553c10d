"""Snapshots: what they have in them, as plain data for JSON, and their sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypedDict, TypeVar

from .histogram import HistogramSnapshot, add_histograms


class Bytes(TypedDict):
    """Bytes of payload before and after compression."""

    bytes: int
    compressed: int


class Compression(TypedDict):
    received: Bytes
    sent: Bytes


class Slow(TypedDict):
    closed: int
    dropped: int
    conflated: int


class RouteSnapshot(TypedDict):
    """The figures of one route; docs/metrics.rst says what each means."""

    open: int
    accepted: int
    refused: dict[str, int]
    messages_received: int
    messages_sent: int
    bytes_received: int
    bytes_sent: int
    queued_bytes: int
    #: By who ended it, and the code.
    closed: dict[str, dict[str, int]]
    errors: int
    #: Connections that were ahead of their rate.
    limited: int
    slow: Slow
    ping: HistogramSnapshot
    duration: HistogramSnapshot
    compression: Compression


class WorkerSnapshot(TypedDict):
    """The figures of an extension in one worker; other parts may be beside these."""

    open: int
    routes: dict[str, RouteSnapshot]
    #: Requests that no route matched.
    refused: dict[str, int]


#: Figures that say what is now; all others count what has been.
GAUGES = frozenset({"open", "queued_bytes", "rooms", "members", "up", "pending_bytes", "log_bytes"})

#: Figures that are not summed: what all workers have in common and report alike; and what works if
#: it does for all of them, of which those that have ended know nothing.
CHOSEN: Mapping[str, Callable[[Any, Any], Any]] = {"log_bytes": max, "up": min}
_AT_END = {**dict.fromkeys(GAUGES, 0), "up": 1}

S = TypeVar("S")


def add(one: S, other: S) -> S:
    """Sum two snapshots, or parts of them, figure by figure; neither is changed.

    What only one of them has, the sum has too.
    """
    total: Any = _add(one, other)
    return total  # type: ignore[no-any-return]


def _add(one: Any, other: Any) -> Any:
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return one + other
    if _is_histogram(one) and _is_histogram(other):
        return add_histograms(one, other)  # type: ignore[arg-type]
    total = {**other, **one}
    for key in one.keys() & other.keys():
        mine, theirs = one[key], other[key]
        if isinstance(mine, dict):
            total[key] = _add(mine, theirs)
        else:
            total[key] = CHOSEN[key](mine, theirs) if key in CHOSEN else mine + theirs
    return total


def _is_histogram(part: dict[str, Any]) -> bool:
    """Distinguish it from a part whose keys are patterns, which may have any name."""
    return isinstance(part.get("bounds"), list)


def copied(snapshot: S) -> S:
    """Return a copy for whoever may change it; ``copy.deepcopy`` takes four times as long."""
    copy: Any = _copied(snapshot)
    return copy  # type: ignore[no-any-return]


def _copied(part: Any) -> Any:
    if isinstance(part, dict):
        return {key: _copied(each) for key, each in part.items()}
    return list(part) if isinstance(part, list) else part


def without_gauges(snapshot: S) -> S:
    """Return the snapshot of a worker that has ended: what it has counted, and nothing is open."""
    left: Any = _without_gauges(snapshot)
    return left  # type: ignore[no-any-return]


def _without_gauges(part: Any) -> Any:
    if not isinstance(part, dict) or _is_histogram(part):
        return part
    return {
        key: _AT_END.get(key, value) if not isinstance(value, dict) else _without_gauges(value)
        for key, value in part.items()
    }
