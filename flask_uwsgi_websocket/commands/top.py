"""``flask websocket top``: the figures of an app in the terminal, again and again.

What is drawn is lines of text, which know no terminal; curses only puts them on it.
"""

from __future__ import annotations

import curses
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from ..monitoring.stats import BLOCKED, LIVE, shown_workers
from .figures import (
    TRAFFIC,
    Stats,
    fitted,
    headline,
    mean,
    milliseconds,
    refusals,
    short,
    state_of,
    sum_of,
)

#: Seconds between two samples of a worker's, at least, to make a speed of.
_SAME = 0.2
#: Seconds until the second refresh, the first with speeds.
_SOON = 1.0

NORMAL, STRONG, HEAD, ALERT = range(4)
Line = tuple[str, int]
Speeds = Mapping[str, float]
NOTHING: Speeds = dict.fromkeys(TRAFFIC, 0.0)

#: What is behind the name in each line, and in how many columns.
_COLUMNS = (
    ("Open", 6),
    ("In/s", 6),
    ("Out/s", 6),
    ("InB/s", 6),
    ("OutB/s", 6),
    ("Queued", 6),
    ("Err", 5),
    ("Ping", 7),
)
_BEHIND = sum(width + 1 for _, width in _COLUMNS)


class Speedometer:
    """Knows the speeds, each between the last two samples of a worker's."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[float, Any]] = {}
        #: By worker and route.
        self.speeds: dict[int, dict[str, Speeds]] = {}

    def take(self, stats: Stats) -> None:
        """Take new figures."""
        for worker in stats["workers"]:
            number, sampled = worker["worker"], stats["time"] - worker["age"]
            counted = {
                pattern: {name: route[name] for name in TRAFFIC}
                for pattern, route in worker["routes"].items()
            }
            last = self._last.get(number)
            if worker["state"] != LIVE:
                self.speeds.pop(number, None)
            elif last is None or sampled - last[0] >= _SAME:
                self._last[number] = sampled, counted
                if last is not None:
                    self.speeds[number] = _speeds(last[1], counted, sampled - last[0])

    def of_worker(self, number: int) -> Speeds:
        """Return the speeds of a worker."""
        return _sum(self.speeds.get(number, {}).values())

    def of_route(self, pattern: str) -> Speeds:
        """Return those of a route, on all workers."""
        return _sum(routes.get(pattern, NOTHING) for routes in self.speeds.values())

    def of_all(self) -> Speeds:
        """Return those of all together."""
        return _sum(map(self.of_worker, self.speeds))


def _speeds(last: Any, now: Any, seconds: float) -> dict[str, Speeds]:
    return {
        pattern: {
            name: max(value - last.get(pattern, NOTHING)[name], 0) / seconds
            for name, value in route.items()
        }
        for pattern, route in now.items()
    }


def _sum(parts: Any) -> Speeds:
    listed = list(parts)
    return {name: sum(part[name] for part in listed) for name in TRAFFIC}


class Row(NamedTuple):
    """A route or a worker."""

    name: str
    open: int
    speeds: Speeds
    queued: int
    errors: int
    ping: float | None
    is_bad: bool = False


#: By which key what is sorted, and by which word the last line says so.
SORTINGS: dict[str, tuple[str, Callable[[Row], Any]]] = {
    "o": ("open", lambda row: row.open),
    "i": ("in", lambda row: row.speeds["messages_received"]),
    "u": ("out", lambda row: row.speeds["messages_sent"]),
    "b": ("bytes", lambda row: row.speeds["bytes_received"] + row.speeds["bytes_sent"]),
    "e": ("errors", lambda row: row.errors),
    "p": ("ping", lambda row: row.ping or 0.0),
    "n": ("name", lambda row: row.name),
}


class Screen:
    """What is shown, and how: the keys change that."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self._speedometer = Speedometer()
        self._trouble = ""
        self.sorting, self.reversed, self.position = "o", False, 0
        self.take(stats)

    def take(self, new: Stats | str) -> None:
        """Take new figures; or why there are none, and show the old ones on."""
        self._trouble = new if isinstance(new, str) else ""
        if not isinstance(new, str):
            if new["instance"] != self._stats["instance"]:
                self._speedometer = Speedometer()
            self._stats = new
            self._speedometer.take(new)

    def press(self, key: str) -> bool:
        """Do what a key means; return whether it means to end."""
        if key in SORTINGS:
            self.sorting, self.position = key, 0
        elif key == "r":
            self.reversed = not self.reversed
        else:
            self.position += {"down": 1, "up": -1, "next": 10, "previous": -10}.get(key, 0)
        return key in ("q", "Q", "\x03")

    def lines(self, width: int, height: int) -> list[Line]:
        """Return what fits into a terminal."""
        workers, routes = self._workers(), self._routes()
        most = max((height - 6) // 2, 1)
        if len(workers) > most:  # first those that somebody should look at
            workers = sorted(workers, key=lambda row: not row.is_bad)[:most]
        lines = [*self._head(width), *_table("Worker", workers, width)]
        space = max(height - len(lines) - 3, 0)
        self.position = max(min(self.position, len(routes) - space), 0)
        shown = routes[self.position : self.position + space]
        lines += [("", NORMAL), *_table("Route", shown, width)]
        lines = lines[: max(height - 1, 0)]
        lines += [("", NORMAL)] * (height - 1 - len(lines))
        return [*lines, (self._keys(width), HEAD)]

    def _head(self, width: int) -> list[Line]:
        stats, speeds = self._stats, self._speedometer.of_all()
        received, sent, bytes_in, bytes_out = (short(speeds[name]) for name in TRAFFIC)
        routes = stats["routes"].values()
        second = (
            f"in {received}/s {bytes_in}B/s   out {sent}/s {bytes_out}B/s   accepted "
            f"{short(sum_of(routes, 'accepted'))}   refused {short(refusals(stats))}   errors "
            f"{short(sum_of(routes, 'errors'))}"
        )
        clock = time.strftime("%H:%M:%S", time.localtime(stats["time"]))
        first = fitted(headline(stats), max(width - len(clock) - 1, 0))
        third = (fitted(self._trouble.partition("\n")[0], width), ALERT)
        return [
            (fitted(f"{first} {clock}", width), STRONG),
            (fitted(second, width), NORMAL),
            third if self._trouble else ("", NORMAL),
        ]

    def _workers(self) -> list[Row]:
        return [
            _row(
                f"{worker['worker']} {worker['pid']} {state_of(worker)}",
                worker["routes"].values(),
                self._speedometer.of_worker(worker["worker"]),
                worker["state"] == BLOCKED,
            )
            for worker in shown_workers(self._stats)
        ]

    def _routes(self) -> list[Row]:
        rows = [
            _row(pattern, [route], self._speedometer.of_route(pattern))
            for pattern, route in sorted(self._stats["routes"].items())
        ]
        largest_first = self.sorting != "n"
        return sorted(
            rows, key=SORTINGS[self.sorting][1], reverse=largest_first is not self.reversed
        )

    def _keys(self, width: int) -> str:
        words = [
            f"{key} {name.upper() if key == self.sorting else name}"
            for key, (name, _) in SORTINGS.items()
        ]
        return fitted(f"q quit  sort: {'  '.join(words)}  r reverse", width)


def _row(name: str, routes: Any, speeds: Speeds, is_bad: bool = False) -> Row:
    listed = list(routes)
    pings = [route["ping"] for route in listed]
    counts = sum(sum(ping["counts"]) for ping in pings)
    return Row(
        name,
        sum_of(listed, "open"),
        speeds,
        sum_of(listed, "queued_bytes"),
        sum_of(listed, "errors"),
        mean({"counts": [counts], "sum": sum(ping["sum"] for ping in pings)}),
        is_bad,
    )


def _table(head: str, rows: list[Row], width: int) -> list[Line]:
    first = max(width - _BEHIND, 12)
    heads = [fitted(head, first), *(fitted(name, size, right=True) for name, size in _COLUMNS)]
    lines = [(fitted(" ".join(heads), width), HEAD)]
    for row in rows:
        cells = (
            short(row.open),
            *(short(row.speeds[name]) for name in TRAFFIC),
            short(row.queued),
            short(row.errors),
            milliseconds(row.ping),
        )
        numbers = (
            fitted(cell, size, right=True) for cell, (_, size) in zip(cells, _COLUMNS, strict=True)
        )
        line = " ".join([fitted(row.name, first), *numbers])
        lines.append((fitted(line, width), ALERT if row.is_bad else NORMAL))
    return lines


# -- the terminal ------------------------------------------------------------------------


def watch(first: Stats, read: Callable[[], Stats | str], interval: float) -> None:
    """Show figures until somebody presses q.

    :param read: returns the figures, or why there are none.
    :param interval: seconds between two refreshes.
    :raises OSError: for a terminal of which nothing is known.
    """
    screen = Screen(first)
    try:
        curses.setupterm()
    except curses.error as error:
        raise OSError(
            f"nothing is known of the terminal {os.environ.get('TERM', '')!r} ({error}): set TERM, "
            "to xterm for instance, or use stats"
        ) from None
    with suppress(KeyboardInterrupt):
        curses.wrapper(lambda window: _run(window, screen, read, interval))


_NAMES = {
    curses.KEY_DOWN: "down",
    curses.KEY_UP: "up",
    curses.KEY_NPAGE: "next",
    curses.KEY_PPAGE: "previous",
}


def _run(window: Any, screen: Screen, read: Callable[[], Stats | str], interval: float) -> None:
    with suppress(curses.error):
        curses.use_default_colors()
        curses.curs_set(0)
    due = time.monotonic() + min(_SOON, interval)
    while True:
        _draw(window, screen)
        window.timeout(max(int((due - time.monotonic()) * 1000), 0))
        key = window.getch()
        if key == curses.KEY_RESIZE:
            window.clear()  # what the terminal has made of the old lines nobody knows: all anew
        if key >= 0 and screen.press(_NAMES.get(key, chr(key) if key < 256 else "")):
            return
        if key < 0 and not sys.stdin.isatty():  # the terminal has gone, as with an ssh
            return
        if time.monotonic() >= due:
            screen.take(read())
            due = time.monotonic() + interval


def _draw(window: Any, screen: Screen) -> None:
    height, width = window.getmaxyx()
    styles = {
        NORMAL: curses.A_NORMAL,
        STRONG: curses.A_BOLD,
        HEAD: curses.A_REVERSE,
        ALERT: curses.A_BOLD | curses.A_STANDOUT,
    }
    window.erase()
    encoding = sys.stdout.encoding or "ascii"
    for number, (text, style) in enumerate(screen.lines(width, height)):
        shown = text.encode(encoding, "replace").decode(encoding)
        with suppress(curses.error):  # the terminal has become smaller, or this is its last cell
            window.addnstr(number, 0, shown, width, styles[style])
    window.refresh()
