"""The app of docs/opentelemetry.rst on the uWSGI of the page, and a collector that it sends to."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import flask
import pytest
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.pages import Page
from tests.pages.serving import serving
from tests.server import PATIENCE, eventually, free_port, uwsgi_binary

PAGE = Page("opentelemetry")


class Collector(ThreadingHTTPServer):
    """What OTLP over HTTP is sent to: by the instance that has sent it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.spans: dict[str, list[Any]] = {}
        self.metrics: dict[str, dict[str, Any]] = {}

    def take(self, path: str, body: bytes) -> None:
        if path == "/v1/traces":
            for each in ExportTraceServiceRequest.FromString(body).resource_spans:
                spans = self.spans.setdefault(instance_of(each.resource), [])
                spans += [span for scope in each.scope_spans for span in scope.spans]
        else:
            for each in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                metrics = self.metrics.setdefault(instance_of(each.resource), {})
                metrics.update((m.name, m) for scope in each.scope_metrics for m in scope.metrics)


class Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        self.server.take(self.path, body)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


def instance_of(resource: Any) -> str:
    attributes = {each.key: each.value.string_value for each in resource.attributes}
    assert attributes["service.name"] == "chat"
    return attributes["service.instance.id"]


@contextmanager
def collecting() -> Iterator[Collector]:
    with Collector() as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        yield collector
        collector.shutdown()


def uwsgi(folder: Path, port: int, code: str) -> list[str | Path]:
    """The command that serves an app as the page has it."""
    (folder / "chat.py").write_text(code)
    ini = PAGE.code("enable-threads").replace("8080", str(port))
    if sys.prefix != sys.base_prefix:
        ini += f"virtualenv = {sys.prefix}\n"
    (folder / "app.ini").write_text(ini)
    return [uwsgi_binary(), "--ini", "app.ini"]


@pytest.mark.slow
def test_each_worker_sends_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    command = uwsgi(tmp_path, port, PAGE.code("@postfork"))
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "500")  # ms
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "500")
    with collecting() as collector:
        endpoint = f"http://127.0.0.1:{collector.server_port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        with serving(command, port, tmp_path) as address:
            see_both_send(collector, address)


def see_both_send(collector: Collector, address: str) -> None:
    eventually(lambda: len(collector.metrics) == 2, "workers without connections to send")

    def both_have_sent() -> bool:
        with connect(f"ws://{address}/chat/ann", proxy=None) as client:
            client.send("hi")
            assert client.recv(PATIENCE) == "hi"
        return len(collector.spans) == 2 == len(collector.metrics)

    eventually(both_have_sent, "both workers to send", interval=0.1)
    both = {"answer", "websocket /chat/<name>"}

    def have_both() -> bool:
        each = list(collector.spans.values())
        return all({span.name for span in list(spans)} == both for spans in each)

    eventually(have_both, "the spans of handlers and connections")
    assert set(collector.spans) == set(collector.metrics)

    def accepted() -> list[int]:
        return [
            point.as_int
            for metrics in collector.metrics.values()
            if "websocket.server.accepted" in metrics
            for point in metrics["websocket.server.accepted"].sum.data_points
        ]

    eventually(lambda: len(accepted()) == 2 and min(accepted()) >= 1, "the metrics")


@pytest.mark.slow
def test_what_is_open_when_uwsgi_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    command = [*uwsgi(tmp_path, port, PAGE.code("@postfork")), "--pidfile", "pid"]
    with collecting() as collector:
        endpoint = f"http://127.0.0.1:{collector.server_port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")  # it has no other reason to send
        with (
            serving(command, port, tmp_path) as address,
            connect(f"ws://{address}/chat/ann", proxy=None) as client,
        ):
            client.send("hi")
            assert client.recv(PATIENCE) == "hi"
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGINT)
            eventually(lambda: collector.spans, "the spans")
            eventually(lambda: client.close_code == 1001 or _received(client), "the end")
    (spans,) = collector.spans.values()
    assert {span.name for span in spans} == {"answer", "websocket /chat/<name>"}


def _received(client: ClientConnection) -> None:
    with suppress(ConnectionClosed):
        client.recv(PATIENCE)


@pytest.mark.slow
def test_what_happens_before_the_fork(tmp_path: Path) -> None:
    code = PAGE.code("@postfork")
    start, end = code.index("app = Flask"), code.index("@websocket.route")
    early = code[code.index("    resource = ") : end]
    early = "\n".join(line.removeprefix("    ") for line in early.splitlines())
    rest = code[start:].replace("@postfork\n", "").replace("set_up_opentelemetry", "nobody_calls")
    code = f"{code[:start]}{early}\n\n{rest}"
    code = code.replace("from uwsgidecorators import postfork\n", "")
    command = uwsgi(tmp_path, free_port(), code)
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert "each of the threads 'OtelBatchSpanRecordProcessor', " in done.stdout + done.stderr
    assert " was started before GeventWebSocket" in done.stdout + done.stderr


def test_configuration() -> None:
    app = flask.Flask("shop")
    exec(PAGE.code("OTEL_MESSAGES'] = "), {"app": app})
    exec(PAGE.code("_OTEL'] = False"), {"app": app})
    assert app.config["UWSGI_WEBSOCKET_OTEL_MESSAGES"] == 0.01
    assert app.config["UWSGI_WEBSOCKET_OTEL"] is False


def test_flasks_instrumentation() -> None:
    app = flask.Flask("shop")
    exec(PAGE.code("excluded_urls="), {"app": app})
    FlaskInstrumentor().uninstrument_app(app)
