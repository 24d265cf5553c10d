"""Metrics for OpenTelemetry: what the extensions of this process count, whenever that is read.

Each worker reports its own figures only. Whoever reads them adds up the workers, each of which has
a ``service.instance.id``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, reduce
from typing import Any, NamedTuple
from weakref import WeakSet

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Histogram, Observation

from ...metrics.observers import End, Timed
from ...metrics.paths import follow
from ...metrics.route import DURATION_BOUNDS, PING_BOUNDS
from ...metrics.snapshot import add
from ...rooms.metrics import LAG_BOUNDS
from .attributes import SCHEMA, SCOPE

#: Seconds for which figures are not counted anew: all instruments are read at once.
_FRESH = 0.1

#: As OpenTelemetry calls the two directions.
_DIRECTIONS = {"received": "receive", "sent": "transmit"}

_PREFIX = "websocket.server."
ROUTE, PATTERN = "http.route", "websocket.room.pattern"
WAY, SLOW = "network.io.direction", "websocket.slow.outcome"


class _Instrument(NamedTuple):
    """An instrument that is read: what it is called, and where in a snapshot its values are.

    Each ``*`` of a path is one of the attributes; a shorter path has the last ones of them.
    """

    name: str
    unit: str
    description: str
    paths: tuple[str, ...]
    attributes: tuple[str, ...] = ()
    #: Whether it only ever grows.
    grows: bool = True


def _of_route(name: str, unit: str, description: str, path: str, *attributes: str) -> _Instrument:
    return _Instrument(name, unit, description, (f"routes/*/{path}",), (ROUTE, *attributes))


def _of_rooms(name: str, unit: str, description: str, path: str, *attributes: str) -> _Instrument:
    paths = (f"rooms/patterns/*/{path}",)
    return _Instrument(f"room.{name}", unit, description, paths, (PATTERN, *attributes))


def _of_backplane(name: str, unit: str, description: str) -> _Instrument:
    return _Instrument(f"backplane.{name}", unit, description, (f"rooms/backplane/{name}",))


def _now(name: str, unit: str, description: str, path: str, *attributes: str) -> _Instrument:
    """Make one of a number that falls, too."""
    return _Instrument(name, unit, description, (path,), attributes, grows=False)


INSTRUMENTS = (
    _now("active_connections", "{connection}", "Open WebSockets.", "routes/*/open", ROUTE),
    _of_route("accepted", "{connection}", "Handshakes answered with 101.", "accepted"),
    _Instrument(
        "refused",
        "{request}",
        "Handshakes that were refused.",
        ("routes/*/refused/*", "refused/*"),
        (ROUTE, "error.type"),
    ),
    _of_route(
        "closed",
        "{connection}",
        "WebSockets that have ended.",
        "closed/*/*",
        "websocket.close.by",
        "websocket.close.code",
    ),
    _of_route("errors", "{error}", "Handlers that ended by an exception.", "errors"),
    _of_route("messages", "{message}", "Messages.", "messages_*", WAY),
    _of_route("io", "By", "Bytes of whole frames, before TLS.", "bytes_*", WAY),
    _of_route(
        "compression.uncompressed",
        "By",
        "Bytes of compressed messages, as the app has them.",
        "compression/*/bytes",
        WAY,
    ),
    _of_route(
        "compression.compressed",
        "By",
        "Bytes of compressed messages, as they went over the connection.",
        "compression/*/compressed",
        WAY,
    ),
    _now("queued", "By", "Bytes that clients have yet to take.", "routes/*/queued_bytes", ROUTE),
    _of_route("slow", "{event}", "Slow clients closed, or messages they missed.", "slow/*", SLOW),
    _of_route("limited", "{connection}", "WebSockets that max_rate made wait.", "limited"),
    _now("room.count", "{room}", "Rooms with members in this worker.", "rooms/rooms"),
    _now("room.members", "{member}", "Clients in rooms, one for each room.", "rooms/members"),
    _of_rooms("joins", "{client}", "Clients that joined a room.", "joins"),
    _of_rooms("leaves", "{client}", "Clients that left a room.", "leaves"),
    _of_rooms("published", "{message}", "Messages sent to rooms.", "published"),
    _of_rooms("delivered", "{message}", "Messages to rooms, for each member.", "delivered"),
    _of_rooms("slow", "{event}", "Slow members closed, or messages missed.", "slow/*", SLOW),
    _of_rooms(
        "resumes", "{client}", "Members that came back.", "resumes/*", "websocket.resume.outcome"
    ),
    _of_backplane("reconnects", "{connection}", "Connections that were made anew."),
    _of_backplane("lost", "{message}", "Messages of other workers that never came."),
    _now("backplane.pending", "By", "Bytes that wait to go out.", "rooms/backplane/pending_bytes"),
)


class _Figures:
    """The figures of all extensions in this process."""

    def __init__(self) -> None:
        self.websockets: WeakSet[Any] = WeakSet()
        self._read_at = -_FRESH
        self._figures: dict[str, Any] = {}

    def read(self) -> dict[str, Any]:
        """Return the sums of their snapshots, counted lately."""
        now = time.monotonic()
        if now - self._read_at >= _FRESH:
            snapshots = [websocket._metrics.snapshot() for websocket in self.websockets]
            self._figures = reduce(add, snapshots) if snapshots else {}
            self._read_at = now
        return self._figures

    def forget(self) -> None:
        """Count anew at the next look, however soon that is."""
        self._read_at = -_FRESH

    def of(self, instrument: _Instrument) -> Iterator[Observation]:
        """Yield the values of an instrument, with their attributes."""
        for path in instrument.paths:
            for names, value in follow(self.read(), path):
                keys = instrument.attributes[len(instrument.attributes) - len(names) :]
                yield Observation(value, dict(map(_spelled, keys, names)))


_figures = _Figures()


def refresh() -> None:
    """Have the next export include what has happened up to then."""
    _figures.forget()


def _spelled(key: str, name: str) -> tuple[str, str]:
    return key, _DIRECTIONS[name] if key == WAY else name


def measure(websocket: Any) -> None:
    """Include an extension in the metrics."""
    _instruments()
    _figures.websockets.add(websocket)
    websocket._metrics.observers.timers.append(record_time)


def record_time(what: Timed, whose: str, seconds: float) -> None:
    """Record a time that was measured."""
    attribute = ROUTE if what == "ping" else PATTERN
    _instruments()[what].record(seconds, {attribute: whose})


def record_duration(end: End) -> None:
    """Record how long a connection has lasted."""
    attributes: dict[str, str | int] = {ROUTE: end.route, "websocket.close.by": end.by}
    if end.error is not None:
        attributes["error.type"] = end.error
    _instruments()["duration"].record(end.seconds, attributes)


#: Those that are not read but written, since what is read are numbers only: name, meaning, bounds.
HISTOGRAMS: Mapping[str, tuple[str, str, Sequence[float]]] = {
    "duration": (
        "connection.duration",
        "How long WebSockets that have ended were open.",
        DURATION_BOUNDS,
    ),
    "ping": ("ping.duration", "From a ping to its pong.", PING_BOUNDS),
    "lag": ("room.lag", "From sending to a room until its clients are written to.", LAG_BOUNDS),
}


@cache
def _instruments() -> Mapping[str, Histogram]:
    """Make all instruments; return those that are written."""
    meter = metrics.get_meter(SCOPE, schema_url=SCHEMA)
    for each in INSTRUMENTS:
        up_down = meter.create_observable_up_down_counter
        create = meter.create_observable_counter if each.grows else up_down
        create(_PREFIX + each.name, [_reader(each)], each.unit, each.description)
    return {
        key: meter.create_histogram(
            _PREFIX + name,
            unit="s",
            description=description,
            explicit_bucket_boundaries_advisory=bounds,
        )
        for key, (name, description, bounds) in HISTOGRAMS.items()
    }


def _reader(instrument: _Instrument) -> Any:
    def read(options: CallbackOptions) -> Iterator[Observation]:
        return _figures.of(instrument)

    return read
