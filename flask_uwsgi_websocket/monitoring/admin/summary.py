"""The figures of all workers as the page shows them: bounded, whatever the app has."""

from __future__ import annotations

from typing import Any

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
    refused = _add({}, stats.get("refused", {}))
    closed: dict[str, dict[str, int]] = {"client": {}, "server": {}, "lost": {}}
    slow: dict[str, int] = {"closed": 0, "dropped": 0, "conflated": 0}
    for route in routes.values():
        _add(refused, route["refused"])
        _add(slow, route["slow"])
        for who, codes in route["closed"].items():
            _add(closed.setdefault(who, {}), codes)
    return {
        "type": "stats",
        "time": stats["time"],
        "complete": stats["complete"],
        "open": stats["open"],
        **_sums(routes),
        "refused": refused,
        "closed": closed,
        "slow": slow,
        "ping": _pings(routes),
        "workers": [_worker(worker) for worker in stats["workers"]],
        "routes": _largest(routes),
        "routes_total": len(routes),
        "rooms": {name: stats.get("rooms", {}).get(name, 0) for name in ("rooms", "members")},
    }


def _add(total: dict[str, int], counts: dict[str, int]) -> dict[str, int]:
    for name, count in counts.items():
        total[name] = total.get(name, 0) + count
    return total


def _sums(routes: dict[str, Any]) -> dict[str, int]:
    return {name: sum(route[name] for route in routes.values()) for name in _COUNTED}


def _worker(worker: dict[str, Any]) -> dict[str, Any]:
    names = ("worker", "pid", "state", "age", "started", "engine", "open")
    return {**{name: worker.get(name) for name in names}, **_sums(worker.get("routes", {}))}


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


def _pings(routes: dict[str, Any]) -> dict[str, Any]:
    """Sum the histograms of all routes, which have the same bounds."""
    pings = [route["ping"] for route in routes.values()]
    counts = [sum(column) for column in zip(*[ping["counts"] for ping in pings], strict=True)]
    bounds = pings[0]["bounds"] if pings else []
    return {"bounds": bounds, "counts": counts, "sum": sum(ping["sum"] for ping in pings)}
