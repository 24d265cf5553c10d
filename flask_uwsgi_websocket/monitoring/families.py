"""What Prometheus is shown of `websocket.stats()`: each metric, and where its figures are.

Nothing here knows Prometheus' client: names, labels and numbers only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..metrics.paths import follow

PREFIX = "flask_websocket_"

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
            for labels, figure in follow(tree, path):
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
    _of_route("connections", "gauge", "open", "WebSockets that are open now."),
    _of_route("accepted", "counter", "accepted", "Handshakes that were answered with 101."),
    Family(
        "refused",
        "counter",
        ("route", "reason"),
        ("routes/*/refused/*", "refused/*"),
        "Requests for a WebSocket that got another answer.",
    ),
    _of_route(
        "closed",
        "counter",
        "closed/*/*",
        "WebSockets that have ended, by who closed them and with which code.",
        "by",
        "code",
    ),
    _of_route(
        "handler_errors",
        "counter",
        "errors",
        "Handlers that ended with an exception that was logged.",
    ),
    _of_route(
        "duration_seconds",
        "histogram",
        "duration",
        "How long WebSockets that have ended were open.",
    ),
    _of_route("ping_seconds", "histogram", "ping", "Round trips of pings."),
    # Traffic
    _of_route("messages", "counter", "messages_*", "Messages received and sent.", "direction"),
    _of_route("bytes", "counter", "bytes_*", "Bytes of whole frames, before TLS.", "direction"),
    _of_route(
        "inflated_bytes",
        "counter",
        "compression/*/bytes",
        "Bytes of messages of connections that compress, uncompressed.",
        "direction",
    ),
    _of_route(
        "deflated_bytes",
        "counter",
        "compression/*/compressed",
        "Bytes of messages of connections that compress, compressed.",
        "direction",
    ),
    _of_route(
        "queued_bytes",
        "gauge",
        "queued_bytes",
        "Bytes queued for clients that have yet to take them.",
    ),
    _of_route(
        "slow",
        "counter",
        "slow/*",
        "Clients closed for reading too slowly; messages dropped or conflated for them.",
        "action",
    ),
    _of_route("limited", "counter", "limited", "Clients that had to wait, by max_rate."),
    # Rooms
    Family("rooms", "gauge", (), ("rooms/rooms",), "Rooms with members, summed over workers."),
    Family(
        "room_members",
        "gauge",
        (),
        ("rooms/members",),
        "Clients in rooms, once for each room that they are in.",
    ),
    _of_rooms("room_joins", "counter", "joins", "Clients that became members of a room."),
    _of_rooms("room_leaves", "counter", "leaves", "Clients that ceased to be members of a room."),
    _of_rooms(
        "room_published", "counter", "published", "Messages to rooms that the backplane has taken."
    ),
    _of_rooms(
        "room_delivered",
        "counter",
        "delivered",
        "Messages to rooms, for each client that they went to.",
    ),
    Family(
        "room_writes",
        "counter",
        (),
        ("rooms/writes",),
        "Calls that wrote messages of rooms to clients.",
    ),
    _of_rooms(
        "room_undelivered",
        "counter",
        "undelivered",
        "Messages to rooms that a worker dropped, being too busy.",
    ),
    _of_rooms(
        "room_slow",
        "counter",
        "slow/*",
        "Clients in rooms closed for reading too slowly; messages dropped or conflated for them.",
        "action",
    ),
    _of_rooms(
        "room_resumes",
        "counter",
        "resumes/*",
        "Clients that came back to a kept room with a position.",
        "outcome",
    ),
    _of_rooms(
        "room_replayed", "counter", "replayed", "Messages of the past that clients in rooms got."
    ),
    _of_rooms(
        "room_repairs",
        "counter",
        "repairs",
        "Times that a worker read a room's log since something was missing.",
    ),
    _of_rooms(
        "room_resyncs",
        "counter",
        "resyncs",
        "Times that members of a kept room were told that messages are lost.",
    ),
    _of_rooms(
        "room_lag_seconds",
        "histogram",
        "lag",
        "From sending to a room to delivery, on one machine.",
    ),
    Family(
        "backplane_up",
        "gauge",
        WORKER,
        ("workers/*/rooms/backplane/up",),
        "1 unless a worker's backplane is known not to work.",
    ),
    _of_backplane("reconnects", "counter", "reconnects", "Times that the backplane has come back."),
    _of_backplane(
        "gaps", "counter", "gaps", "Times that messages from other workers may have been missed."
    ),
    _of_backplane(
        "lost", "counter", "lost", "Messages from other workers that are known to have been missed."
    ),
    _of_backplane("failed", "counter", "failed", "Messages that the backplane did not take."),
    _of_backplane(
        "overflowed",
        "counter",
        "overflowed",
        "Messages that found the queue for the backplane full.",
    ),
    _of_backplane("pending_bytes", "gauge", "pending_bytes", "Bytes that wait for the backplane."),
    _of_backplane(
        "publish_seconds",
        "histogram",
        "publish",
        "How long the backplane took for a batch of messages.",
    ),
    _of_backplane(
        "presence_swept",
        "counter",
        "presence_swept",
        "Users taken out of rooms with presence, after their grace.",
    ),
    _of_backplane("log_bytes", "gauge", "log_bytes", "Bytes of what rooms keep on this machine."),
    # Workers
    Family(
        "workers",
        "gauge",
        ("state",),
        ("states/*",),
        "Workers: live, blocked, ended, or retired.",
    ),
    Family(
        "worker_up",
        "gauge",
        WORKER,
        ("workers/*/up",),
        "1 for a worker that is live, 0 for one that is blocked or has ended.",
    ),
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
        "Time since a worker last wrote its figures.",
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
    Family(
        "complete",
        "gauge",
        (),
        ("complete",),
        "1 unless the figures of a worker are missing or old.",
    ),
    Family(
        "build_info",
        "gauge",
        ("version", "engine"),
        ("build/*/*",),
        "Always 1; the labels tell what is running.",
    ),
)
