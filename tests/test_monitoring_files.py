"""The files of docs/monitoring: read by those that they are for, and true of the metrics."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from flask_uwsgi_websocket.monitoring.families import FAMILIES
from tests.pages.checks import read_by
from tests.server import ROOT

FOLDER = ROOT / "docs/monitoring"
ALERTS, TESTS = FOLDER / "alerts.yml", ROOT / "tests/alerts_test.yml"
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
METRICS = {family.full_name: family for family in FAMILIES}


def rules() -> list[dict[str, Any]]:
    return [
        rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
    ]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = DASHBOARD["panels"]
    return found


def queries() -> Iterator[str]:
    for panel in panels():
        yield from (target["expr"] for target in panel.get("targets", ()))


def check_names(expression: str) -> None:
    """Each metric is one of ours, with labels that it has."""
    for name, selector in re.findall(r"\b(flask_websocket_\w+)(?:\{([^}]*)\})?", expression):
        family = METRICS[re.sub("_(bucket|sum|count)$", "", name)]
        labels = set(re.findall(r"(\w+)(?:=|!=|=~|!~)\"", selector)) - {"job", "instance"}
        assert labels <= set(family.labels), name


# Prometheus


def test_prometheus_would_start_with_them() -> None:
    read_by("promtool", "check", "rules", ALERTS)
    read_by("promtool", "check", "config", FOLDER / "prometheus.yml")


def test_alerts_fire_when_they_should_and_not_else() -> None:
    read_by("promtool", "test", "rules", TESTS)


def test_each_alert_is_tested_both_ways() -> None:
    quiet, loud = set(), set()
    for case in yaml.safe_load(TESTS.read_text())["tests"]:
        for test in case["alert_rule_test"]:
            (loud if test.get("exp_alerts") else quiet).add(test["alertname"])
    assert quiet == loud == {rule["alert"] for rule in rules()}


def test_alerts_are_about_metrics_that_there_are() -> None:
    for rule in rules():
        check_names(rule["expr"])


# Grafana


def test_the_dashboard_is_what_its_script_writes() -> None:
    script = runpy.run_path(str(FOLDER / "make_dashboard.py"))
    assert (FOLDER / "dashboard.json").read_text() == script["written"]()


def test_grafana_knows_all_of_the_dashboard() -> None:
    """The SDK's own model of it reads it, and loses no part."""
    reason = "Grafana's package wants Python 3.11"
    models = pytest.importorskip("grafana_foundation_sdk.models.dashboard", reason=reason)
    encoder = pytest.importorskip("grafana_foundation_sdk.cog.encoder", reason=reason)
    model = models.Dashboard.from_json(DASHBOARD)
    read = json.loads(json.dumps(model, cls=encoder.JSONEncoder))
    assert [*lost(DASHBOARD, read)] == []


def lost(part: Any, read: Any, place: str = "") -> Iterator[str]:
    if isinstance(part, dict) and isinstance(read, dict):
        yield from (f"{place}/{key}" for key in part.keys() - read.keys())
        for key in part.keys() & read.keys():
            yield from lost(part[key], read[key], f"{place}/{key}")
    elif isinstance(part, list) and isinstance(read, list) and len(part) == len(read):
        for index, (one, other) in enumerate(zip(part, read, strict=True)):
            yield from lost(one, other, f"{place}/{index}")
    elif part != read:
        yield place


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_panels_are_about_metrics_that_there_are() -> None:
    for query in queries():
        check_names(query)
        assert 'job=~"$job",instance=~"$instance"' in query


def test_the_dashboard_shows_all_metrics() -> None:
    """But what is the same for all time."""
    shown = {
        re.sub("_bucket$", "", name)
        for query in queries()
        for name in re.findall(r"flask_websocket_\w+", query)
    }
    unseen = {"complete", "build_info", "worker_up", "worker_start_time_seconds"}
    assert shown | {f"flask_websocket_{name}" for name in unseen} == set(METRICS)
