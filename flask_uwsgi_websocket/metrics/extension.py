"""The figures of one extension in one process: those of each of its apps by themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any
from weakref import WeakSet

from .observers import Observers
from .snapshot import WorkerSnapshot, add
from .worker import WorkerMetrics


class ExtensionMetrics:
    """What an extension counts in this process.

    The parameters are those of :class:`WorkerMetrics`, for all of its apps.
    """

    def __init__(
        self,
        connections: Callable[[], Iterable[Any]],
        patterns: Callable[[], Iterable[str]],
    ) -> None:
        self._connections = connections
        self._patterns = patterns
        self._of_apps: WeakSet[WorkerMetrics] = WeakSet()
        #: Are notified of openings, ends and refusals, in all apps.
        self.observers = Observers()

    def of_new_app(self) -> WorkerMetrics:
        """Make the figures of one more app; they are part of these for as long as they are used."""
        metrics = WorkerMetrics(self._connections, self._patterns, self.observers)
        self._of_apps.add(metrics)
        return metrics

    def snapshot(self) -> WorkerSnapshot:
        """Return the sums of all apps, as plain data."""
        snapshots = [metrics.snapshot() for metrics in tuple(self._of_apps)]
        return reduce(add, snapshots, WorkerMetrics().snapshot())
