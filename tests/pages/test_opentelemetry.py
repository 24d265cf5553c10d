"""The app of docs/opentelemetry.rst on the uWSGI of the page, and a collector that it sends to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import flask
import pytest
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.collector import Collector, collecting
from tests.pages import Page
from tests.pages.serving import serving
from tests.server import PATIENCE, eventually, free_port, uwsgi_binary

PAGE = Page("opentelemetry")


def uwsgi(folder: Path, port: int, code: str) -> list[str | Path]:
    """The command that serves an app as the page has it."""
    (folder / "chat.py").write_text(code)
    ini = PAGE.code("enable-threads").replace("8080", str(port))
    if sys.prefix != sys.base_prefix:
        ini += f"virtualenv = {sys.prefix}\n"
    (folder / "app.ini").write_text(ini)
    return [uwsgi_binary(), "--ini", "app.ini"]


@contextmanager
def sending(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector, to which all send that are started meanwhile."""
    with collecting() as collector:
        for name, value in collector.environment.items():
            monkeypatch.setenv(name, value)
        yield collector


@pytest.mark.slow
def test_each_worker_sends_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    command = uwsgi(tmp_path, port, PAGE.code("shutdown_on_exit"))
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "500")  # ms
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "500")
    with sending(monkeypatch) as collector, serving(command, port, tmp_path) as address:
        see_both_send(collector, address)


@pytest.mark.slow
def test_the_variables_of_opentelemetry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    code = PAGE.code("shutdown_on_exit")
    start, end = code.index("@postfork"), code.index("@websocket.route")
    code = f"{code[:start]}{PAGE.code('auto_instrumentation')}\n{code[end:]}"
    command = uwsgi(tmp_path, port, code)
    for line in PAGE.code("OTEL_SERVICE_NAME").splitlines():
        if line.startswith("$ export "):
            for variable in line.removeprefix("$ export ").split():
                monkeypatch.setenv(*variable.split("="))
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "500")  # ms
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "500")
    with sending(monkeypatch) as collector, serving(command, port, tmp_path) as address:
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
        return list(collector.values("accepted").values())

    eventually(lambda: len(accepted()) == 2 and min(accepted()) >= 1, "the metrics")


@pytest.mark.slow
def test_what_is_open_when_uwsgi_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    command = [*uwsgi(tmp_path, port, PAGE.code("shutdown_on_exit")), "--pidfile", "pid"]
    with sending(monkeypatch) as collector:
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
    code = PAGE.code("shutdown_on_exit")
    start, end = code.index("app = Flask"), code.index("@websocket.route")
    early = code[code.index("    from opentelemetry.exporter") : end]
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
