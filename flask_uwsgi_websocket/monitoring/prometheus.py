"""Prometheus, for apps whose environment has its client; no other needs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .families import Stats

if TYPE_CHECKING:
    from .exposition import StatsCollector


def collector_of(ask: Callable[[], Stats]) -> StatsCollector:
    """Return what a registry of prometheus-client asks for the metrics of an app.

    :param ask: gives the statistics.
    :raises ModuleNotFoundError: without prometheus-client; says how to install it.
    """
    try:
        from .exposition import StatsCollector
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "prometheus_client":
            raise
        raise ModuleNotFoundError(
            "metrics for Prometheus need prometheus-client: "
            "pip install 'Flask-uWSGI-WebSocket[prometheus]'",
            name=error.name,
        ) from None
    return StatsCollector(ask)
