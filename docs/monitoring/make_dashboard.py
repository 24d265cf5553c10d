"""Write dashboard.json, the dashboard for Grafana: `python docs/monitoring/make_dashboard.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).with_name("dashboard.json")

Json = dict[str, Any]
#: An expression, and what its lines are called.
Line = tuple[str, str]

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
INSTANCES = 'job=~"$job",instance=~"$instance"'
#: What stands for itself in the expressions below: who is meant, and how long a rate looks back.
WORDS = {"ALL": INSTANCES, "ROUTES": f'{INSTANCES},route=~"$route"', "BACK": "$__rate_interval"}

#: Columns of Grafana's grid, and the rows that a panel is high.
WIDTH, HEIGHT = 24, 8


def rate(metric: str, by: str = "", which: str = "ROUTES", only: str = "") -> str:
    """Ask for a counter's growth for each second, summed by some of its labels."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate(flask_websocket_{metric}_total{{{which}{only}}}[BACK]))"


def total(metric: str, by: str = "", which: str = "ROUTES") -> str:
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (flask_websocket_{metric}{{{which}}})"


def quantiles(metric: str, which: str = "ROUTES") -> list[Line]:
    buckets = f"sum by (le) (rate(flask_websocket_{metric}_bucket{{{which}}}[BACK]))"
    return [(f"histogram_quantile({q}, {buckets})", f"p{q[2:]:0<2}") for q in ("0.5", "0.99")]


def share(part: str, rest: str) -> str:
    """Ask which part of it and the rest together one is; 0 where nothing is."""
    return f"{part} / ({part} + {rest} > 0) or vector(0)"


#: By row: each panel's title, unit, kind of drawing, and lines.
ROWS: dict[str, list[tuple[str, str, str, list[Line]]]] = {
    "Now": [
        ("Open", "short", "stat", [(total("connections"), "")]),
        ("Opened", "ops", "stat", [(rate("accepted"), "")]),
        (
            "Refused",
            "percentunit",
            "stat",
            [(share(f"({rate('refused')} or vector(0))", rate("accepted")), "")],
        ),
        ("Received", "ops", "stat", [(rate("messages", only=',direction="received"'), "")]),
        ("Sent", "ops", "stat", [(rate("messages", only=',direction="sent"'), "")]),
        ("Ping p99", "s", "stat", quantiles("ping_seconds")[1:]),
        ("Handler errors", "ops", "stat", [(rate("handler_errors"), "")]),
        ("Workers", "short", "stat", [(total("workers", "state", "ALL"), "{{state}}")]),
    ],
    "Connections": [
        ("Open by route", "short", "stacked", [(total("connections", "route"), "{{route}}")]),
        ("Opened by route", "ops", "lines", [(rate("accepted", "route"), "{{route}}")]),
        ("Refused by reason", "ops", "lines", [(rate("refused", "reason"), "{{reason}}")]),
        ("Close codes", "ops", "lines", [(rate("closed", "by, code"), "{{code}} by {{by}}")]),
        ("Handler errors", "ops", "lines", [(rate("handler_errors", "route"), "{{route}}")]),
        ("Time open", "s", "lines", quantiles("duration_seconds")),
    ],
    "Traffic": [
        ("Messages", "ops", "lines", [(rate("messages", "direction"), "{{direction}}")]),
        ("Bytes", "Bps", "lines", [(rate("bytes", "direction"), "{{direction}}")]),
        ("Messages sent by route", "ops", "lines", [
            (rate("messages", "route", only=',direction="sent"'), "{{route}}")
        ]),
        ("Pings", "s", "lines", quantiles("ping_seconds")),
        ("Queued for clients", "bytes", "stacked", [(total("queued_bytes", "route"), "{{route}}")]),
        ("Slow clients, and too fast ones", "ops", "lines", [
            (rate("slow", "action"), "{{action}}"), (rate("limited"), "waiting by max_rate"),
        ]),
        ("Compressed to", "percentunit", "lines", [
            (f"{rate('deflated_bytes', 'direction')} / ({rate('inflated_bytes', 'direction')} > 0)",
             "{{direction}}")
        ]),
    ],
    "Workers": [
        ("Open by worker", "short", "lines", [
            (total("worker_connections", "instance, worker", "ALL"), "{{instance}} {{worker}}")
        ]),
        ("Workers by state", "short", "stacked", [(total("workers", "state", "ALL"), "{{state}}")]),
        ("Age of figures", "s", "lines", [
            ("max by (instance, worker) (flask_websocket_worker_age_seconds{ALL})",
             "{{instance}} {{worker}}")
        ]),
        ("Descriptors in use", "percentunit", "lines", [
            ("max by (instance, worker) (flask_websocket_worker_open_fds{ALL}"
             " / flask_websocket_worker_max_fds{ALL})", "{{instance}} {{worker}}")
        ]),
        ("Cores in use by WebSockets", "percentunit", "lines", [
            ("max by (instance, worker) (flask_websocket_worker_connections{ALL}"
             " / flask_websocket_worker_max_connections{ALL})", "{{instance}} {{worker}}")
        ]),
    ],
    "Rooms": [
        ("Rooms and members", "short", "lines", [
            (total("rooms", "", "ALL"), "rooms"),
            (total("room_members", "", "ALL"), "members"),
        ]),
        ("Joined and left", "ops", "lines", [
            (rate("room_joins", "", "ALL"), "joined"), (rate("room_leaves", "", "ALL"), "left"),
        ]),
        ("Published by pattern", "ops", "lines", [
            (rate("room_published", "pattern", "ALL"), "{{pattern}}")
        ]),
        ("Delivered by pattern", "ops", "lines", [
            (rate("room_delivered", "pattern", "ALL"), "{{pattern}}")
        ]),
        ("Messages in one write", "short", "lines", [
            (f"{rate('room_delivered', '', 'ALL')} / ({rate('room_writes', '', 'ALL')} > 0)", "")
        ]),
        ("From sending to delivery", "s", "lines", quantiles("room_lag_seconds", "ALL")),
        ("Come back", "ops", "lines", [
            (rate("room_resumes", "outcome", "ALL"), "{{outcome}}"),
            (rate("room_replayed", "", "ALL"), "replayed messages"),
        ]),
        ("Slow members", "ops", "lines", [(rate("room_slow", "action", "ALL"), "{{action}}")]),
    ],
    "Between workers": [
        ("Connected", "short", "lines", [
            ("min by (instance, worker) (flask_websocket_backplane_up{ALL})",
             "{{instance}} {{worker}}")
        ]),
        ("Mishaps", "ops", "lines", [
            (rate("backplane_reconnects", "", "ALL"), "reconnects"),
            (rate("backplane_gaps", "", "ALL"), "gaps"),
            (rate("backplane_lost", "", "ALL"), "messages lost"),
            (rate("backplane_failed", "", "ALL"), "messages not taken"),
            (rate("backplane_overflowed", "", "ALL"), "messages over the queue's end"),
            (rate("room_undelivered", "", "ALL"), "messages to a worker too busy"),
            (rate("room_repairs", "", "ALL"), "gaps repaired"),
            (rate("room_resyncs", "", "ALL"), "gaps told"),
            (rate("backplane_presence_swept", "", "ALL"), "presences of the dead removed"),
        ]),
        ("Publishing", "s", "lines", quantiles("backplane_publish_seconds", "ALL")),
        ("Waiting, and histories", "bytes", "lines", [
            (total("backplane_pending_bytes", "", "ALL"), "waiting to go out"),
            (total("backplane_log_bytes", "", "ALL"), "histories"),
        ]),
    ],
}  # fmt: skip


