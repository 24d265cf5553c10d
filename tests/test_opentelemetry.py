"""Spans of real connections on each engine, as OpenTelemetry's own SDK has them in the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from flask_uwsgi_websocket.monitoring.otel.attributes import request_attributes
from flask_uwsgi_websocket.monitoring.otel.instruments import HISTOGRAMS, INSTRUMENTS
from tests.server import PATIENCE, ROOT, Server, eventually

Span = dict[str, Any]

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
HEADERS = {
    **TRACEPARENT,
    "baggage": "fruit=kiwi",
    "User-Agent": "tests",
    "Cookie": "session=s3cret",
}


@pytest.fixture
def server(shared_server: Any, engine: str) -> Server:
    return shared_server(engine, app="telemetry")  # type: ignore[no-any-return]


def spans_of(server: Server) -> list[Span]:
    path = Path(server.directory, "spans.jsonl")
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def span_of(server: Server, path: str) -> Span:
    """The span of the one connection to a path, once it has ended."""

    def found() -> list[Span]:
        return [span for span in spans_of(server) if span["attributes"].get("url.path") == path]

    (span,) = eventually(found, f"the span of {path}")
    return span


def children_of(server: Server, parent: Span, name: str = "") -> list[Span]:
    parent_id = parent["context"]["span_id"]
    return [
        span for span in spans_of(server) if span["parent_id"] == parent_id and name in span["name"]
    ]


def echo(client: Any, *messages: str) -> None:
    for message in messages:
        client.send(message)
        assert client.recv() == message


def test_a_connection_has_a_span_in_the_trace_of_its_client(server: Server, token: str) -> None:
    path = f"/echo/{token}"
    with server.connect(f"{path}?token=s3cret", additional_headers=HEADERS) as client:
        echo(client, "a", "b")
        client.close(4000, "bye\x1b")
    span = span_of(server, path)
    assert span["name"] == "websocket /echo/<name>"
    assert span["kind"] == "SpanKind.SERVER"
    assert span["context"]["trace_id"] == f"0x{TRACE}"
    assert span["parent_id"] == f"0x{PARENT}"
    assert span["status"] == {"status_code": "UNSET"}
    attributes = span["attributes"]
    assert "s3cret" not in json.dumps(span)
    assert attributes.pop("websocket.received.bytes") > attributes.pop("websocket.sent.bytes") > 0
    assert attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 101,
        "http.route": "/echo/<name>",
        "client.address": "127.0.0.1",
        "network.protocol.name": "websocket",
        "network.protocol.version": "13",
        "server.address": "127.0.0.1",
        "server.port": server.port,
        "url.path": path,
        "url.scheme": "ws",
        "user_agent.original": "tests",
        "websocket.close.by": "client",
        "websocket.close.code": 4000,
        "websocket.close.reason": "bye\\x1b",
        "websocket.received.messages": 2,
        "websocket.sent.messages": 2,
    }


def test_the_span_is_current_in_the_handler(server: Server, token: str) -> None:
    """In those of two connections that run by turns, each has its own."""
    paths = [f"/echo/{token}-{name}" for name in "ab"]
    first, second = (server.connect(path, additional_headers=HEADERS) for path in paths)
    with first, second:
        for _ in range(3):
            first.send("x")
            second.send("y")
            assert (first.recv(), second.recv()) == ("x", "y")
    for path in paths:
        work = children_of(server, span_of(server, path))
        assert [span["name"] for span in work] == ["work"] * 3
        assert {span["attributes"]["name"] for span in work} == {path.removeprefix("/echo/")}
        assert {span["attributes"]["fruit"] for span in work} == {"kiwi"}
    assert server.get("/current").body == b"False", "it has outlived its connection"


def test_a_failed_handler_is_an_error(server: Server, token: str) -> None:
    server.allow_log("Traceback")
    with server.connect("/fails", user_agent_header=token) as client:
        client.send("x")
        with pytest.raises(ConnectionClosed):
            client.recv(PATIENCE)
    span = eventually(lambda: _by_agent(server, token), "the span")
    assert span["status"]["status_code"] == "ERROR"
    assert span["attributes"]["error.type"] == "LookupError"
    assert span["attributes"]["websocket.close.code"] == 1011
    assert span["attributes"]["websocket.close.by"] == "server"
    (event,) = span["events"]
    assert event["attributes"]["exception.message"] == "there is none"
    assert "telemetry.py" in event["attributes"]["exception.stacktrace"]


def _by_agent(server: Server, agent: str) -> Span | None:
    for span in spans_of(server):
        if span["attributes"].get("user_agent.original") == agent:
            return span
    return None


@pytest.mark.parametrize("refuse", [None, 403])
def test_a_handler_that_may_refuse(server: Server, token: str, refuse: int | None) -> None:
    """Its span begins before the handshake is answered."""
    headers = {"User-Agent": token}
    if refuse is None:
        with server.connect("/lazy", user_agent_header=token) as client:
            assert client.recv() == "accepted"
    else:
        assert server.refused(f"/lazy?refuse={refuse}", headers=headers).status == refuse
    span = eventually(lambda: _by_agent(server, token), "the span")
    assert span["attributes"]["http.response.status_code"] == (refuse or 101)
    assert ("websocket.close.code" in span["attributes"]) == (refuse is None)
    assert len(children_of(server, span, "before")) == 1
    assert server.get("/current").body == b"False"


def test_what_is_refused_before_a_handler_has_no_span(server: Server, token: str) -> None:
    assert server.refused(f"/echo/{token}?deny=401").status == 401
    with server.connect(f"/echo/{token}-2") as client:
        echo(client, "a")
    span_of(server, f"/echo/{token}-2")
    paths = [str(span["attributes"].get("url.path")) for span in spans_of(server)]
    assert [path for path in paths if token in path] == [f"/echo/{token}-2"]


# Messages


@pytest.fixture
def sampling(shared_server: Any, engine: str) -> Server:
    config = {"UWSGI_WEBSOCKET_OTEL_MESSAGES": 1}
    return shared_server(engine, app="telemetry", config=config)  # type: ignore[no-any-return]


def test_messages_have_spans(sampling: Server, token: str) -> None:
    path = f"/echo/{token}"
    with sampling.connect(path) as client:
        echo(client, "ä", "bc")
    span = span_of(sampling, path)
    received = children_of(sampling, span, "receive /echo/<name>")
    sizes = [one["attributes"]["websocket.message.size"] for one in received]
    assert sizes == [2, 2]
    for one in received:
        inside = {child["name"] for child in children_of(sampling, one)}
        assert inside == {"work", "send /echo/<name>"}
        assert one["end_time"] >= one["start_time"]
    assert sampling.get("/current").body == b"False"


def test_messages_that_are_iterated_over(sampling: Server, token: str) -> None:
    with sampling.connect("/iterate", user_agent_header=token) as client:
        echo(client, "a", "b")
    span = eventually(lambda: _by_agent(sampling, token), "the span")
    received = children_of(sampling, span, "receive")
    assert len(received) == 2
    for one in received:
        (work,) = children_of(sampling, one)
        (send,) = children_of(sampling, work)
        assert (work["name"], send["name"]) == ("work", "send /iterate")


def test_messages_without_spans_cost_nothing(server: Server, sampling: Server) -> None:
    for each, expected in ((server, "True"), (sampling, "False")):
        with each.connect("/kind") as client:
            assert client.recv(PATIENCE) == expected


def test_what_another_thread_sends_is_in_the_span_of_the_connection(
    sampling: Server, token: str
) -> None:
    with sampling.connect(f"/elsewhere?token={token}", user_agent_header=token) as client:
        assert client.recv() == "from a thread"
    assert sampling.record(token) == {"current": False}
    span = eventually(lambda: _by_agent(sampling, token), "the span")
    assert len(children_of(sampling, span, "send /elsewhere")) == 1


def test_a_share_of_the_messages(shared_server: Any, token: str) -> None:
    config = {"UWSGI_WEBSOCKET_OTEL_MESSAGES": 0.5}
    server: Server = shared_server("gevent", app="telemetry", config=config)
    with server.connect(f"/echo/{token}") as client:
        for _ in range(100):
            echo(client, "a")
    received = children_of(server, span_of(server, f"/echo/{token}"), "receive")
    assert 10 < len(received) < 90


@pytest.mark.parametrize("engine", ["threads", "asyncio"])
def test_all_kinds_of_clients(shared_server: Any, engine: str, token: str) -> None:
    """Of 0.6, with envelopes, without the context of the request: with spans at once."""
    config = {
        "UWSGI_WEBSOCKET_OTEL_MESSAGES": 1,
        "UWSGI_WEBSOCKET_LEGACY": True,
        "UWSGI_WEBSOCKET_REQUEST_CONTEXT": False,
    }
    server: Server = shared_server(engine, app="telemetry", config=config)
    protocol: Any = ["flask-uwsgi-rooms.v1"]
    with server.connect(
        "/resume", user_agent_header=token, subprotocols=protocol, additional_headers=TRACEPARENT
    ) as client:
        assert "hello" in str(client.recv(PATIENCE))
        client.send("a")
        assert '"a"' in str(client.recv(PATIENCE))
    span = eventually(lambda: _by_agent(server, token), "the span")
    assert (span["parent_id"], span["kind"]) == (f"0x{PARENT}", "SpanKind.SERVER")
    assert span["attributes"]["websocket.subprotocol"] == protocol[0]
    (received,) = children_of(server, span, "receive /resume")
    (work,) = children_of(server, received)
    (send,) = children_of(server, work)
    assert send["attributes"]["websocket.message.type"] == "text"
    assert server.get("/current").body == b"False"


# Metrics


def all_metrics(server: Server) -> list[dict[str, Any]]:
    found = json.loads(server.get("/metrics").body)
    return [
        metric
        for resource in found.get("resource_metrics", ())
        for scope in resource["scope_metrics"]
        for metric in scope["metrics"]
    ]


def value_of(server: Server, name: str, **attributes: Any) -> float:
    """The sum of the values of a metric that have these attributes."""
    wanted = {key.replace("__", "."): value for key, value in attributes.items()}
    return sum(
        point.get("value", point.get("count"))
        for metric in all_metrics(server)
        if metric["name"] == f"websocket.server.{name}"
        for point in metric["data"]["data_points"]
        if wanted.items() <= point["attributes"].items()
    )


def test_metrics(server: Server, token: str) -> None:
    route = {"http__route": "/echo/<name>"}
    expected = {
        "accepted": 2,
        "closed": 2,
        "connection.duration": 2,
        "errors": 0,
        "messages": 2,
        "refused": 1,
    }
    eventually(lambda: value_of(server, "active_connections") == 0, "none to be open")
    eventually(
        lambda: len({value_of(server, each) for each in ("closed", "connection.duration")}) == 1,
        "the ends of earlier connections",
    )
    before = {name: value_of(server, name, **route) for name in expected}
    with server.connect(f"/echo/{token}") as client, server.connect(f"/echo/{token}"):
        echo(client, "a")
        eventually(lambda: value_of(server, "active_connections", **route) == 2, "two")
    assert server.refused(f"/echo/{token}?deny=401").status == 401

    def grown() -> dict[str, float]:
        return {name: value_of(server, name, **route) - before[name] for name in expected}

    eventually(lambda: grown() == expected, f"{expected}, not {grown()}")
    eventually(lambda: value_of(server, "active_connections") == 0, "none to be open any more")
    assert value_of(server, "refused", **route, error__type="app") >= 1
    for way in ("receive", "transmit"):
        assert value_of(server, "messages", **route, network__io__direction=way) >= 1
        assert value_of(server, "io", **route, network__io__direction=way) > 2
    units = {metric["name"]: metric["unit"] for metric in all_metrics(server)}
    assert units["websocket.server.io"] == "By"
    # What has been counted nowhere yet has no values, and is not there.
    names = {f"websocket.server.{each.name}" for each in INSTRUMENTS}
    names |= {f"websocket.server.{name}" for name, _, _ in HISTOGRAMS.values()}
    assert names >= units.keys()
    assert {f"websocket.server.{name}" for name in ("accepted", "limited")} <= units.keys()


@pytest.mark.parametrize(
    ("host", "port"),
    [("h:80", 80), ("[::1]:443", 443), ("h", None), ("[::1]", None), ("h:-1", None), ("h:", None)]
    + [(f"h:{'9' * digits}", None) for digits in (6, 20, 5000)],
)
def test_a_port_is_one_that_can_be(host: str, port: int | None) -> None:
    attributes = request_attributes({"HTTP_HOST": host, "PATH_INFO": "/"}, "/")
    assert attributes.get("server.port") == port


def test_no_metric_is_made_twice() -> None:
    names = all_names()
    assert len(names) == len(set(names))
    # A name of one that begins another's would be a folder, too, where a collector has folders.
    assert not [name for name in names for other in names if other.startswith(f"{name}.")]


def all_names() -> list[str]:
    return [each.name for each in INSTRUMENTS] + [name for name, _, _ in HISTOGRAMS.values()]


def test_the_page_has_every_metric() -> None:
    text = (ROOT / "docs/opentelemetry.rst").read_text()
    for name in all_names():
        assert f"\n``{name}`` " in text


def test_round_trips_of_pings(server: Server, token: str) -> None:
    route = {"http__route": "/echo/<name>"}
    before = value_of(server, "ping.duration", **route)
    with server.connect(f"/echo/{token}") as client:
        echo(client, "a")
        eventually(lambda: value_of(server, "ping.duration", **route) > before, "a pong")


def test_compression(server: Server, token: str) -> None:
    route = {"http__route": "/compressed/<name>"}
    names = ("uncompressed", "compressed")

    def sizes(way: str) -> tuple[float, ...]:
        where = {**route, "network__io__direction": way}
        return tuple(value_of(server, f"compression.{name}", **where) for name in names)

    ways = ("receive", "transmit")
    before = {way: sizes(way) for way in ways}
    with server.connect(f"/compressed/{token}", compression="deflate") as client:
        echo(client, "again and again " * 100)
    for way in ways:
        eventually(lambda way=way: sizes(way)[0] == before[way][0] + 1600, "what was echoed")
        assert 0 < sizes(way)[1] - before[way][1] < 200


def test_metrics_of_rooms(server: Server, token: str) -> None:
    with server.connect(f"/room/{token}") as client:
        assert client.recv(PATIENCE) == "hello"
        eventually(lambda: value_of(server, "room.members") == 1, "the member")
        assert value_of(server, "room.count") == 1
    pattern = {"websocket__room__pattern": "*"}
    for name in ("joins", "published", "delivered", "lag"):
        eventually(lambda n=name: value_of(server, f"room.{n}", **pattern) >= 1, name)
    eventually(lambda: value_of(server, "room.members") == 0, "it to be empty")


# Logs


def test_the_line_of_an_end_is_in_the_trace(server: Server, token: str) -> None:
    with server.connect(f"/echo/{token}", additional_headers=HEADERS) as client:
        echo(client, "a")
    lines = Path(server.directory, "lines.jsonl")

    def ends() -> list[str]:
        found = [json.loads(line) for line in lines.read_text().splitlines() if token in line]
        return [line["trace"] for line in found if line["websocket_event"] == "closed"]

    assert eventually(ends, "the line") == [f"0x{TRACE}"]


# Beside the instrumentation of Flask


def instrumented(shared_server: Any, engine: str, **config: Any) -> Server:
    return shared_server(engine, app="telemetry", config={"TEST_INSTRUMENTED": True, **config})


def test_beside_flasks_instrumentation_it_is_a_part_of_its_span(
    shared_server: Any, engine: str, token: str
) -> None:
    server = instrumented(shared_server, engine)
    path = f"/echo/{token}"
    with server.connect(path, additional_headers=HEADERS) as client:
        echo(client, "a")
    span = span_of(server, path)
    assert span["kind"] == "SpanKind.INTERNAL"

    def parent() -> Span | None:
        for one in spans_of(server):
            if one["context"]["span_id"] == span["parent_id"]:
                return one
        return None

    around = eventually(parent, "Flask's span")
    assert around["name"] == "GET /echo/<name>"
    assert around["parent_id"] == f"0x{PARENT}"
    assert around["end_time"] >= span["end_time"], "it lasts as long as the connection"
    assert len(children_of(server, span, "work")) == 1
    assert server.get("/current").status == 200


def test_where_flasks_instrumentation_leaves_websockets_out(shared_server: Any, token: str) -> None:
    server = instrumented(shared_server, "gevent", TEST_EXCLUDED="/echo/.*")
    path = f"/echo/{token}"
    with server.connect(path, additional_headers=HEADERS) as client:
        echo(client, "a")
    span = span_of(server, path)
    assert (span["kind"], span["parent_id"]) == ("SpanKind.SERVER", f"0x{PARENT}")


# Off


@pytest.mark.parametrize(
    "config",
    [{"UWSGI_WEBSOCKET_OTEL": False}, {"TEST_SDK": False, "UWSGI_WEBSOCKET_OTEL_MESSAGES": 1}],
    ids=["switched off", "no SDK"],
)
def test_there_is_nothing(shared_server: Any, token: str, config: dict[str, Any]) -> None:
    server: Server = shared_server("gevent", app="telemetry", config=config)
    with server.connect(f"/echo/{token}") as client:
        echo(client, "a")
    eventually(lambda: '"closed"' in Path(server.directory, "lines.jsonl").read_text(), "the end")
    assert {span["name"] for span in spans_of(server)} <= {"work"}
