"""What is counted, without a server: histograms, sums, labels, observers, threads and forks."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask, abort
from hypothesis import given
from hypothesis import strategies as st

from flask_uwsgi_websocket import WebSocket
from flask_uwsgi_websocket.connection import _socket_speedups, fast_io
from flask_uwsgi_websocket.exceptions import EngineError, HandshakeError
from flask_uwsgi_websocket.extension.dispatch import dispatch_of
from flask_uwsgi_websocket.metrics.histogram import Histogram
from flask_uwsgi_websocket.metrics.observers import REASONS, Observer, Refusal
from flask_uwsgi_websocket.metrics.snapshot import add, without_gauges
from flask_uwsgi_websocket.metrics.traffic import Traffic, opened_at
from flask_uwsgi_websocket.metrics.worker import WorkerMetrics
from flask_uwsgi_websocket.servers.uwsgi import server as uwsgi_server
from tests.server import eventually

ROOT = Path(__file__).resolve().parent.parent


# Histograms


@given(st.lists(st.floats(0, 1e6)), st.lists(st.floats(0, 1e5), min_size=1, unique=True))
def test_each_value_is_in_its_bucket(values: list[float], bounds: list[float]) -> None:
    bounds = sorted(bounds)
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    found = histogram.snapshot()
    edges = [-1.0, *bounds, float("inf")]
    expected = [sum(low < value <= high for value in values) for low, high in pairwise(edges)]
    assert found["counts"] == expected
    assert found["sum"] == pytest.approx(sum(values))
    assert found["bounds"] == bounds


@pytest.mark.parametrize("bounds", [[], [2, 1], [1, 1]])
def test_bounds_that_are_none(bounds: list[float]) -> None:
    with pytest.raises(ValueError, match="ascend"):
        Histogram(bounds)


# Sums

COUNTS = st.integers(0, 1 << 60)
HISTOGRAMS = st.lists(COUNTS, min_size=3, max_size=3).map(
    lambda counts: {"bounds": [0.5, 1], "counts": counts, "sum": sum(counts)}
)
#: What may be in a snapshot, of any depth; routes and rooms may have any name.
NAMES = st.sampled_from(["open", "bounds", "queued_bytes", "/a", '"><script>', "1000", "errors"])
ROUTES = st.fixed_dictionaries(
    {"open": COUNTS, "accepted": COUNTS, "ping": HISTOGRAMS},
    optional={"refused": st.dictionaries(st.sampled_from(sorted(REASONS)), COUNTS)},
)
SNAPSHOTS = st.fixed_dictionaries(
    {"open": COUNTS, "routes": st.dictionaries(NAMES, ROUTES), "refused": st.just({})}
)


@given(SNAPSHOTS, SNAPSHOTS, SNAPSHOTS)
def test_sums(one: Any, two: Any, three: Any) -> None:
    before = json.dumps([one, two, three])
    assert add(one, two) == add(two, one)
    assert add(add(one, two), three) == add(one, add(two, three))
    empty = {"open": 0, "routes": {}, "refused": {}}
    assert add(one, empty) == one
    total = add(one, two)
    assert total["open"] == one["open"] + two["open"]
    for pattern, route in total["routes"].items():
        parts = [each["routes"][pattern] for each in (one, two) if pattern in each["routes"]]
        assert route["accepted"] == sum(part["accepted"] for part in parts)
        assert sum(route["ping"]["counts"]) == sum(sum(part["ping"]["counts"]) for part in parts)
    assert json.dumps([one, two, three]) == before


@given(SNAPSHOTS)
def test_what_a_worker_leaves(snapshot: Any) -> None:
    """Its counters, and nothing that is now: so that no counter falls when it ends."""
    before = json.dumps(snapshot)
    left = without_gauges(snapshot)
    assert left["open"] == 0
    for pattern, route in left["routes"].items():
        assert route == {**snapshot["routes"][pattern], "open": 0}
    assert without_gauges(left) == left
    assert json.dumps(snapshot) == before


def test_sums_of_different_versions_of_an_app() -> None:
    one: Any = {"bounds": [1, 10], "counts": [1, 2, 3], "sum": 50.0}
    other: Any = {"bounds": [0.5, 5, 20], "counts": [10, 20, 30, 40], "sum": 1000.0}
    assert add(one, other) == {"bounds": [1, 10], "counts": [11, 22, 73], "sum": 1050.0}


# Traffic


@pytest.mark.parametrize("kind", [Traffic, _socket_speedups.Traffic])
def test_counters_of_a_connection(kind: Callable[[], Any]) -> None:
    traffic = kind()
    names = ("messages_received", "messages_sent", "bytes_received", "bytes_sent")
    assert [getattr(traffic, name) for name in names] == [0, 0, 0, 0]
    for number, name in enumerate(names):
        setattr(traffic, name, (1 << 62) + number)
    assert [getattr(traffic, name) - (1 << 62) for name in names] == [0, 1, 2, 3]
    traffic.add_received(1 << 40)
    traffic.add_sent(1, -1)
    found = [getattr(traffic, name) - (1 << 62) for name in names]
    assert found == [1 << 40, 2, 2, 2]
    for wrong in (partial(traffic.add_received, "1"), partial(traffic.add_sent, 1, "1")):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(TypeError):
        traffic.add_sent("1", 1)
    with pytest.raises(TypeError):
        traffic.add_sent(1)
    assert traffic.error is None
    traffic.error = "ValueError"
    assert traffic.error == "ValueError"
    assert traffic.opened == pytest.approx(time.monotonic(), abs=60)
    assert opened_at(traffic) == opened_at(traffic) == pytest.approx(time.time(), abs=60)
    with pytest.raises(AttributeError):
        traffic.other = 1
    with pytest.raises(TypeError):
        kind(1)  # type: ignore[call-arg]


def test_the_clock_of_both_is_the_same() -> None:
    before, between, after = Traffic(), _socket_speedups.Traffic(), Traffic()
    assert before.opened - 1e-5 <= between.opened <= after.opened + 1e-5


@pytest.mark.parametrize("step", [-7200.0, 7200.0])
def test_a_clock_that_is_set_changes_no_duration(
    step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = WorkerMetrics()
    route, traffic = metrics.route("/"), Traffic()
    opened, real = opened_at(traffic), time.time
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: real() + step)
        route.opened()
        route.fold(traffic, "client", 1000)
        assert 0 <= route.snapshot()["duration"]["sum"] < 60
        assert opened_at(traffic) == pytest.approx(opened + step, abs=60)
    assert opened_at(traffic) == pytest.approx(opened, abs=60)


@pytest.mark.skipif(sys.maxsize < 1 << 32, reason="needs pointers of 64 bits")
def test_what_a_connection_costs() -> None:
    assert fast_io.Traffic is _socket_speedups.Traffic
    assert sys.getsizeof(_socket_speedups.Traffic()) == 64


#: The same traffic, whether Python counts or C.
TRAFFIC = """
    import json, sys
    if sys.argv[1] == "python":
        sys.modules["flask_uwsgi_websocket.connection._socket_speedups"] = None
    from flask import Flask
    from flask_uwsgi_websocket import WebSocket
    from flask_uwsgi_websocket.connection import fast_io

    assert (fast_io.Traffic.__module__.endswith("speedups")) is (sys.argv[1] == "c")
    app = Flask(__name__)
    websocket = WebSocket(app)

    @websocket.route("/echo")
    @websocket.route("/compressed", endpoint="compressed", compression=True)
    def echo(ws):
        for message in ws:
            ws.send(message)

    @websocket.route("/all")
    def all_(ws):
        for message in ws:
            websocket.send_to_all(message)

    @websocket.route("/ahead")
    def ahead(ws):
        for number in range(90):
            ws.send_nb(str(number) * 1000)
        ws.receive()

    client = websocket.test_client()
    sizes = (0, 1, 125, 126, 4000, 8192, 65535, 65536, 300_000)
    for path in ("/echo", "/compressed", "/all"):
        with client.connect(path, compression=path == "/compressed") as ws:
            for size in sizes:
                for message in ("x" * size, b"y" * size, "\\u20ac" * (size // 3)):
                    ws.send(message)
                    assert ws.receive() == message
    with client.connect("/ahead") as ws:
        for number in range(90):
            assert ws.receive() == str(number) * 1000
    snapshot = websocket._metrics.snapshot()
    for route in snapshot["routes"].values():
        assert route.pop("duration")["counts"]
    print(json.dumps(snapshot, sort_keys=True))
"""


def test_c_and_python_count_the_same() -> None:
    def count(how: str) -> Any:
        command = [sys.executable, "-c", textwrap.dedent(TRAFFIC), how]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    in_c = count("c")
    assert count("python") == in_c
    assert in_c["routes"]["/echo"]["messages_sent"] == 27
    assert in_c["routes"]["/all"]["messages_sent"] == 27
    assert in_c["routes"]["/ahead"]["messages_sent"] == 90


# Routes and workers


class Ended:
    """A connection that has ended."""

    def __init__(self, by: str, code: int | None) -> None:
        self.traffic = Traffic()
        self.worker = SimpleNamespace(connections={self: None})
        self.protocol = SimpleNamespace(deflate=None)
        self.close_code, self.close_reason, self.closed_by = code, "", by
        self.queued = 0


def test_a_snapshot_is_the_same_until_something_changes() -> None:
    """Whatever changes a figure has to say so, or it would not be seen."""
    connections: list[Any] = []
    metrics = WorkerMetrics(lambda: connections)
    route = metrics.route("/")
    connection: Any = Ended("client", 1000)
    connection.route = route
    latest = metrics.snapshot()["routes"]["/"]

    def changes(do: Callable[[], object]) -> bool:
        nonlocal latest
        before, copied = latest, json.dumps(latest)
        do()
        latest = metrics.snapshot()["routes"]["/"]
        assert json.dumps(before) == copied
        assert metrics.snapshot()["routes"]["/"] is latest
        return latest != before

    assert not changes(lambda: None)
    assert changes(route.opened)
    assert not changes(lambda: connections.append(connection))
    assert changes(partial(connection.traffic.add_sent, 1, 0))
    assert changes(lambda: setattr(connection, "queued", 5))
    assert changes(lambda: setattr(connection, "queued", 0))
    assert changes(lambda: route.pinged(0.1))
    assert changes(lambda: route.slowed("dropped"))
    assert changes(route.limited)
    assert changes(route.failed)
    assert changes(lambda: route.refused("app"))
    connections.clear()
    assert changes(lambda: route.ended(connection))
    assert latest["messages_sent"] == 1


def test_labels_of_close_codes_are_few() -> None:
    metrics = WorkerMetrics()
    route = metrics.route("/")
    codes = [*range(1000, 1016), *range(3000, 5000)]
    for by in ("client", "server"):
        for code in codes:
            ended: Any = Ended(by, code)
            route.opened()
            route.ended(ended)
            assert not ended.worker.connections
    closed = metrics.snapshot()["routes"]["/"]["closed"]
    assert closed["client"] == {
        **{str(code): 1 for code in range(1000, 1016)},
        "3000-3999": 1000,
        "4000-4999": 1000,
    }
    assert closed["server"] == {
        **{str(code): 1 for code in range(1000, 1016)},
        **{str(code): 1 for code in range(3000, 3032)},
        "other": 2000 - 32,
    }
    assert closed["lost"] == {}


def test_threads_lose_no_count() -> None:
    metrics = WorkerMetrics()
    began = threading.Barrier(8)

    def work() -> None:
        began.wait()
        for number in range(500):
            route = metrics.route(f"/{number % 10}")
            route.opened()
            route.pinged(0.01)
            route.slowed("dropped", 2)
            route.failed()
            ended: Any = Ended("client", 1000)
            ended.traffic.bytes_sent = 3
            route.ended(ended)
            metrics.refused("origin", f"/{number % 10}")
            metrics.refused("not_found")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=work) for _ in range(8)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    snapshot = metrics.snapshot()
    assert snapshot["refused"] == {"not_found": 4000}
    for route in snapshot["routes"].values():
        assert (route["open"], route["accepted"], route["errors"]) == (0, 400, 400)
        assert route["bytes_sent"] == 1200
        assert route["slow"] == {"closed": 0, "dropped": 800, "conflated": 0}
        assert route["closed"]["client"] == {"1000": 400}
        assert route["refused"] == {"origin": 400}
        assert sum(route["ping"]["counts"]) == sum(route["duration"]["counts"]) == 400


def test_a_connection_that_ends_is_never_missed_and_never_counted_twice() -> None:
    """Snapshots of another thread see it among the open, or the ended ones."""
    connections: dict[Any, None] = {}
    metrics = WorkerMetrics(lambda: list(connections))
    route = metrics.route("/")
    over = threading.Event()

    def come_and_go() -> None:
        for _ in range(3000):
            ended: Any = Ended("client", 1000)
            ended.route, ended.worker.connections = route, connections
            ended.traffic.bytes_sent = 1
            route.opened()
            connections[ended] = None
            route.ended(ended)
        over.set()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    seen = 0
    while not over.is_set():
        found = metrics.snapshot()["routes"]["/"]
        assert seen <= found["bytes_sent"] <= found["accepted"]
        seen = found["bytes_sent"]
    thread.join()
    assert metrics.snapshot()["routes"]["/"]["bytes_sent"] == 3000


def test_a_child_begins_anew() -> None:
    app = Flask(__name__)
    websocket = WebSocket(app)
    [metrics] = dispatch_of(app).metrics()
    metrics.route("/a").opened()
    metrics.refused("not_found")
    out, into = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            metrics.route("/b").opened()
            os.write(into, json.dumps(websocket._metrics.snapshot()).encode())
        finally:
            os._exit(0)
    os.close(into)
    with os.fdopen(out, "rb") as pipe:
        child = json.loads(pipe.read())
    os.waitpid(pid, 0)
    assert (child["open"], list(child["routes"]), child["refused"]) == (1, ["/b"], {})
    assert websocket._metrics.snapshot()["open"] == 1
    assert websocket._metrics.snapshot()["refused"] == {"not_found": 1}


def test_a_source_that_fails_takes_nothing_else_along(caplog: pytest.LogCaptureFixture) -> None:
    metrics = WorkerMetrics()
    metrics.sources["broken"] = lambda: {"one": 1 / 0}
    metrics.sources["more"] = lambda: {"one": 1}
    snapshot: Any = metrics.snapshot()
    assert "broken" not in snapshot
    assert snapshot["more"] == {"one": 1}
    assert "figures of broken" in caplog.text


# An app


class Seen(Observer):
    """What an observer was notified of."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def opened(self, client: Any) -> None:
        self.events.append(("opened", client.path))

    def closed(self, client: Any, end: Any) -> None:
        self.events.append(("closed", client.path, end))

    def refused(self, environ: Any, refusal: Refusal) -> None:
        self.events.append(("refused", environ["PATH_INFO"], refusal))


class Broken(Observer):
    def opened(self, client: Any) -> None:
        raise RuntimeError("an observer's")

    closed = refused = opened  # type: ignore[assignment]


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)
    websocket = WebSocket(app)

    @websocket.route("/echo/<name>")
    def echo(ws: Any, name: str) -> None:
        for message in ws:
            ws.send(message)

    @websocket.route("/broken")
    def broken(ws: Any) -> None:
        ws.receive()
        raise LookupError("on purpose")

    @websocket.route("/late")
    def late(ws: Any) -> None:
        abort(403)

    @websocket.route("/lazy", lazy=True)
    def lazy(ws: Any) -> None:
        abort(418)

    return app


def extension(app: Flask) -> WebSocket:
    websocket: WebSocket = app.extensions["uwsgi_websocket"][0]
    return websocket


def test_observers(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    websocket = extension(app)
    seen = Seen()
    websocket._metrics.observers += [Broken(), seen]
    with websocket.test_client().connect("/echo/a") as ws:
        ws.send("hi")
        assert ws.receive() == "hi"
        assert seen.events == [("opened", "/echo/a")]
    eventually(lambda: len(seen.events) == 2, "the end")
    _, path, end = seen.events[1]
    assert path == "/echo/a"
    assert (end.code, end.by, end.route, end.error) == (1000, "client", "/echo/<name>", None)
    assert (end.messages_received, end.messages_sent) == (1, 1)
    assert (end.bytes_received, end.bytes_sent) == (2 + 4 + 2 + 8, 2 + 2 + 4)
    assert 0 <= end.seconds < 60
    assert websocket.test_client().get("/nothing", headers={"Upgrade": "websocket"}).status_code
    _, path, refusal = seen.events[2]
    assert (path, refusal.status, refusal.reason, refusal.route) == (
        *("/nothing", 404, "not_found"),
        None,
    )
    assert caplog.text.count("an observer of WebSockets failed") == 3


def test_a_log_that_fails_stops_nobody(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    handler, ours = logging.Handler(), logging.getLogger("flask_uwsgi_websocket")
    handler.addFilter(lambda record: 1 // 0)
    ours.addHandler(handler)
    client = extension(app).test_client()
    try:
        with caplog.at_level(logging.DEBUG, logger=ours.name), client.connect("/echo/a") as ws:
            ws.send("hi")
            assert ws.receive() == "hi"
    finally:
        ours.removeHandler(handler)


def test_handlers_that_fail(app: Flask) -> None:
    websocket = extension(app)
    seen = Seen()
    websocket._metrics.observers.append(seen)
    with websocket.test_client().connect("/broken") as ws:
        ws.send("x")
        assert ws.receive() is None
    with websocket.test_client().connect("/late") as ws:
        assert ws.receive() is None
    eventually(lambda: len(seen.events) == 4, "the ends")
    ends = [event[2] for event in seen.events if event[0] == "closed"]
    assert [(end.code, end.by, end.error) for end in ends] == [
        (1011, "server", "LookupError"),
        (1008, "server", None),
    ]
    routes = websocket._metrics.snapshot()["routes"]
    assert (routes["/broken"]["errors"], routes["/late"]["errors"]) == (1, 0)
    assert routes["/echo/<name>"]["accepted"] == 0  # there all the same


UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


def test_refusals_by_the_server(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of uWSGI there is no engine; and where there is one, it may be full."""
    websocket = extension(app)
    client = app.test_client()
    assert client.get("/echo/a", headers=UPGRADE).status_code == 500
    monkeypatch.setattr(uwsgi_server, "require_engine", lambda *_: None)
    monkeypatch.setattr(uwsgi_server, "unsupported_reason", lambda: None)
    monkeypatch.setattr(uwsgi_server, "no_room_reason", lambda _: "a reason")
    assert client.get("/echo/a", headers=UPGRADE).status_code == 503
    monkeypatch.setattr(uwsgi_server, "unsupported_reason", lambda: "another reason")
    assert client.get("/echo/a", headers=UPGRADE).status_code == 501
    refused = websocket._metrics.snapshot()["routes"]["/echo/<name>"]["refused"]
    assert refused == {"engine": 2, "full": 1}


def test_each_kind_of_refusal_is_a_reason() -> None:
    source = "".join(path.read_text() for path in (ROOT / "flask_uwsgi_websocket").rglob("*.py"))
    assert HandshakeError(400, "").kind in REASONS
    for kind in ("version", "origin", "subprotocol", "engine", "full"):
        assert f'kind="{kind}"' in source
        assert kind in REASONS
    assert issubclass(EngineError, Exception)


def test_pages_are_no_websockets(app: Flask) -> None:
    """Ordinary requests count nowhere; Werkzeug refuses a WebSocket where there is a page."""
    app.add_url_rule("/page", view_func=lambda: "page")
    client = app.test_client()
    assert client.get("/page").status_code == 200
    assert client.get("/nothing").status_code == 404
    assert extension(app)._metrics.snapshot()["refused"] == {}
    assert client.get("/page", headers=UPGRADE).status_code == 400
    assert extension(app)._metrics.snapshot()["refused"] == {"not_found": 1}


def test_hosts_and_subdomains_are_part_of_the_pattern() -> None:
    app = Flask(__name__, subdomain_matching=True)
    app.config["SERVER_NAME"] = "example.com"
    websocket = WebSocket(app)
    websocket.route("/a", endpoint="one")(lambda ws: None)
    websocket.route("/a", endpoint="two", subdomain="api")(lambda ws: None)
    assert sorted(websocket._metrics.snapshot()["routes"]) == ["/a", "api/a"]


def test_routes_are_bound_by_host_where_the_app_s_are() -> None:
    app = Flask(__name__, host_matching=True, static_folder=None)
    websocket = WebSocket(app)
    for name in ("a", "b"):
        websocket.route("/", endpoint=name, host=f"{name}.example.com")(lambda ws: ws.receive())
    assert sorted(websocket._metrics.snapshot()["routes"]) == ["a.example.com/", "b.example.com/"]
    with websocket.test_client().connect("/", base_url="http://b.example.com"):

        def open_by_host() -> list[int]:
            routes = websocket._metrics.snapshot()["routes"]
            return [routes[pattern]["open"] for pattern in sorted(routes)]

        eventually(lambda: open_by_host() == [0, 1], "it to be counted")


def test_a_route_that_cannot_be_bound_yet() -> None:
    websocket = WebSocket(Flask(__name__))
    websocket.route("/<unknown:a>")(lambda ws, a: None)
    assert websocket._metrics.snapshot()["routes"] == {}


def test_figures_are_told_in_the_middle_of_a_handshake() -> None:
    """As by a handler of signals, in which uWSGI ends a worker."""
    websocket = WebSocket(Flask(__name__))
    websocket.route("/a")(lambda ws: None)
    snapshots: list[Any] = []

    def interrupted() -> None:
        with websocket.router.url_map._binding:
            snapshots.append(websocket._metrics.snapshot())

    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(30)
    assert [list(snapshot["routes"]) for snapshot in snapshots] == [["/a"]]
