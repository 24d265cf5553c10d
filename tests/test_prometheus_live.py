"""A real Prometheus that scrapes a uWSGI of each engine: it has what was done there, exactly."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

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
from tests.test_stats import files_of

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

    def number(self, metric: str, inside: str = "sum(%s)") -> float | None:
        """What Prometheus has of a metric of this server's."""
        name, _, labels = metric.partition("{")
        where = f'instance="{self.server.address}",{labels or "}"}'
        return self.prometheus.number(inside % f"flask_websocket_{name}{{{where}")

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
        return Counter({name: int(self.number(each) or 0) for name, each in METRICS.items()})

    def check(self) -> None:
        """What was done is what Prometheus has, as soon as it has asked."""
        try:
            eventually(lambda: self.seen() == self.done, "Prometheus to have seen it", interval=0.5)
        except AssertionError:
            assert self.seen() == self.done
        # Of both workers, whichever was asked: an alert wakes somebody.
        works = "1 for each backplane"
        eventually(lambda: self.number("backplane_up", "min(%s)") == 1, works, interval=0.5)


def counters() -> Iterator[str]:
    for family in FAMILIES:
        if family.kind == "histogram":
            yield from (f"{family.full_name}_bucket", f"{family.full_name}_count")
        elif family.kind == "counter":
            yield family.full_name


class Sites:
    """A site for each engine, which one Prometheus scrapes: what a test does, it does at all."""

    def __init__(self, sites: Sequence[Site], prometheus: Prometheus) -> None:
        self.all = sites
        self.prometheus = prometheus

    def each(self, function: Callable[[Site], object]) -> None:
        """Do something at all sites at once."""
        with ThreadPoolExecutor(len(self.all)) as pool:
            for done in [pool.submit(function, site) for site in self.all]:
                done.result()

    def check_that_no_counter_ever_fell(self) -> None:
        fell = {name: self.prometheus.query(f"resets({name}[1h]) > 0") for name in counters()}
        assert {name: where for name, where in fell.items() if where} == {}


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    place = tmp_path_factory.mktemp("sites")
    servers = [
        Server(
            place / engine,
            engine,
            app="metrics",
            config={**CONFIG, "UWSGI_WEBSOCKET_PREFIX": engine},
            processes=2,
            options=["--lazy-apps", "--master-fifo", "fifo"],
            env={"XDG_RUNTIME_DIR": str(place)},
        )
        for engine in ("threads", "gevent", "asyncio", "async")
    ]
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(start, servers))
        with Prometheus(place, [server.address for server in servers], ALERTS) as prometheus:
            yield Sites([Site(server, prometheus) for server in servers], prometheus)
    finally:
        for server in servers:
            server.allow_log("Traceback", "DAMN", "killed by signal 9")
            server.begin_stop()
        assert_end_well(servers)


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

    threads = [threading.Thread(target=visit) for _ in range(2)]
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


def test_what_was_done_is_what_prometheus_has(sites: Sites) -> None:
    sites.each(Site.act)
    sites.each(Site.check)


@pytest.mark.parametrize("happening", [chain_reload, kill_a_worker])
def test_counters_go_on(sites: Sites, happening: Callable[[Site], None]) -> None:
    def happen(site: Site) -> None:
        site.check()
        happening(site)
        site.act()
        site.check()

    sites.each(happen)
    sites.check_that_no_counter_ever_fell()


def test_counters_go_on_under_load(sites: Sites) -> None:
    """What a killed worker counted last may be lost: nothing that anybody has seen."""

    def happen(site: Site) -> None:
        with visitors_of(site):
            wait_for_more(site)
            for happening in (kill_a_worker, chain_reload):
                happening(site)
                wait_for_more(site)

    sites.each(happen)
    sites.check_that_no_counter_ever_fell()


def wait_for_more(site: Site) -> None:
    received = 'messages_total{route="/visit",direction="received"}'
    before = site.number(received) or 0
    eventually(lambda: (site.number(received) or 0) > before, "visitors to be seen", interval=0.2)


