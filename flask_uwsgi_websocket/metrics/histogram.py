"""A histogram of seconds, with fixed bounds."""

from __future__ import annotations

from _thread import RLock
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from operator import add
from typing import TypedDict


class HistogramSnapshot(TypedDict):
    """How many were up to each bound and above the one before; the last, how many above all."""

    bounds: list[float]
    counts: list[int]
    sum: float


class Histogram:
    """Counts values by size; for any thread.

    :param bounds: in ascending order; a value that is equal to one counts below it.
    """

    __slots__ = ("_bounds", "_counts", "_lock", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        if not bounds or any(low >= high for low, high in pairwise(bounds)):
            raise ValueError(f"the bounds of a histogram must ascend: {list(bounds)}")
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        # May be acquired again: a signal handler may come in between.
        self._lock = RLock()

    def observe(self, seconds: float) -> None:
        """Count a value."""
        place = bisect_left(self._bounds, seconds)
        with self._lock:
            self._counts[place] += 1
            self._sum += seconds

    def snapshot(self) -> HistogramSnapshot:
        with self._lock:
            return {"bounds": list(self._bounds), "counts": list(self._counts), "sum": self._sum}


def add_histograms(one: HistogramSnapshot, other: HistogramSnapshot) -> HistogramSnapshot:
    """Sum two snapshots, by the bounds of the first.

    They differ where two versions of an app count into one sum. What the other has in a bucket then
    counts as its upper bound.
    """
    bounds, counts = one["bounds"], list(one["counts"])
    if other["bounds"] == bounds:  # as a rule, and there may be thousands
        counts = list(map(add, counts, other["counts"]))
    else:
        for count, bound in zip(other["counts"], [*other["bounds"], float("inf")], strict=True):
            counts[bisect_left(bounds, bound)] += count
    return {"bounds": list(bounds), "counts": counts, "sum": one["sum"] + other["sum"]}
