"""The figures of all workers as the page shows them: bounded, whatever the app has."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

from ...metrics.snapshot import add
from ...metrics.worker import WorkerMetrics
from ..stats import shown_workers
from .rows import cut

#: Routes that are shown.
MOST_ROUTES = 50
#: What is summed over routes.
_COUNTED = (
    "accepted",
    "messages_received",
    "messages_sent",
    "bytes_received",
    "bytes_sent",
    "queued_bytes",
    "errors",
)


def summary(stats: dict[str, Any]) -> dict[str, Any]:
    """Make the page's message of what :meth:`~.extension.WebSocket.stats` returns."""
    routes: dict[str, Any] = stats["routes"]
    total: Any = reduce(add, routes.values(), WorkerMetrics().route("").snapshot())
    return {
        "type": "stats",
        "time": stats["time"],
        "complete": stats["complete"],
        **{name: total[name] for name in ("open", *_COUNTED, "closed", "slow", "ping")},
        "refused": add(total["refused"], stats["refused"]),
        "workers": [_worker(worker) for worker in shown_workers(stats)],
        "routes": _largest(routes),
        "routes_total": len(routes),
        "rooms": {name: stats.get("rooms", {}).get(name, 0) for name in ("rooms", "members")},
    }


def _worker(worker: Mapping[str, Any]) -> dict[str, Any]:
    names = ("worker", "pid", "state", "age", "started", "engine", "open")
    routes = worker["routes"].values()
    sums = {name: sum(route[name] for route in routes) for name in _COUNTED}
    return {**{name: worker[name] for name in names}, **sums}


def _largest(routes: dict[str, Any]) -> list[dict[str, Any]]:
    def size(pattern: str) -> tuple[int, int]:
        return routes[pattern]["open"], routes[pattern]["accepted"]

    return [
        {
            "route": cut(pattern),
            "open": routes[pattern]["open"],
            "refused": sum(routes[pattern]["refused"].values()),
            **{name: routes[pattern][name] for name in _COUNTED},
        }
        for pattern in sorted(routes, key=size, reverse=True)[:MOST_ROUTES]
    ]
