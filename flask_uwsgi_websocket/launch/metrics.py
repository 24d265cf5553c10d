"""The declarations of our figures among uWSGI's metrics: workers set only those that it knows.

All are gauges, also what only grows. uWSGI's statsd sends what is not as an increment, the whole of
it each time.
"""

from __future__ import annotations

from ..inspection.options import spellings
from ..metrics.totals import TOTALS

#: In front of the name of each figure.
PREFIX = "flask_websocket."
#: Options by which uWSGI has metrics (UWSGI_OPT_METRICS).
ENABLING = spellings(
    *("alarm-metric", "enable-metrics", "metric", "metric-alarm", "metric-dir"),
    *("metric-dir-restore", "metric-threshold", "metrics-dir", "metrics-dir-restore"),
    *("metrics-no-cores", "rrdtool", "stats-push"),
)


def worker_metric(worker: int, name: str) -> str:
    """Return the name of the metric of a worker."""
    return f"worker.{worker}.{PREFIX}{name}"


def declarations(workers: int) -> list[str]:
    """Return values of ``--metric`` for each worker, and for their sums, which uWSGI makes."""
    return [line for name in TOTALS for line in _declared(name, range(1, workers + 1))]


def _declared(name: str, workers: range) -> list[str]:
    own = [worker_metric(worker, name) for worker in workers]
    return [
        *(f"name={each},type=gauge" for each in own),
        f"name={PREFIX}{name},type=gauge,collector=sum,children={';'.join(own)}",
    ]
