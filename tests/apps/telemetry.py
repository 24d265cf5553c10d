"""An app whose spans and lines of the log go into files, beside those of its server."""

import json
import logging
import threading

from flask import abort, request
from opentelemetry import baggage, metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from tests.apps.kit import make_app, make_extension, os_thread, record, sleep


class Lines:
    """A file of JSON, whose lines come whole whichever thread or worker writes them."""

    def __init__(self, path):
        self.path = path
        self._lock = threading.Lock()

    def write(self, **line):
        with self._lock, open(self.path, "a") as file:
            file.write(f"{json.dumps(line)}\n")


class FileExporter(SpanExporter):
    def __init__(self, lines):
        self._lines = lines

    def export(self, spans):
        for span in spans:
            self._lines.write(**json.loads(span.to_json(indent=None)))
        return SpanExportResult.SUCCESS


class FileHandler(logging.Handler):
    def __init__(self, lines):
        super().__init__()
        self._lines = lines

    def emit(self, record):
        fields = {name: value for name, value in vars(record).items() if "websocket_" in name}
        trace_id = trace.get_current_span().get_span_context().trace_id
        self._lines.write(level=record.levelname, trace=f"0x{trace_id:032x}", **fields)


logger = logging.getLogger("flask_uwsgi_websocket.connection")
logger.addHandler(FileHandler(Lines("lines.jsonl")))
logger.setLevel(logging.DEBUG)
logger.propagate = False

app = make_app(__name__)
app.config.setdefault("UWSGI_WEBSOCKET_PING_INTERVAL", 0.5)
reader = InMemoryMetricReader()
if app.config.get("TEST_SDK", True):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(FileExporter(Lines("spans.jsonl"))))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider([reader]))
tracer = trace.get_tracer("the app")

if app.config.get("TEST_INSTRUMENTED"):
    from opentelemetry.instrumentation.flask import FlaskInstrumentor

    FlaskInstrumentor().instrument_app(app, excluded_urls=app.config.get("TEST_EXCLUDED"))

websocket = make_extension(app)


@app.before_request
def deny():
    if "deny" in request.args:
        abort(int(request.args["deny"]))


@app.get("/current")
def current():
    """Whether a span is current in a request that has none."""
    return str(trace.get_current_span().get_span_context().is_valid)


@app.get("/metrics")
def show_metrics():
    found = reader.get_metrics_data()
    return found.to_json() if found else "{}"


@websocket.route("/compressed/<name>", endpoint="compressed", compression=True)
@websocket.route("/echo/<name>")
async def echo(ws, name):
    while (message := await ws.receive()) is not None:
        with tracer.start_as_current_span("work") as span:
            await sleep(0.001)  # others run meanwhile
            span.set_attributes({"name": name, "fruit": str(baggage.get_baggage("fruit"))})
        await ws.send(message)


@websocket.route("/resume", resume=True)
@websocket.route("/iterate")
async def iterate(ws):
    async for message in ws:
        with tracer.start_as_current_span("work"):
            await ws.send(message)


@websocket.route("/fails")
async def fails(ws):
    await ws.receive()
    raise LookupError("there is none")


@websocket.route("/closes")
async def closes(ws):
    await ws.close(int(request.args["code"]), request.args.get("reason", ""))


@websocket.route("/lazy", lazy=True)
async def lazy(ws):
    with tracer.start_as_current_span("before"):
        await sleep(0)
    if "refuse" in request.args:
        abort(int(request.args["refuse"]))
    await ws.send("accepted")
    await ws.receive()


@websocket.route("/kind")
async def kind(ws):
    """Return whether the client is of the class that it would be without spans."""
    await ws.send(str(type(ws) is websocket.middleware.client))


@websocket.route("/room/<name>")
async def room(ws, name):
    await ws.join(name)
    await websocket.to(name).send("hello")
    await ws.receive()


@websocket.route("/elsewhere")
async def elsewhere(ws):
    """Send from another thread, where no span is current."""
    token = request.args["token"]

    def send():
        ws.send_nb("from a thread")
        record(token, current=trace.get_current_span().get_span_context().is_valid)

    os_thread(send)
    await ws.receive()
