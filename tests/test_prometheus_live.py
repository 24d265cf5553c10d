"""A real Prometheus that scrapes a real uWSGI: it has what the tests did, through all that."""

from __future__ import annotations

import contextlib
import gzip
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from flask_uwsgi_websocket.monitoring.families import FAMILIES
from tests.conftest import assert_end_well, start
from tests.prometheus_server import Prometheus
from tests.server import PATIENCE, Server, eventually
from tests.test_monitoring_files import ALERTS, queries
from tests.test_prometheus import promtool_check, samples, value
from tests.test_reload import command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

CONFIG = {"UWSGI_WEBSOCKET_PING_INTERVAL": 1, "UWSGI_WEBSOCKET_COMPRESSION": True}

#: What each figure of a test's own is in Prometheus.
METRICS = {
    "accepted": 'accepted_total{route="/echo"}',
    "received": 'messages_total{route="/echo",direction="received"}',
    "sent": 'messages_total{route="/echo",direction="sent"}',
    "closed": 'closed_total{route="/echo",by="client",code="1000"}',
    "errors": 'handler_errors_total{route="/fail"}',
    "refused": 'refused_total{route="/echo",reason="origin"}',
    "not found": 'refused_total{route="",reason="not_found"}',
    "joins": "room_joins_total",
    "published": "room_published_total",
    "delivered": "room_delivered_total",
}


#: What a client gets of a server that is killed.
GONE = (OSError, EOFError, ConnectionClosed, InvalidHandshake, TimeoutError)


class Site:
    """A uWSGI of two workers, the Prometheus that scrapes it, and what was done there."""

    def __init__(self, server: Server, prometheus: Prometheus) -> None:
        self.server = server
        self.prometheus = prometheus
        self.done: Counter[str] = Counter()

    def echo(self, messages: int = 5) -> int:
        """Exchange some messages; return the process that did."""
        with self.server.connect("/echo", compression="deflate") as client:
            pid = int(client.recv(PATIENCE))
            for _ in range(messages):
                client.send("x" * 100)
                client.recv(PATIENCE)
        self.done += Counter(accepted=1, received=messages, sent=messages + 1, closed=1)
        return pid

    def act(self) -> None:
        """Do all that is counted, in both workers."""
        pids: set[int] = set()
        eventually(lambda: pids.add(self.echo()) or len(pids) > 1, "both workers to answer")
        with self.server.connect("/fail") as client:
            client.send("now")
            with pytest.raises(ConnectionClosed):
                client.recv(PATIENCE)
        with self.server.connect("/room/a") as client:
            assert client.recv(PATIENCE) == "joined"
            client.send("hello")
            assert client.recv(PATIENCE) == "hello"
        self.done += Counter(joins=1, published=1, delivered=1)
        assert self.server.refused("/echo", headers={"Origin": "http://evil.example"})
        assert self.server.refused("/nowhere")
        self.done += Counter({"errors": 1, "refused": 1, "not found": 1})

    def seen(self) -> Counter[str]:
        """What Prometheus has by now."""
        ask = self.prometheus.number
        return Counter(
            {
                name: int(ask(f"sum(flask_websocket_{metric})") or 0)
                for name, metric in METRICS.items()
            }
        )

    def check(self) -> None:
        """What was done is what Prometheus has, as soon as it has asked."""
        try:
            eventually(lambda: self.seen() == self.done, "Prometheus to have seen it", interval=0.2)
        except AssertionError:
            assert self.seen() == self.done

    def check_that_no_counter_ever_fell(self) -> None:
        fell = {name: self.prometheus.query(f"resets({name}[1h]) > 0") for name in counters()}
        assert {name: where for name, where in fell.items() if where} == {}


def counters() -> Iterator[str]:
    for family in FAMILIES:
        if family.kind == "histogram":
            yield from (f"{family.full_name}_bucket", f"{family.full_name}_count")
        elif family.kind == "counter":
            yield family.full_name


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    place = tmp_path_factory.mktemp("site")
    server = Server(
        place / "uwsgi",
        "gevent",
        app="metrics",
        config=CONFIG,
        processes=2,
        options=["--lazy-apps", "--master-fifo", "fifo"],
        env={"XDG_RUNTIME_DIR": str(place)},
    )
    try:
        start(server)
        with Prometheus(place, server.address, ALERTS) as prometheus:
            site = Site(server, prometheus)
            site.act()
            site.check()
            yield site
    finally:
        server.allow_log("Traceback", "DAMN", "killed by signal 9")
        assert_end_well([server])


