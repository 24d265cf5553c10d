"""uWSGI's own metrics: its stats server and its pushers, such as statsd's, show what we count."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from ..helpers.log import logger
from ..launch.metrics import worker_metric
from ..metrics.totals import TOTALS, totals
from ..servers import uwsgi

#: Called with the prefix of an app, and what this worker has counted of it.
Listener = Callable[[str, dict[str, Any]], object]


class UWSGIMetrics:
    """Those of this worker that were declared. uWSGI itself sums them over the workers."""

    def __init__(self) -> None:
        worker = uwsgi.worker_id()
        named = {name: worker_metric(worker, name) for name in TOTALS}
        self._names = {name: metric for name, metric in named.items() if uwsgi.has_metric(metric)}
        self._totals: dict[str, dict[str, int]] = {}  # of each app
        _warn_of_missing(worker, [name for name in TOTALS if name not in self._names])

    def __bool__(self) -> bool:
        return bool(self._names)

    def show(self, app: str, counted: dict[str, Any]) -> None:
        """Set them to what all apps have counted, of which one has news."""
        self._totals[app] = totals(counted)
        for name, metric in self._names.items():
            uwsgi.set_metric(metric, sum(each[name] for each in self._totals.values()))


def _warn_of_missing(worker: int, names: list[str]) -> None:
    """Warn where another worker has metrics that this one has not: their sums lack it."""
    names = [name for name in names if uwsgi.has_metric(worker_metric(1, name))]
    if names:
        logger.warning(
            "uWSGI's metric %s is declared for worker 1 and not for this one, which the sum then "
            "lacks: declare %s, too%s",
            worker_metric(1, names[0]),
            worker_metric(worker, names[0]),
            f", and {len(names) - 1} more in the same way" if names[1:] else "",
        )


@cache
def _of_this_worker() -> UWSGIMetrics:
    return UWSGIMetrics()


def listener() -> Listener | None:
    """Return what shows the figures of this worker's apps; None where nothing was declared."""
    metrics = _of_this_worker()
    return metrics.show if metrics else None
