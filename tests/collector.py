"""What OpenTelemetry's exporters send to: a receiver of OTLP over HTTP."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector(ThreadingHTTPServer):
    """Keeps what it is sent, by the ``service.instance.id`` of who has sent it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.spans: dict[str, list[Any]] = {}
        self.metrics: dict[str, dict[str, Any]] = {}
        #: How often it was sent something.
        self.asked = 0
        #: Cleared to let nobody have an answer.
        self.answers = threading.Event()
        self.answers.set()

    @property
    def environment(self) -> dict[str, str]:
        """What has exporters send here."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.server_port}"}

    def take(self, path: str, body: bytes) -> None:
        if path == "/v1/traces":
            for each in ExportTraceServiceRequest.FromString(body).resource_spans:
                spans = self.spans.setdefault(_instance_of(each.resource), [])
                spans += [span for scope in each.scope_spans for span in scope.spans]
        elif path == "/v1/metrics":
            for each in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                metrics = self.metrics.setdefault(_instance_of(each.resource), {})
                metrics.update((m.name, m) for scope in each.scope_metrics for m in scope.metrics)

    def values(self, name: str) -> dict[str, int]:
        """The sum of a counter's values, by who has sent them; or how many a histogram has."""
        return {
            instance: sum(
                point.as_int if metric.WhichOneof("data") == "sum" else point.count
                for point in getattr(metric, metric.WhichOneof("data")).data_points
            )
            for instance, metrics in list(self.metrics.items())
            if (metric := metrics.get(f"websocket.server.{name}"))
        }


class _Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked += 1
        self.server.answers.wait()
        if self.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        self.server.take(self.path, body)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


def _instance_of(resource: Any) -> str:
    attributes = {each.key: each.value.string_value for each in resource.attributes}
    return attributes.get("service.instance.id", "")


@contextmanager
def collecting() -> Iterator[Collector]:
    with Collector() as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        try:
            yield collector
        finally:
            collector.answers.set()
            collector.shutdown()
