"""A real Prometheus that scrapes what a test tells it to, and is asked by its HTTP API."""

from __future__ import annotations

PROMTOOL = "promtool"
