"""The code of docs/prometheus.rst, as it stands there, and its tables."""

from __future__ import annotations

import re

from flask_uwsgi_websocket.monitoring.families import FAMILIES
from tests.pages import PAGES, Page

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