@contextlib.contextmanager
def visitors_of(site: Site) -> Iterator[None]:
    """Clients that come, go and talk all the time, whoever serves them or dies."""
    done = threading.Event()

    def visit() -> None:
        while not done.is_set():
            with contextlib.suppress(*GONE), site.server.connect("/visit") as client:
                for _ in range(50):
                    client.send("hello")
                    client.recv(1)

    threads = [threading.Thread(target=visit) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join(PATIENCE)


def chain_reload(site: Site) -> None:
    before = site.server.log().count("chain reloading complete")
    command(site.server, "c")
    eventually(
        lambda: site.server.log().count("chain reloading complete") > before, "the chain to end"
    )


def kill_a_worker(site: Site) -> None:
    victim = min(site.server.pids())
    os.kill(victim, signal.SIGKILL)
    site.server.settle(victim)


def test_what_was_done_is_what_prometheus_has(site: Site) -> None:
    site.act()
    site.check()


@pytest.mark.parametrize("happening", [chain_reload, kill_a_worker])
def test_counters_go_on(site: Site, happening: Callable[[Site], None]) -> None:
    site.act()
    site.check()
    happening(site)
    site.act()
    site.check()
    site.check_that_no_counter_ever_fell()


def test_counters_go_on_under_load(site: Site) -> None:
    """What a killed worker counted last may be lost: nothing that anybody has seen."""
    received = 'sum(flask_websocket_messages_total{route="/visit",direction="received"})'

    def wait_for_more() -> None:
        before = site.prometheus.number(received) or 0
        eventually(lambda: (site.prometheus.number(received) or 0) > before, "visitors to be seen")

    with visitors_of(site):
        wait_for_more()
        for happening in (kill_a_worker, chain_reload):
            happening(site)
            wait_for_more()
    site.check_that_no_counter_ever_fell()


def test_increase_is_what_was_done(site: Site) -> None:
    growth = site.prometheus.number
    received = f"flask_websocket_{METRICS['received']}"
    first = growth(f"min_over_time({received}[1h])")
    site.echo(200)
    site.check()
    assert first is not None
    done = site.done["received"] - first
    increase = growth(f"increase({received}[1h])")
    # It adds what may have been before the first and after the last of what it asked for.
    assert increase is not None
    assert done * 0.95 <= increase <= done * 1.5 + 10


def test_each_panel_shows_something(site: Site) -> None:
    words = {"$job": ".*", "$instance": ".*", "$route": ".*", "$__rate_interval": "1m"}

    def empty() -> list[str]:
        site.act()
        found = []
        for query in queries():
            for word, meaning in words.items():
                query = query.replace(word, meaning)
            if not site.prometheus.query(query):
                found.append(query)
        return found

    with site.server.connect("/echo"):  # long enough for a ping
        eventually(lambda: not [q for q in empty() if "max_connections" not in q], "all to show")
    assert ["max_connections" in query for query in empty()] == [True]  # gevent holds no cores


def test_a_worker_that_is_blocked_is_shown(site: Site) -> None:
    rules = [r for group in site.prometheus.ask("rules")["groups"] for r in group["rules"]]
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    blocked = min(site.server.pids())
    os.kill(blocked, signal.SIGSTOP)
    try:
        eventually(
            lambda: site.prometheus.number('flask_websocket_workers{state="blocked"}') == 1,
            "it to be shown",
        )
        eventually(
            lambda: (
                "WebSocketWorkerBlocked"
                in [a["labels"]["alertname"] for a in site.prometheus.ask("alerts")["alerts"]]
            ),
            "an alert",
        )
    finally:
        os.kill(blocked, signal.SIGCONT)
    eventually(
        lambda: site.prometheus.number('flask_websocket_workers{state="live"}') == 2, "both to live"
    )


# The view, on each engine


def is_counted(server: Server) -> bool:
    found = samples(server.get("/metrics").body.decode())
    labels = (("direction", "sent"), ("route", "/echo"))
    return found.get(("flask_websocket_messages_total", labels)) == 2


@pytest.mark.parametrize("engine", ["threads", "gevent", "asyncio", "async"])
def test_each_engine_answers(serve: Callable[..., Server], engine: str) -> None:
    server = serve(engine, app="metrics", cores=8)
    with server.connect("/echo") as client:
        client.recv(PATIENCE)
        client.send("hello")
        client.recv(PATIENCE)
        # In uWSGI's async mode the first request comes before all that writes figures has begun.
        eventually(lambda: is_counted(server), "the connection to be counted")
        plain = server.get("/metrics")
        assert plain.headers["Content-Type"].startswith("text/plain; version=")
        text = plain.body.decode()
        assert promtool_check(text) == ""
        found = samples(text)
        assert value(found, "connections", route="/echo") == 1
        assert value(found, "messages_total", route="/echo", direction="received") == 1
        assert value(found, "messages_total", route="/echo", direction="sent") == 2
        assert value(found, "worker_connections", worker="1") == 1
        holds_cores = ("flask_websocket_worker_max_connections", (("worker", "1"),))
        assert found.get(holds_cores) == (8 if engine in ("threads", "async") else None)
    as_openmetrics = {"Accept": "application/openmetrics-text; version=1.0.0"}
    openmetrics = server.get("/metrics", **as_openmetrics)
    assert openmetrics.headers["Content-Type"].startswith("application/openmetrics-text")
    assert samples(openmetrics.body.decode(), parse_openmetrics)
    compressed = server.http("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
    assert compressed.headers["Content-Encoding"] == "gzip"
    assert samples(gzip.decompress(compressed.body).decode())
