"""An app that sends its spans and metrics to a collector, set up as docs/opentelemetry.rst says."""

import os

from uwsgidecorators import postfork

from tests.apps.kit import make_app, make_extension

app = make_app(__name__)
websocket = make_extension(app)


def set_up():
    from opentelemetry import metrics, trace
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": "chat", "service.instance.id": str(os.getpid())})
    traces = TracerProvider(resource=resource, shutdown_on_exit=False)
    traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(traces)
    reader = PeriodicExportingMetricReader(OTLPMetricExporter())
    metrics.set_meter_provider(MeterProvider([reader], resource=resource, shutdown_on_exit=False))


if app.config.get("TEST_EARLY"):
    set_up()
else:
    postfork(set_up)


@websocket.route("/echo")
async def echo(ws):
    """Tell who serves, then send back what comes."""
    await ws.send(str(os.getpid()))
    async for message in ws:
        await ws.send(message)
