"""Sums of what several have counted for each route, and lines of JSON to write them by.

An app may have thousands of routes, of which few change within a second, and the worker's loop
waits meanwhile: only those that have changed are summed and encoded again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

from ..metrics.snapshot import add


class _Sum(NamedTuple):
    """The sum of a route, and what it was made of."""

    parts: list[Any]
    total: Any
    line: str

    def is_of(self, parts: list[Any]) -> bool:
        """Return whether it is the sum of these very objects: nobody changes a snapshot."""
        return len(parts) == len(self.parts) and all(map(_is, parts, self.parts))


def _is(one: object, other: object) -> bool:
    return one is other


class RouteSums:
    """The sums of all routes, by their patterns."""

    def __init__(self) -> None:
        self._sums: dict[str, _Sum] = {}

    def update(self, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the sums, figure by figure.

        :param parts: snapshots of routes by their patterns, each of an extension or a worker.
        """
        patterns = dict.fromkeys(pattern for part in parts for pattern in part)
        known = self._sums
        self._sums = {
            pattern: self._sum(pattern, [part[pattern] for part in parts if pattern in part], known)
            for pattern in patterns
        }
        return {pattern: each.total for pattern, each in self._sums.items()}

    def _sum(self, pattern: str, parts: list[Any], known: Mapping[str, _Sum]) -> _Sum:
        last = known.get(pattern)
        if last is not None and last.is_of(parts):
            return last
        total = reduce(add, parts)
        return _Sum(parts, total, json.dumps([pattern, total], separators=(",", ":")))

    def lines(self) -> list[str]:
        """Return JSON for each route: its pattern, and its figures."""
        return [each.line for each in self._sums.values()]
