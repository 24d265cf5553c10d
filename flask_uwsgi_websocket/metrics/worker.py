"""The figures of one app of an extension in one process."""

from __future__ import annotations

from _thread import RLock
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from ..helpers.log import RateLimit, log_exception
from .observers import Observers, Refusal
from .route import RouteMetrics
from .snapshot import WorkerSnapshot


class WorkerMetrics:
    """What an extension counts for an app in this process; a child made by fork begins anew.

    :param connections: gives the open connections of the process that may be the app's.
    :param patterns: gives those of all routes, which are in each snapshot then: what collects the
        figures sees a counter rise only where it has seen it before.
    :param observers: are notified of openings, ends and refusals.
    """

    def __init__(
        self,
        connections: Callable[[], Iterable[Any]] = tuple,
        patterns: Callable[[], Iterable[str]] = tuple,
        observers: Observers | None = None,
    ) -> None:
        self._connections = connections
        self._patterns = patterns
        #: More parts of the snapshot, by their key in it.
        self.sources: dict[str, Callable[[], dict[str, Any]]] = {}
        self.observers = Observers() if observers is None else observers
        self._errors = RateLimit(5)
        self._begin()

    def _begin(self) -> None:
        # May be acquired again: a signal handler, or the end of an object, may come in between.
        self._lock = RLock()
        self._routes: dict[str, RouteMetrics] = {}
        self._refused: Counter[str] = Counter()

    def leave_to_parent(self) -> None:
        """Begin anew, in a child process: what was counted is its parent's."""
        self._begin()

    def route(self, pattern: str) -> RouteMetrics:
        """Return the figures of a route, by its pattern; it is there from then on."""
        route = self._routes.get(pattern)
        if route is None:
            with self._lock:
                route = self._routes.setdefault(
                    pattern, RouteMetrics(pattern, self._lock, self.observers)
                )
        return route

    def refused(self, reason: str, pattern: str | None = None) -> None:
        """Count a request for a WebSocket that was refused; ``pattern`` is of its route, if any.

        :param reason: a key of :data:`~.observers.REASONS`.
        """
        if pattern is not None:
            self.route(pattern).refused(reason)
        else:
            with self._lock:
                self._refused[reason] += 1

    def report_refusal(self, environ: dict[str, Any], refusal: Refusal) -> None:
        """Count a refusal, and notify the observers."""
        self.refused(refusal.reason, refusal.route)
        self.observers.notify("refused", environ, refusal)

    def snapshot(self) -> WorkerSnapshot:
        """Return all figures, as plain data."""
        for pattern in self._patterns():
            self.route(pattern)
        with self._lock:  # an end that is counted meanwhile would be missed, or counted twice
            by_route: defaultdict[Any, list[Any]] = defaultdict(list)
            for connection in self._connections():
                by_route[connection.route].append(connection)
            routes = {
                pattern: route.snapshot(by_route.get(route, ()))
                for pattern, route in self._routes.items()
            }
            refused = dict(self._refused)
        snapshot: Any = {
            "open": sum(route["open"] for route in routes.values()),
            "routes": routes,
            "refused": refused,
        }
        for key, source in self.sources.items():
            try:
                snapshot[key] = source()
            except Exception as error:
                if self._errors.passes():
                    log_exception("the figures of %s are missing after an error", key, error=error)
        return snapshot  # type: ignore[no-any-return]
