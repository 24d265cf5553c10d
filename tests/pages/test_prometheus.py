"""The code of docs/prometheus.rst, as it stands there, and its tables."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flask_uwsgi_websocket.monitoring.families import FAMILIES
from tests.pages import PAGES, Page
from tests.server import PATIENCE

PAGE = Page("prometheus")


def test_a_token_lets_prometheus_in() -> None:
    names = PAGE.run("def metrics")
    names["app"].config["METRICS_TOKEN"] = "sesame"
    client = names["app"].test_client()
    assert client.get("/metrics").status_code == 403
    assert client.get("/metrics", headers={"Authorization": "Bearer x"}).status_code == 403
    answer = client.get("/metrics", headers={"Authorization": "Bearer sesame"})
    assert "flask_websocket_workers" in answer.text


def test_a_registry_of_the_apps_own() -> None:
    app = PAGE.run("registry.register")["app"]
    assert "flask_websocket_workers" in app.test_client().get("/metrics").text


def test_the_page_has_each_metric() -> None:
    text = PAGES["prometheus"].read_text(encoding="utf-8")
    row = r"^   \* - ``(flask_websocket_\w+)``\n     - (\w+)\n     -(.*)\n"
    table = re.findall(row, text, re.MULTILINE)
    told = {name: (kind, tuple(re.findall(r"``(\w+)``", labels))) for name, kind, labels in table}
    assert told == {family.full_name: (family.kind, family.labels) for family in FAMILIES}


SEVERAL_PROCESSES = """
from flask import Flask
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from flask_uwsgi_websocket import WebSocket

websocket = WebSocket(Flask("shop"))
Counter("orders", "Orders.").inc()
registry = CollectorRegistry()
MultiProcessCollector(registry)
registry.register(websocket.prometheus_collector())
print(generate_latest(registry).decode())
"""


@pytest.mark.slow
def test_a_registry_for_several_processes(tmp_path: Path) -> None:
    env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    command = [sys.executable, "-c", SEVERAL_PROCESSES]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert "orders_total 1.0" in done.stdout
    assert 'flask_websocket_workers{state="live"} 1.0' in done.stdout
