"""What Prometheus is shown of `websocket.stats()`: each metric, and where its figures are.

Nothing here knows Prometheus' client: names, labels and numbers only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..metrics.observers import REASONS

PREFIX = "flask_websocket_"

#: Different values of one label that are shown singly. An app with more routes than this shows the
#: rest of them as one: each route is some 50 series for Prometheus to store.
MOST_VALUES = 200
OTHER = "other"
#: Characters of a label's value.
LONGEST_VALUE = 200
#: What ends lines, hides text or is no UTF-8.
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

Stats = Mapping[str, Any]
Labels = tuple[str, ...]
#: A number, or the snapshot of a histogram: {"bounds", "counts", "sum"}.
Figure = Any


class Family(NamedTuple):
    """A metric: its name without prefix and `_total`, its kind, its labels, and its paths.

    A path leads through the snapshot; each `*` of it is a label. Labels that a path has not are
    empty, the first ones first.
    """

    name: str
    kind: str
    labels: Labels
    paths: tuple[str, ...]
    help: str

    @property
    def full_name(self) -> str:
        """The name that it is shown under; a histogram's series end in `_bucket` and so on."""
        return PREFIX + self.name + ("_total" if self.kind == "counter" else "")

    def figures(self, tree: Stats) -> Iterator[tuple[Labels, Figure]]:
        for path in self.paths:
            for labels, figure in follow(tree, path.split("/")):
                yield ("",) * (len(self.labels) - len(labels)) + labels, figure


ROUTE, PATTERN, WORKER = ("route",), ("pattern",), ("worker",)


def _of_route(name: str, kind: str, path: str, text: str, *labels: str) -> Family:
    return Family(name, kind, (*ROUTE, *labels), (f"routes/*/{path}",), text)


def _of_rooms(name: str, kind: str, path: str, text: str, *labels: str) -> Family:
    return Family(name, kind, (*PATTERN, *labels), (f"rooms/patterns/*/{path}",), text)


def _of_backplane(name: str, kind: str, path: str, text: str) -> Family:
    return Family(f"backplane_{name}", kind, (), (f"rooms/backplane/{path}",), text)


FAMILIES = (
    # Connections
    _of_route("connections", "gauge", "open", "WebSockets that are open."),
    _of_route("accepted", "counter", "accepted", "Handshakes that became a WebSocket."),
    Family(
        "refused",
        "counter",
        ("route", "reason"),
        ("routes/*/refused/*", "refused/*"),
        "Handshakes that were refused. The route is empty where none matched.",
    ),
    _of_route(
        "closed", "counter", "closed/*/*", "WebSockets that ended, by who ended them.", "by", "code"
    ),
    _of_route("handler_errors", "counter", "errors", "Handlers that ended by an exception."),
    _of_route("duration_seconds", "histogram", "duration", "How long WebSockets were open."),
    _of_route("ping_seconds", "histogram", "ping", "Round trips of pings."),
    # Traffic
    _of_route("messages", "counter", "messages_*", "Messages.", "direction"),
    _of_route("bytes", "counter", "bytes_*", "Bytes of whole frames, before TLS.", "direction"),
    _of_route(
        "inflated_bytes",
        "counter",
        "compression/*/bytes",
        "Bytes of messages of connections with compression, before it.",
        "direction",
    ),
    _of_route(
        "deflated_bytes",
        "counter",
        "compression/*/compressed",
        "Bytes of the same messages, compressed.",
        "direction",
    ),
    _of_route("queued_bytes", "gauge", "queued_bytes", "Bytes that clients have yet to take."),
    _of_route(
        "slow",
        "counter",
        "slow/*",
        "Clients closed because they were slow; messages dropped or conflated for them.",
        "action",
    ),
    _of_route("limited", "counter", "limited", "Clients that had to wait, by max_rate."),
    # Rooms
    Family("rooms", "gauge", (), ("rooms/rooms",), "Rooms with members, summed over workers."),
    Family("room_members", "gauge", (), ("rooms/members",), "Clients in rooms, one for each room."),
    _of_rooms("room_joins", "counter", "joins", "Clients that joined a room."),
    _of_rooms("room_leaves", "counter", "leaves", "Clients that left a room."),
    _of_rooms("room_published", "counter", "published", "Messages sent to rooms."),
    _of_rooms("room_delivered", "counter", "delivered", "Messages to rooms, for each member."),
    _of_rooms("room_writes", "counter", "writes", "Writes that took them to members."),
    _of_rooms(
        "room_undelivered", "counter", "undelivered", "Messages that a worker was too busy for."
    ),
    _of_rooms(
        "room_slow",
        "counter",
        "slow/*",
        "Members closed because they were slow; messages dropped or conflated for them.",
        "action",
    ),
    _of_rooms("room_resumes", "counter", "resumes/*", "Members that came back.", "outcome"),
    _of_rooms("room_replayed", "counter", "replayed", "Messages sent to them that they missed."),
    _of_rooms("room_repairs", "counter", "repairs", "Gaps that were read up in a room's history."),
    _of_rooms("room_resyncs", "counter", "resyncs", "Gaps of which members were told: it is lost."),
    _of_rooms("room_lag_seconds", "histogram", "lag", "From sending to a room to delivery."),
    Family(
        "backplane_up",
        "gauge",
        WORKER,
        ("workers/*/rooms/backplane/up",),
        "Whether a worker is connected with the others.",
    ),
    _of_backplane("reconnects", "counter", "reconnects", "Connections that were made anew."),
    _of_backplane("gaps", "counter", "gaps", "Times that messages of another worker were missed."),
    _of_backplane("lost", "counter", "lost", "Messages of other workers that never came."),
    _of_backplane("failed", "counter", "failed", "Messages that it did not take."),
    _of_backplane("overflowed", "counter", "overflowed", "Messages that found its queue full."),
    _of_backplane("pending_bytes", "gauge", "pending_bytes", "Bytes that wait to go out."),
    _of_backplane("publish_seconds", "histogram", "publish", "How long giving it a message took."),
    _of_backplane("presence_swept", "counter", "presence_swept", "Entries of the dead removed."),
    _of_backplane("log_bytes", "gauge", "log_bytes", "Bytes of the histories of rooms."),
    # Workers
    Family("workers", "gauge", ("state",), ("states/*",), "Workers: live, blocked or ended."),
    Family("worker_up", "gauge", WORKER, ("workers/*/up",), "Whether a worker is live."),
    Family(
        "worker_connections",
        "gauge",
        WORKER,
        ("workers/*/open",),
        "WebSockets that are open in a worker.",
    ),
    Family(
        "worker_age_seconds",
        "gauge",
        WORKER,
        ("workers/*/age",),
        "Time since a worker last told its figures.",
    ),
    Family(
        "worker_start_time_seconds",
        "gauge",
        WORKER,
        ("workers/*/started",),
        "When a worker started, in Unix time.",
    ),
    Family(
        "worker_open_fds",
        "gauge",
        WORKER,
        ("workers/*/fds",),
        "Descriptors that a worker has open.",
    ),
    Family(
        "worker_max_fds",
        "gauge",
        WORKER,
        ("workers/*/max_fds",),
        "Descriptors that a worker may have open.",
    ),
    Family(
        "worker_max_connections",
        "gauge",
        WORKER,
        ("workers/*/max_open",),
        "WebSockets that a worker can hold, where each holds a core.",
    ),
    Family("complete", "gauge", (), ("complete",), "Whether no live worker's figures are missing."),
    Family("build_info", "gauge", ("version", "engine"), ("build/*/*",), "What is running: 1."),
)