def expanded(expression: str) -> str:
    for word, meaning in WORDS.items():
        expression = expression.replace(word, meaning)
    return expression


def panel(title: str, unit: str, drawing: str, lines: list[Line]) -> Json:
    targets = [
        {
            "datasource": SOURCE,
            "refId": chr(ord("A") + index),
            "expr": expanded(expression),
            "legendFormat": legend or title,
        }
        for index, (expression, legend) in enumerate(lines)
    ]
    options: Json = {"tooltip": {"mode": "multi", "sort": "desc"}}
    custom: Json = {"fillOpacity": 10, "showPoints": "never"}
    if drawing == "stacked":
        custom = {**custom, "fillOpacity": 30, "stacking": {"mode": "normal", "group": "A"}}
    if drawing == "stat":
        options, custom = {"graphMode": "area", "reduceOptions": {"calcs": ["lastNotNull"]}}, {}
    return {
        "type": "stat" if drawing == "stat" else "timeseries",
        "title": title,
        "datasource": SOURCE,
        "targets": targets,
        "fieldConfig": {
            "defaults": {"unit": unit, "min": 0, **({"custom": custom} if custom else {})},
            "overrides": [],
        },
        "options": options,
    }


def placed() -> list[Json]:
    """All panels, each with its place: eight in a row of short ones, three in a row of others."""
    panels: list[Json] = []
    y = 0
    for title, contents in ROWS.items():
        panels.append({"type": "row", "title": title, "collapsed": False, "panels": []})
        panels[-1]["gridPos"] = {"x": 0, "y": y, "w": WIDTH, "h": 1}
        y += 1
        across, high = (8, HEIGHT // 2) if contents[0][2] == "stat" else (3, HEIGHT)
        for index, content in enumerate(contents):
            row, column = divmod(index, across)
            width = WIDTH // across
            place = {"x": column * width, "y": y + row * high, "w": width, "h": high}
            panels.append({**panel(*content), "gridPos": place})
        y += -(-len(contents) // across) * high
    return [{**one, "id": number} for number, one in enumerate(panels, 1)]


def variable(name: str, label: str, metric: str, **more: Any) -> Json:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": f"label_values({metric}, {name})", "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        # "All" is also what has no such label, as the refused of no route.
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        **more,
    }


def dashboard() -> Json:
    source = {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
    }
    workers = "flask_websocket_workers"
    return {
        "uid": "flask-uwsgi-websocket",
        "title": "Flask-uWSGI-WebSocket",
        "tags": ["websocket", "flask", "uwsgi"],
        "schemaVersion": 38,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [
                source,
                variable("job", "Job", workers),
                variable("instance", "Instance", f'{workers}{{job=~"$job"}}'),
                variable("route", "Route", f"flask_websocket_connections{{{INSTANCES}}}"),
            ]
        },
        "annotations": {"list": []},
        "panels": placed(),
    }


def written() -> str:
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    DASHBOARD.write_text(written(), encoding="utf-8")