def test_increase_is_what_was_done(sites: Sites) -> None:
    def grow(site: Site) -> None:
        received = METRICS["received"]
        first = site.number(received, "min_over_time(%s[1h])")
        site.echo(200)
        site.check()
        assert first is not None
        done = site.done["received"] - first
        increase = site.number(received, "increase(%s[1h])")
        # It adds what may have been before the first and after the last of what it asked for.
        assert increase is not None
        assert done * 0.95 <= increase <= done * 1.5 + 10

    sites.each(grow)


def test_each_panel_shows_something(sites: Sites) -> None:
    words = {"$job": ".*", "$instance": ".*", "$route": ".*", "$__rate_interval": "1m"}

    def empty() -> list[str]:
        sites.all[0].act()
        found = []
        for query in queries():
            for word, meaning in words.items():
                query = query.replace(word, meaning)
            if not sites.prometheus.query(query):
                found.append(query)
        return found

    with sites.all[0].server.connect("/echo"):  # long enough for a ping
        eventually(lambda: not empty(), "all to show")


def test_a_worker_that_is_blocked_is_shown(sites: Sites) -> None:
    rules = [r for group in sites.prometheus.ask("rules")["groups"] for r in group["rules"]]
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    sites.each(block)


def block(site: Site) -> None:
    # One of uWSGI's async mode that has no connection is silent anyhow, and not shown.
    with site.server.connect("/echo") as client:
        blocked = int(client.recv(PATIENCE))
        eventually(lambda: shows_connection(site, blocked), f"{site.server} to tell of it")
        os.kill(blocked, signal.SIGSTOP)
        try:
            shown = partial(site.number, 'workers{state="blocked"}')
            eventually(lambda: shown() == 1, "it to be shown", interval=0.2)
            eventually(lambda: has_alert(site), "an alert", interval=0.2)
        finally:
            os.kill(blocked, signal.SIGCONT)
    live = partial(site.number, 'workers{state="live"}')
    eventually(lambda: live() == 2, "both to live", interval=0.2)


def shows_connection(site: Site, pid: int) -> bool:
    """Whether a worker has written down for others that it has one."""
    for each in files_of(site.server.directory.parent):
        head = json.loads(each.read_text().partition("\n")[0])
        if head["pid"] == pid:
            return bool(head["counted"]["open"])
    return False


def has_alert(site: Site) -> bool:
    labels = [alert["labels"] for alert in site.prometheus.ask("alerts")["alerts"]]
    wanted = ("WebSocketWorkerBlocked", site.server.address)
    return wanted in [(each["alertname"], each["instance"]) for each in labels]


# The view


def test_each_engine_answers(sites: Sites) -> None:
    sites.each(answers)


def answers(site: Site) -> None:
    server = site.server

    def found() -> Any:
        return samples(server.get("/metrics").body.decode())

    def received() -> float:
        where = {"route": "/echo", "direction": "received"}
        return value(found(), "messages_total", **where)

    eventually(lambda: value(found(), "connections", route="/echo") == 0, "all to be closed")
    before = received()
    with server.connect("/echo") as client:
        client.recv(PATIENCE)
        client.send("hello")
        client.recv(PATIENCE)
        eventually(lambda: value(found(), "connections", route="/echo") == 1, "the connection")
        eventually(lambda: received() == before + 1, "its message")
        plain = server.get("/metrics")
        assert plain.headers["Content-Type"].startswith("text/plain; version=")
        assert promtool_check(plain.body.decode()) == ""
        holds_cores = ("flask_websocket_worker_max_connections", (("worker", "1"),))
        own = server.cores if server.engine in ("threads", "async") else None
        assert found().get(holds_cores) == own
    as_openmetrics = {"Accept": "application/openmetrics-text; version=1.0.0"}
    openmetrics = server.get("/metrics", **as_openmetrics)
    assert openmetrics.headers["Content-Type"].startswith("application/openmetrics-text")
    assert samples(openmetrics.body.decode(), parse_openmetrics)
    compressed = server.http("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
    assert compressed.headers["Content-Encoding"] == "gzip"
    assert samples(gzip.decompress(compressed.body).decode())