def collect(stats: Stats, version: str) -> Iterator[tuple[Family, dict[Labels, Figure]]]:
    """Yield each metric with its figures by label values, all of them fit to be shown.

    However many names there are in the statistics, and whatever is in them: what becomes the same
    label values, or has to be shown as "other", is added up.
    """
    tree = _tree(stats, version)
    found = [
        (family, [(tuple(map(_fit, labels)), figure) for labels, figure in family.figures(tree)])
        for family in FAMILIES
    ]
    shown = _shown_values(found)
    for family, figures in found:
        yield family, _added_up(family, figures, shown)


def _tree(stats: Stats, version: str) -> dict[str, Any]:
    # increase() does not see what a series begins with, so that the first refusal would be missed.
    none_refused = dict.fromkeys(REASONS, 0)
    workers = stats["workers"]
    states = [worker["state"] for worker in workers]
    return {
        **stats,
        "routes": {
            route: {**figures, "refused": {**none_refused, **figures["refused"]}}
            for route, figures in stats["routes"].items()
        },
        "refused": {**none_refused, **stats["refused"]},
        "workers": {
            str(worker["worker"]): {**worker, "up": worker["state"] == "live"} for worker in workers
        },
        "states": {state: states.count(state) for state in ("live", "blocked", "ended")},
        "build": {version: {worker["engine"]: 1 for worker in workers}},
    }


def follow(tree: Any, path: Sequence[str]) -> Iterator[tuple[Labels, Figure]]:
    """Yield what is at a path, with the names that each `*` stands for there."""
    if not path:
        yield (), tree
        return
    stem, star, _ = path[0].partition("*")
    for key, branch in tree.items():
        if key == stem or (star and key.startswith(stem)):
            for labels, figure in follow(branch, path[1:]):
                yield ((key[len(stem) :], *labels) if star else labels), figure


def _fit(value: str) -> str:
    return _UNFIT.sub("\ufffd", value)[:LONGEST_VALUE]


def _shown_values(
    found: Iterable[tuple[Family, list[tuple[Labels, Figure]]]],
) -> dict[str, frozenset[str]]:
    """Return the values of each label that are shown singly: the same in all metrics, and by
    their names alone, so that every worker that is asked chooses the same."""
    values: dict[str, set[str]] = {}
    for family, figures in found:
        for labels, _ in figures:
            for name, value in zip(family.labels, labels, strict=True):
                values.setdefault(name, set()).add(value)
    return {name: frozenset(sorted(those)[:MOST_VALUES]) for name, those in values.items()}


def _added_up(
    family: Family, figures: list[tuple[Labels, Figure]], shown: dict[str, frozenset[str]]
) -> dict[Labels, Figure]:
    added: dict[Labels, Figure] = {}
    for labels, figure in figures:
        named = zip(family.labels, labels, strict=True)
        key = tuple(value if value in shown[name] else OTHER for name, value in named)
        added[key] = _sum(added[key], figure) if key in added else figure
    return added


def _sum(one: Figure, other: Figure) -> Figure:
    if not isinstance(one, Mapping):
        return one + other
    counts = [a + b for a, b in zip(one["counts"], other["counts"], strict=True)]
    return {"bounds": one["bounds"], "counts": counts, "sum": one["sum"] + other["sum"]}
