"""What Prometheus is shown of statistics, whatever is in them: read by its client and promtool."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from flask_uwsgi_websocket import WebSocket
from flask_uwsgi_websocket.monitoring.families import FAMILIES, PREFIX
from flask_uwsgi_websocket.monitoring.prometheus import collector_of
from flask_uwsgi_websocket.monitoring.series import LONGEST_VALUE, MOST_VALUES, OTHER
from tests.prometheus_server import PROMTOOL
from tests.server import PATIENCE

Stats = dict[str, Any]
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]

HISTOGRAM = {"bounds": [0.001, 0.01, 0.1], "counts": [1, 2, 3, 4], "sum": 0.75}


def route(**figures: Any) -> dict[str, Any]:
    return {
        "open": 3,
        "accepted": 120,
        "refused": {"origin": 2},
        "messages_received": 10,
        "messages_sent": 20,
        "bytes_received": 1000,
        "bytes_sent": 2000,
        "queued_bytes": 7,
        "closed": {"client": {"1000": 5}, "server": {"1001": 2}, "lost": {"1006": 1}},
        "errors": 4,
        "limited": 5,
        "slow": {"closed": 1, "dropped": 2, "conflated": 3},
        "ping": HISTOGRAM,
        "duration": HISTOGRAM,
        "compression": {
            "received": {"bytes": 50, "compressed": 5},
            "sent": {"bytes": 60, "compressed": 6},
        },
        **figures,
    }


def pattern() -> dict[str, Any]:
    return {
        "joins": 1,
        "leaves": 2,
        "published": 3,
        "delivered": 4,
        "slow": {"closed": 1, "dropped": 2, "conflated": 3},
        "resumes": {"recovered": 6, "resync": 7},
        "replayed": 8,
        "repairs": 9,
        "resyncs": 10,
        "undelivered": 11,
        "lag": HISTOGRAM,
    }


BACKPLANE = {
    "up": 1,
    "reconnects": 1,
    "gaps": 2,
    "lost": 3,
    "failed": 7,
    "overflowed": 8,
    "pending_bytes": 4,
    "publish": HISTOGRAM,
    "presence_swept": 5,
    "log_bytes": 6,
}


def statistics(routes: Any = None, patterns: Any = None, **more: Any) -> Stats:
    rooms = {
        "rooms": 2,
        "members": 5,
        "writes": 5,
        "patterns": {"*": pattern()} if patterns is None else patterns,
        "backplane": BACKPLANE,
    }
    worker = {
        "pid": os.getpid(),
        "age": 0.5,
        "started": 1.7e9,
        "engine": "gevent",
        "open": 2,
        "routes": {},
        "refused": {},
        "rooms": rooms,
    }
    return {
        "complete": True,
        "time": 1.7e9,
        "instance": "1.2",
        "app": "shop",
        "workers": [
            {**worker, "worker": 1, "state": "live"},
            {**worker, "worker": 2, "state": "blocked", "rooms": {}},
        ],
        "open": 3,
        "routes": {"/echo": route()} if routes is None else routes,
        "refused": {"not_found": 9},
        "rooms": rooms,
        **more,
    }


def registry_of(stats: Stats) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(collector_of(lambda: stats))
    return registry


def exposition(stats: Stats) -> str:
    return generate_latest(registry_of(stats)).decode()


def samples(text: str, parse: Callable[[str], Any] = parse_text) -> Samples:
    """All series, each of which must be there once."""
    found: Samples = {}
    for family in parse(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, key
            found[key] = sample.value
    return found


def value(found: Samples, name: str, **labels: str) -> float:
    return found[PREFIX + name, tuple(sorted(labels.items()))]


def promtool_check(text: str) -> str:
    done = subprocess.run(
        [PROMTOOL, "check", "metrics"],
        input=text.encode(),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    return (done.stdout + done.stderr).decode() + (
        f"ended {done.returncode}" * bool(done.returncode)
    )


# Values


def test_each_figure_is_shown() -> None:
    found = samples(exposition(statistics()))
    assert value(found, "connections", route="/echo") == 3
    assert value(found, "accepted_total", route="/echo") == 120
    assert value(found, "refused_total", route="/echo", reason="origin") == 2
    assert value(found, "refused_total", route="", reason="not_found") == 9
    assert value(found, "closed_total", route="/echo", by="lost", code="1006") == 1
    assert value(found, "messages_total", route="/echo", direction="sent") == 20
    assert value(found, "bytes_total", route="/echo", direction="received") == 1000
    assert value(found, "inflated_bytes_total", route="/echo", direction="sent") == 60
    assert value(found, "deflated_bytes_total", route="/echo", direction="sent") == 6
    assert value(found, "slow_total", route="/echo", action="dropped") == 2
    assert value(found, "room_resumes_total", pattern="*", outcome="resync") == 7
    assert value(found, "backplane_lost_total") == 3
    assert value(found, "backplane_up", worker="1") == 1
    assert value(found, "workers", state="live") == value(found, "workers", state="blocked") == 1
    assert value(found, "workers", state="ended") == 0
    assert (value(found, "worker_up", worker="1"), value(found, "worker_up", worker="2")) == (1, 0)
    assert value(found, "complete") == 1
    assert (
        0 < value(found, "worker_open_fds", worker="1") < value(found, "worker_max_fds", worker="1")
    )


def test_every_metric_has_figures() -> None:
    """But of the connections that a worker can hold: there is no uWSGI around this."""
    shown = {family.name for family in parse_text(exposition(statistics()))}
    assert shown | {PREFIX + "worker_max_connections"} == {
        family.full_name.removesuffix("_total") for family in FAMILIES
    }


#: Parts of stats() that are no metrics, or are sums of what is shown.
NOT_SHOWN = {"app", "instance", "time", "open", "workers"}


def test_a_worker_that_has_ended_has_no_backplane() -> None:
    """The alert for it is another."""
    stats = statistics()
    stats["workers"].append({**stats["workers"][0], "worker": 3, "state": "ended"})
    found = samples(exposition(stats))
    assert value(found, "worker_up", worker="3") == 0
    assert {labels for name, labels in found if name == f"{PREFIX}backplane_up"} == {
        (("worker", "1"),)
    }


def test_a_worker_that_is_not_wanted_is_counted_and_no_more() -> None:
    stats = statistics()
    stats["workers"].append({**stats["workers"][0], "worker": 3, "state": "retired"})
    found = samples(exposition(stats))
    assert value(found, "workers", state="retired") == 1
    assert {labels for name, labels in found if name == f"{PREFIX}worker_up"} == {
        (("worker", "1"),),
        (("worker", "2"),),
    }


def test_each_figure_of_the_statistics_is_shown() -> None:
    """Of those that the app itself gives, so that none is forgotten that is new there."""
    app = Flask("shop")
    websocket = WebSocket(app)

    @websocket.route("/room")
    def room(ws: Any) -> None:
        ws.join("a")
        websocket.to("a").send(ws.receive())

    with websocket.test_client().connect("/room") as client:
        client.send("hello")
        assert client.receive() == "hello"
    stats = {key: part for key, part in websocket.stats().items() if key not in NOT_SHOWN}
    paths = [re.escape(path).replace(r"\*", "[^/]+") for one in FAMILIES for path in one.paths]
    ways = {"/".join(way) for way in leaves(stats)}
    assert len(ways) > 30
    unseen = {way for way in ways if not re.fullmatch("|".join(paths), way)}
    assert unseen == {"rooms/backplane/up"}  # a sum, where each worker's own is shown


def leaves(part: Any, way: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(part, dict) and "bounds" not in part:
        for key, below in part.items():
            yield from leaves(below, (*way, key.replace("/", "")))
    else:
        yield way


def test_a_histogram_is_cumulative() -> None:
    found = samples(exposition(statistics()))
    buckets = {
        dict(labels)["le"]: count
        for (name, labels), count in found.items()
        if name == PREFIX + "ping_seconds_bucket"
    }
    assert buckets == {"0.001": 1, "0.01": 3, "0.1": 6, "+Inf": 10}
    assert value(found, "ping_seconds_count", route="/echo") == 10
    assert value(found, "ping_seconds_sum", route="/echo") == 0.75


def test_an_app_without_rooms_or_traffic() -> None:
    found = samples(exposition(statistics(routes={}, rooms={}, refused={}, workers=[])))
    names = {name.removeprefix(PREFIX) for name, _ in found}
    assert names == {"workers", "complete", "refused_total"}
    assert value(found, "refused_total", route="", reason="full") == 0


def test_promtool_has_nothing_to_say() -> None:
    assert promtool_check(exposition(statistics())) == ""


# Hostile names

names = st.text(max_size=300) | st.text(
    st.sampled_from('"\\\n\r\0\t{},=# \u2028\x85\ud800\udfff<>&é😀'), max_size=30
)


@pytest.mark.slow
@given(
    routes=st.dictionaries(names, st.builds(route, accepted=st.integers(0, 2**63)), max_size=5),
    patterns=st.dictionaries(names, st.builds(pattern), max_size=3),
    refused=st.dictionaries(names, st.integers(0, 100), max_size=3),
    engine=names,
)
@example(routes={"a\n": route(), "a\r": route()}, patterns={}, refused={}, engine="\ud800")
def test_whatever_the_names(routes: Any, patterns: Any, refused: Any, engine: str) -> None:
    stats = statistics(routes, patterns, refused=refused)
    stats["workers"][0]["engine"] = engine
    before = copy.deepcopy(stats)
    found = samples(exposition(stats))
    assert stats == before
    accepted = [n for (name, _), n in found.items() if name == PREFIX + "accepted_total"]
    assert sum(accepted) == pytest.approx(sum(one["accepted"] for one in routes.values()))
    openmetrics = generate_openmetrics(registry_of(stats)).decode()
    assert samples(openmetrics, parse_openmetrics) == found


def test_promtool_reads_whatever_the_names() -> None:
    hostile = [
        '"',
        "\\",
        "\n",
        "\0",
        "\r",
        "{",
        "}",
        ",",
        "\ud800",
        "é",
        "<script>",
        "x" * 5000,
        "",
    ]
    routes = {name * n: route() for name in hostile for n in (1, 2, 3)}
    assert promtool_check(exposition(statistics(routes))) == ""


@pytest.mark.slow
def test_ten_thousand_names_are_a_bounded_number_of_series() -> None:
    number = 10_000
    routes = {
        f"/{index}": route(refused={f"r{index}": 1}, closed={"client": {str(index): 1}})
        for index in range(number)
    }
    patterns = {f"room-{index}": pattern() for index in range(number)}
    text = exposition(statistics(routes, patterns))
    found = samples(text)
    values: dict[str, set[str]] = {}
    for _, labels in found:
        for name, shown in labels:
            values.setdefault(name, set()).add(shown)
    assert {name for name, shown in values.items() if len(shown) > MOST_VALUES} == {
        "route",
        "pattern",
        "reason",
        "code",
    }
    assert max(map(len, values.values())) == MOST_VALUES + 1
    for family in ("accepted_total", "refused_total", "closed_total", "ping_seconds_count"):
        assert sum(n for (name, _), n in found.items() if name == PREFIX + family) >= number
    accepted = [n for (name, _), n in found.items() if name == PREFIX + "accepted_total"]
    assert sum(accepted) == 120 * number
    assert value(found, "accepted_total", route=OTHER) > 120 * (number - MOST_VALUES)
    assert max(len(shown) for those in values.values() for shown in those) <= LONGEST_VALUE


def test_the_same_names_are_shown_singly_in_each_metric() -> None:
    routes = {f"/{index:03}": route(refused={}) for index in range(0, 300, 2)}
    routes |= {f"/{index:03}": route() for index in range(1, 300, 2)}
    found = samples(exposition(statistics(routes)))
    shown = {dict(labels)["route"] for name, labels in found if name == PREFIX + "accepted_total"}
    refused = {dict(labels)["route"] for name, labels in found if name == PREFIX + "refused_total"}
    assert refused - {""} <= shown


# Registries


def test_it_goes_into_a_registry_of_the_apps() -> None:
    asked = []

    def ask() -> Stats:
        asked.append(1)
        return statistics()

    registry = CollectorRegistry(auto_describe=True)
    registry.register(collector_of(ask))
    assert not asked
    Counter("orders", "Orders.", registry=registry).inc()
    found = samples(generate_latest(registry).decode())
    assert len(asked) == 1
    assert found["orders_total", ()] == 1
    assert value(found, "accepted_total", route="/echo") == 120
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(collector_of(ask))


def test_the_view_answers_as_the_request_asks() -> None:
    app = Flask("shop")
    app.add_url_rule("/metrics", view_func=WebSocket(app).metrics_view)
    client = app.test_client()
    head = client.head("/metrics")
    assert (head.status_code, head.data) == (200, b"")
    assert client.post("/metrics").status_code == 405
    some = client.get("/metrics?name[]=flask_websocket_complete").text
    assert {name for name, _ in samples(some)} == {"flask_websocket_complete"}


@pytest.mark.slow
def test_without_the_client_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from flask import Flask; from flask_uwsgi_websocket import WebSocket\n"
        "app = Flask('shop'); websocket = WebSocket(app)\n"
        "try: app.add_url_rule('/metrics', view_func=websocket.metrics_view)\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "pip install 'Flask-uWSGI-WebSocket[prometheus]'" in done.stdout, done.stderr
