"""Metrics for OpenTelemetry: what the extensions of this process count, whenever that is read.

Each worker tells its own figures only. Whoever reads them adds workers up, by their
``service.instance.id``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache, reduce
from typing import Any
from weakref import WeakSet

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation

from ...metrics.observers import End
from ...metrics.route import DURATION_BOUNDS
from ...metrics.snapshot import add
from .attributes import SCHEMA, SCOPE

#: Seconds for which figures are not counted anew: all instruments are read at once.
_FRESH = 0.5

Values = Iterable[tuple[float, dict[str, str]]]
#: Takes the values of an instrument from the figures of a route, each with its attributes.
Reader = Callable[[dict[str, Any]], Values]


def _figure(*path: str, **attributes: str) -> Reader:
    def read(figures: dict[str, Any]) -> Values:
        value: Any = figures
        for key in path:
            value = value[key]
        return [(value, attributes)]

    return read


def _by(attribute: str, *path: str) -> Reader:
    """Read a figure that there is several times, by what the attribute tells."""

    def read(figures: dict[str, Any]) -> Values:
        for key in path:
            figures = figures[key]
        return [(value, {attribute: key}) for key, value in figures.items()]

    return read


def _each_way(received: str, sent: str) -> list[Reader]:
    name = "network.io.direction"
    return [_figure(received, **{name: "receive"}), _figure(sent, **{name: "transmit"})]


def _closes(figures: dict[str, Any]) -> Values:
    for by, codes in figures["closed"].items():
        for code, count in codes.items():
            yield count, {"websocket.close.by": by, "websocket.close.code": code}


#: By name: whether it only ever grows, the unit, what it is, and where its values are.
_OF_ROUTES: dict[str, tuple[bool, str, str, list[Reader]]] = {
    "open_connections": (False, "{connection}", "Open connections.", [_figure("open")]),
    "accepted": (True, "{connection}", "Handshakes answered with 101.", [_figure("accepted")]),
    "refused": (
        True,
        "{request}",
        "Handshakes that were refused.",
        [_by("error.type", "refused")],
    ),
    "closed": (True, "{connection}", "Connections that have ended.", [_closes]),
    "messages": (
        True,
        "{message}",
        "Messages received and sent.",
        _each_way("messages_received", "messages_sent"),
    ),
    "io": (
        True,
        "By",
        "Bytes of frames received and sent.",
        _each_way("bytes_received", "bytes_sent"),
    ),
    "queued": (
        False,
        "By",
        "Bytes that wait for clients to read.",
        [_figure("queued_bytes")],
    ),
    "errors": (True, "{error}", "Exceptions of handlers.", [_figure("errors")]),
    "slow": (
        True,
        "{event}",
        "Slow clients that were closed, and messages that others of them did not get.",
        [_by("websocket.slow.outcome", "slow")],
    ),
}


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
            self._figures = reduce(add, snapshots, {"routes": {}, "refused": {}})
            self._read_at = now
        return self._figures


_figures = _Figures()


def measure(websocket: Any) -> None:
    """Include an extension in the metrics."""
    _instruments()
    _figures.websockets.add(websocket)


def record_duration(end: End) -> None:
    """Record how long a connection has lasted."""
    attributes: dict[str, str | int] = {"http.route": end.route, "websocket.close.by": end.by}
    if end.error is not None:
        attributes["error.type"] = end.error
    _instruments().record(end.seconds, attributes)


@cache
def _instruments() -> Histogram:
    """Make all instruments; return that of durations, which alone is not read but written."""
    meter = metrics.get_meter(SCOPE, schema_url=SCHEMA)
    for name, (grows, unit, description, readers) in _OF_ROUTES.items():
        _observe(meter, name, grows, unit, description, readers)
    return meter.create_histogram(
        "websocket.server.connection.duration",
        unit="s",
        description="How long connections that have ended were open.",
        explicit_bucket_boundaries_advisory=DURATION_BOUNDS,
    )


def _observe(
    meter: Meter, name: str, grows: bool, unit: str, description: str, readers: list[Reader]
) -> None:
    create = meter.create_observable_counter if grows else meter.create_observable_up_down_counter

    def observe(options: CallbackOptions) -> Iterator[Observation]:
        figures = _figures.read()
        for pattern, route in figures["routes"].items():
            for read in readers:
                for value, attributes in read(route):
                    yield Observation(value, {"http.route": pattern, **attributes})
        if name == "refused":  # by no route
            for value, attributes in _by("error.type", "refused")(figures):
                yield Observation(value, attributes)

    create(f"websocket.server.{name}", [observe], unit, description)
