"""The figures of `websocket.stats()` as metrics of prometheus-client, in any number of workers.

They are those of all workers, whichever is asked: prometheus-client's own files for several
processes are not needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from itertools import accumulate
from typing import Any

from flask import Response, request
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from werkzeug.wrappers import Response as BaseResponse

from .capacity import capacity_of
from .families import FAMILIES, PREFIX, Family, Figure, Labels, Stats
from .series import collect

PACKAGE = __name__.partition(".")[0]


class StatsCollector(Collector):
    """What a registry of prometheus-client asks for our metrics.

    :param ask: gives the statistics, each time that somebody scrapes.
    """

    def __init__(self, ask: Callable[[], Stats]) -> None:
        self._ask = ask
        self._version: str = import_module(PACKAGE).__version__

    def collect(self) -> Iterator[Metric]:
        stats = self._ask()
        workers = [{**worker, **capacity_of(worker)} for worker in stats["workers"]]
        for family, figures in collect({**stats, "workers": workers}, self._version):
            if figures:
                yield _metric(family, figures)

    def describe(self) -> Iterator[Metric]:
        """Yield the metrics without figures: nobody is asked while the app is imported."""
        return (_metric(family, {}) for family in FAMILIES)

    def view(self) -> Callable[[], BaseResponse]:
        """Make a view for Flask that answers scrapes, in the format that they ask for."""
        registry = CollectorRegistry()
        registry.register(self)
        answer = make_wsgi_app(registry)

        def metrics_view() -> BaseResponse:
            # To a HEAD the client says 405, which Flask answers with what a GET gets.
            return Response.from_app(answer, {**request.environ, "REQUEST_METHOD": "GET"})

        return metrics_view


def _metric(family: Family, figures: Mapping[Labels, Figure]) -> Metric:
    name, text = PREFIX + family.name, family.help
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(name, text, labels=family.labels)
        for labels, snapshot in figures.items():
            histogram.add_metric(labels, _buckets(snapshot), snapshot["sum"])
        return histogram
    plain = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric: Any = plain(name, text, labels=family.labels)
    for labels, value in figures.items():
        metric.add_metric(labels, value)
    return metric  # type: ignore[no-any-return]


def _buckets(snapshot: Mapping[str, Any]) -> list[tuple[str, float]]:
    bounds = [*snapshot["bounds"], math.inf]
    return [*zip(map(floatToGoString, bounds), accumulate(snapshot["counts"]), strict=True)]
