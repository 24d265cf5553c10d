"""Figures of an app's WebSockets, as people read them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from ..helpers.text import printable
from ..monitoring.stats import BLOCKED, ENDED, LIVE

Stats = Mapping[str, Any]
#: Counters of a route that people compare.
TRAFFIC = ("messages_received", "messages_sent", "bytes_received", "bytes_sent")


def short(number: float) -> str:
    """Write a number in at most five characters."""
    if 0 < number < 9.95 and number != int(number):
        return f"{number:.1f}"
    for unit in ("", "k", "M", "G", "T"):
        if number < 999.5:
            return f"{number:.0f}{unit}" if not unit or number >= 9.95 else f"{number:.1f}{unit}"
        number /= 1000
    return f"{number:.0f}P"


def milliseconds(seconds: float | None) -> str:
    """Write a duration; nothing where there is none."""
    return "" if seconds is None else f"{short(seconds * 1000)}ms"


def duration(seconds: float) -> str:
    """Write how long something takes, in its largest unit."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def mean(histogram: Mapping[str, Any]) -> float | None:
    """Return the mean of what a histogram has counted; None where that is nothing."""
    count = sum(histogram["counts"])
    return histogram["sum"] / count if count else None


def sum_of(routes: Iterable[Mapping[str, Any]], name: str) -> Any:
    """Return the sum of a figure over routes."""
    return sum(route[name] for route in routes)


def refusals(part: Stats) -> int:
    """Return how many were refused by all routes, and by none."""
    return refused(part) + sum(map(refused, part["routes"].values()))


def refused(route: Stats) -> int:
    """Return how many a route has refused, or none of them."""
    total: int = sum(route["refused"].values())
    return total


def slow(route: Stats) -> int:
    """Return for how many clients, or messages to them, a route was too fast."""
    total: int = sum(route["slow"].values())
    return total


def state_of(worker: Stats) -> str:
    """Return how a worker is, and for how long it has been silent where that says something."""
    state: str = worker["state"]
    return f"{state} {duration(worker['age'])}" if state == BLOCKED else state


def headline(stats: Stats) -> str:
    """Return whose figures these are, and how many workers there are in each state."""
    states = [worker["state"] for worker in stats["workers"]]
    running = states.count(LIVE) + states.count(BLOCKED)
    parts = [f"{running} worker{'s' * (running != 1)}"]
    parts += [f"{states.count(state)} {state}" for state in (BLOCKED, ENDED) if state in states]
    pid = stats["instance"].partition(".")[0]
    return f"{printable(stats['app'])}: {stats['open']} open, {', '.join(parts)} (uWSGI {pid})"


def width_of(text: str) -> int:
    """Return how many columns a terminal needs for a text that is printable."""
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )


def fitted(text: object, width: int, right: bool = False) -> str:
    """Return what is printable of a text, in exactly so many columns."""
    shown = printable(text)
    if width_of(shown) > width:
        while shown and width_of(shown) >= width:
            shown = shown[:-1]
        shown += "…" if width else ""
    space = " " * (width - width_of(shown))
    return space + shown if right else shown + space
