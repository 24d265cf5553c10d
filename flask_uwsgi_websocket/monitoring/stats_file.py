"""The file in which a worker writes what it has counted, and how anybody reads it.

It is JSON: a line for all but the routes, and one for each of these. It is written beside, and
then renamed: who reads it sees all of the last one or all of the one before. Its writer keeps it
open and locked, so that its death shows, and touches it where nothing has changed, so that the
file's age is the time since its last sign of life. What is found in its place and is no such file
counts as missing; nobody waits for it.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from ..metrics.snapshot import add, without_gauges
from ..metrics.worker import WorkerMetrics
from ..rooms.local.directory import FIGURES, Directory, is_locked, lock_file
from ..rooms.metrics import PatternMetrics, RoomsMetrics

#: Bytes of the largest file that is read: those of some ten thousand routes.
MAX_SIZE = 32 << 20
#: How deep parts of a snapshot are nested, at most.
_DEPTH = 12


class Reading(NamedTuple):
    """What is in a worker's file.

    :param age: seconds for which its writer has been silent.
    :param is_writer_alive: whether that lives.
    """

    figures: dict[str, Any]
    age: float
    is_writer_alive: bool


class StatsFile:
    """The file of this worker, to write to.

    :param number: that of the worker.
    """

    def __init__(self, directory: Directory, number: int) -> None:
        self._directory = directory
        self._name = f"{number}{FIGURES}"
        self._fd = -1

    def write(self, figures: dict[str, Any], routes: Iterable[str]) -> None:
        """Put figures in the place of those that are there.

        :param routes: the lines of those of routes.
        :raises OSError: as the system says; nothing has changed then.
        """
        head = {**figures, "counted": {**figures["counted"], "routes": {}}}
        data = "\n".join([json.dumps(head, separators=(",", ":")), *routes]).encode()
        beside = f".{self._name}"
        fd = self._make(beside)
        try:
            while data:
                data = data[os.write(fd, data) :]
            with suppress(OSError):  # a file system without locks
                lock_file(fd)
            self._directory.rename(beside, self._name)
        except BaseException:
            os.close(fd)
            self._directory.unlink(beside)
            raise
        self.close()
        self._fd = fd

    def _make(self, name: str) -> int:
        """Make a file, whatever has its name: a worker that was killed may have left one."""
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        try:
            return self._directory.open(name, flags)
        except FileExistsError:
            self._directory.unlink(name)
            return self._directory.open(name, flags)

    def touch(self) -> bool:
        """Mark the writer as alive; return False where the file is gone."""
        if self._fd < 0 or not os.fstat(self._fd).st_nlink:
            return False
        os.utime(self._fd)
        return True

    def close(self) -> None:
        """Let go of the file, which then is that of a worker that has ended."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_stats_files(fd: int) -> dict[int, Reading]:
    """Return what is in the files of a directory, by the numbers of the workers."""
    files = {}
    for name in os.listdir(fd):
        number = name.removesuffix(FIGURES)
        if number != name and number.isascii() and number.isdecimal():
            found = read_stats_file(fd, name)
            if found is not None:
                files[int(number)] = found
    return dict(sorted(files.items()))


def read_stats_file(directory: int, name: str) -> Reading | None:
    """Read a file in a directory; return None where there is none, or something else."""
    try:
        # Neither through a link, nor waiting for who opens the other end of a pipe.
        flags = os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0)
        fd = os.open(name, flags, dir_fd=directory)
    except OSError:
        return None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            return None
        figures = _parsed(_content(fd))
        if figures is None:
            return None
        is_writer_alive = is_locked(fd) or not os.fstat(fd).st_nlink  # replaced just now
        return Reading(figures, max(time.time() - found.st_mtime, 0.0), is_writer_alive)
    except OSError:
        return None
    finally:
        os.close(fd)


def _content(fd: int) -> bytes:
    parts, left = [], MAX_SIZE
    while left > 0 and (part := os.read(fd, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts) if left > 0 else b""


def _parsed(content: bytes) -> dict[str, Any] | None:
    """Return the figures, or None for what has not their form.

    A worker of another release may have written them: what it did not know is 0.
    """
    try:
        head, *routes = content.splitlines()
        figures = json.loads(head)
        pid, started, engine = figures["pid"], figures["started"], figures["engine"]
        counted = figures["counted"]
        counted["routes"].update(map(json.loads, routes))
        if type(pid) is not int or not _is_number(started) or type(engine) is not str:
            return None
        figures.setdefault("workers", 0)
        figures.setdefault("dismissed", False)
        if type(figures["workers"]) is not int or type(figures["dismissed"]) is not bool:
            return None
        if not all(type(pattern) is str for pattern in counted["routes"]):
            return None
        if not _is_counted(counted) or not all(map(_is_number, counted["refused"].values())):
            return None
        counted["routes"] = {pattern: _route(route) for pattern, route in counted["routes"].items()}
        if "rooms" in counted:
            counted["rooms"] = _rooms(counted["rooms"])
        figures["counted"] = add(WorkerMetrics().snapshot(), counted)
        return dict(figures)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None


def _route(route: Any) -> Any:
    """Return a route's figures, all of them.

    :raises TypeError: for what they cannot be.
    """
    whole = add(_EMPTY_ROUTE, route)
    for numbers in (whole["refused"], *whole["closed"].values()):
        if not all(map(_is_number, numbers.values())):
            raise TypeError
    return whole


def _rooms(rooms: Any) -> Any:
    """Return the figures of rooms, as :func:`_route`."""
    whole = add(_EMPTY_ROOMS, rooms)
    patterns = whole["patterns"].items()
    return {**whole, "patterns": {name: add(_EMPTY_PATTERN, each) for name, each in patterns}}


_EMPTY_ROUTE: Any = WorkerMetrics().route("").snapshot()
_EMPTY_ROOMS: Any = RoomsMetrics().snapshot()
_EMPTY_PATTERN: Any = PatternMetrics().snapshot()


def after_end(counted: dict[str, Any]) -> dict[str, Any]:
    """Return what a worker has counted that has ended: who was there then is gone."""
    ended = without_gauges(counted)
    for pattern, route in counted["routes"].items():
        if route["open"]:
            lost: Any = {"closed": {"lost": {"1006": route["open"]}}}
            ended["routes"][pattern] = add(ended["routes"][pattern], lost)
    for rooms in ended.get("rooms", {}).get("patterns", {}).values():
        rooms["leaves"] = rooms["joins"]
    return ended


def _is_counted(part: Any, depth: int = 0) -> bool:
    """Return whether something is made of figures: numbers, histograms, and parts by name."""
    if not isinstance(part, dict):
        return _is_number(part)
    if isinstance(part.get("bounds"), list):
        return _is_histogram(part)
    return depth < _DEPTH and all(_is_counted(each, depth + 1) for each in part.values())


def _is_histogram(part: dict[str, Any]) -> bool:
    bounds, counts, total = (part.get(key) for key in ("bounds", "counts", "sum"))
    return (
        isinstance(bounds, list)
        and isinstance(counts, list)
        and len(counts) == len(bounds) + 1
        and all(map(_is_number, [*bounds, *counts, total]))
    )


def _is_number(value: Any) -> bool:
    # An integer may be larger than any float, which who shows it would make of it.
    return type(value) in (int, float) and 0 <= value <= sys.float_info.max
