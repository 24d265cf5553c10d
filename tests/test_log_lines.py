"""The lines of the log for connections that open, close and are refused."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, abort, current_app, request

from flask_uwsgi_websocket import WebSocket
from flask_uwsgi_websocket.metrics.observers import Observer, Refusal
from flask_uwsgi_websocket.session import lazy
from flask_uwsgi_websocket.testing import HandshakeRejected
from tests.rawclient import CLOSE, frame
from tests.server import PATIENCE, Server, eventually

LOGGER = "flask_uwsgi_websocket.connection"


def make_app(**config: Any) -> tuple[Flask, WebSocket]:
    app = Flask(__name__)
    app.config.update({f"UWSGI_WEBSOCKET_{name}": value for name, value in config.items()})
    websocket = WebSocket(app)

    @websocket.route("/echo/<name>")
    def echo(ws: Any, name: str) -> None:
        for message in ws:
            ws.send(message)

    @websocket.route("/fails")
    def fails(ws: Any) -> None:
        raise LookupError("secret")

    @websocket.route("/lazy", lazy=True)
    def lazy(ws: Any) -> None:
        abort(403)

    @websocket.route("/wrong-header")
    def wrong_header(ws: Any) -> None: ...

    return app, websocket


class Lines:
    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def of(self, event: str) -> list[logging.LogRecord]:
        return [record for record in self.all() if vars(record)["websocket_event"] == event]

    def all(self) -> list[logging.LogRecord]:
        return [record for record in self._caplog.records if record.name == LOGGER]

    def one(self, event: str) -> logging.LogRecord:
        (record,) = eventually(lambda: self.of(event), f"a line for {event}")
        return record


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Lines]:
    with caplog.at_level(logging.DEBUG, logger="flask_uwsgi_websocket"):
        yield Lines(caplog)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    return {
        name.removeprefix("websocket_"): value
        for name, value in vars(record).items()
        if name.startswith("websocket_")
    }


def test_an_opened_and_a_closed_connection_have_a_line_each(lines: Lines) -> None:
    _, websocket = make_app()
    websocket.identify(lambda: "ann")
    with websocket.test_client().connect("/echo/café", query_string={"token": "s3cret"}) as conn:
        conn.send("hello")
        assert conn.receive() == "hello"
        opened = fields_of(lines.one("opened"))
        conn.close(1000, "bye")
    record = lines.one("closed")
    closed = fields_of(record)
    assert opened == {
        "event": "opened",
        "path": "/echo/café",
        "client": "127.0.0.1",
        "route": "/echo/<name>",
        "id": closed["id"],
        "user": "ann",
    }
    assert {**opened, **closed} == {
        **opened,
        "event": "closed",
        "code": 1000,
        "reason": "bye",
        "by": "client",
        "seconds": closed["seconds"],
        "messages_received": 1,
        "messages_sent": 1,
        "bytes_received": closed["bytes_received"],
        "bytes_sent": closed["bytes_sent"],
        "error": None,
    }
    assert record.levelno == logging.DEBUG
    assert record.getMessage().startswith(
        "WebSocket /echo/café of 127.0.0.1 closed with 1000 (bye) by the client after 0."
    )
    assert "1 messages (" in record.getMessage()
    assert not any("s3cret" in repr(vars(line)) for line in lines.all())


def test_no_text_of_a_client_begins_a_line(lines: Lines) -> None:
    _, websocket = make_app()
    evil = "bye\n2026-01-01 ERROR forged \x1b[2J‮ %(path)s %s"
    with websocket.test_client().connect("/echo/a%0aforged%1b[31m%25s") as conn:
        conn.close(4001, evil)
    record = lines.one("closed")
    for text in (record.getMessage(), repr(fields_of(record))):
        assert text.isprintable()
    assert fields_of(record)["path"] == "/echo/a\\nforged\\x1b[31m%s"
    assert "bye\\n2026-01-01 ERROR forged \\x1b[2J\\u202e %(path)s %s" in record.getMessage()


LONG = 20_000


@pytest.mark.parametrize(
    ("path", "headers"),
    [("/echo/" + "%01" * LONG, {}), ("/" + "n" * LONG, {}), ("/echo/a", {"Host": "h" * LONG})]
    + [("/echo/a", {"Origin": "https://" + start * LONG}) for start in ("o", "\x1b[31m")],
    ids=["path", "no route", "host", "origin", "no origin"],
)
def test_no_line_is_long(
    lines: Lines, caplog: pytest.LogCaptureFixture, path: str, headers: dict[str, str]
) -> None:
    _, websocket = make_app()
    with suppress(HandshakeRejected):
        websocket.test_client().connect(path, headers=headers).close()
    eventually(lambda: caplog.records, "a line")
    for record in caplog.records:
        assert len(record.getMessage()) < 1500
        assert record.getMessage().isprintable()
        assert all(len(str(value)) <= 300 for value in fields_of(record).values())


def test_a_failed_handler_is_an_abnormal_end(lines: Lines) -> None:
    _, websocket = make_app()
    with websocket.test_client().connect("/fails") as conn:
        assert conn.receive() is None
    record = lines.one("closed")
    assert record.levelno == logging.INFO
    fields = fields_of(record)
    assert (fields["code"], fields["by"], fields["error"]) == (1011, "server", "LookupError")
    assert "secret" not in record.getMessage()


@pytest.mark.parametrize(
    ("level", "expected"),
    [("warning", logging.WARNING), (logging.ERROR, logging.ERROR), (None, None), (0, None)],
)
def test_levels_are_configured(lines: Lines, level: Any, expected: int | None) -> None:
    _, websocket = make_app(LOG_OPENED=level, LOG_CLOSED=level, LOG_REFUSED=level)
    with websocket.test_client().connect("/echo/a"):
        pass
    with pytest.raises(HandshakeRejected):
        websocket.test_client().connect("/lazy")
    if expected is None:
        assert lines.all() == []
    else:
        eventually(lambda: len(lines.all()) == 3, "three lines")
        assert {record.levelno for record in lines.all()} == {expected}


def refused(websocket: WebSocket, path: str, **kwargs: Any) -> int:
    with pytest.raises(HandshakeRejected) as caught:
        websocket.test_client().connect(path, **kwargs)
    return caught.value.status


def test_a_refused_handshake_has_one_line(lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    _, websocket = make_app()
    assert refused(websocket, "/lazy", query_string={"token": "s3cret"}) == 403
    (record,) = caplog.records
    assert fields_of(record) == {
        "event": "refused",
        "path": "/lazy",
        "client": "127.0.0.1",
        "route": "/lazy",
        "status": 403,
        "refusal": "app",
        "detail": fields_of(record)["detail"],
    }
    assert record.getMessage().startswith("WebSocket /lazy of 127.0.0.1 refused with 403 (app): ")
    assert "s3cret" not in repr(vars(record))
    assert record.levelno == logging.INFO


def test_what_the_log_explains_already_has_no_second_line(
    lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    app, websocket = make_app()

    @app.after_request
    def spoil(response: Any) -> Any:
        if request.path == "/wrong-header":
            response.headers["X-Wrong"] = "☃"
        return response

    assert refused(websocket, "/echo/a", origin="https://evil.example") == 403
    assert ["to allow it" in line.getMessage() for line in caplog.records] == [True]
    caplog.clear()
    assert refused(websocket, "/wrong-header") == 500
    assert [line.getMessage() for line in caplog.records] == ["WebSocket /wrong-header refused"]


def test_a_handshake_that_fails_beside_its_handler(
    lines: Lines, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which waits for too long: then others answer, who are not in its context."""
    monkeypatch.setattr(lazy, "OPEN_TIME", 0.0)
    app, websocket = make_app()
    answered, seen = threading.Event(), []

    class Last(Observer):
        def refused(self, environ: dict[str, Any], refusal: Refusal) -> None:
            seen.append((refusal.reason, current_app.name))

    websocket._metrics.observers.append(Last())

    @websocket.route("/waits", lazy=True)
    def waits(ws: Any) -> None:
        assert answered.wait(PATIENCE)

    app.after_request(lambda response: abort(500) if response.status_code == 101 else response)
    assert refused(websocket, "/waits") == 500
    eventually(lambda: seen == [("app", app.name)], "its refusal")
    answered.set()
    assert "an observer of WebSockets failed" not in caplog.text


def test_no_route(lines: Lines) -> None:
    _, websocket = make_app()
    assert refused(websocket, "/nowhere") == 404
    fields = fields_of(lines.one("refused"))
    assert (fields["status"], fields["refusal"], fields["route"]) == (404, "not_found", None)


def test_a_log_that_nobody_has_set_up_is_not_filled(capfd: pytest.CaptureFixture[str]) -> None:
    _, websocket = make_app()
    with websocket.test_client().connect("/echo/a"):
        pass
    refused(websocket, "/lazy")
    assert capfd.readouterr().err == ""


# On each engine

CONFIG = {f"UWSGI_WEBSOCKET_LOG_{event}": "INFO" for event in ("OPENED", "CLOSED", "REFUSED")}


def lines_of(server: Server) -> list[dict[str, Any]]:
    path = Path(server.directory, "lines.jsonl")
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def test_lines_of_a_real_server(shared_server: Any, engine: str, token: str) -> None:
    server: Server = shared_server(engine, app="telemetry", config=CONFIG)
    with server.raw(f"/echo/{token}") as client:
        client.send(frame(payload="hello"))
        assert client.read().payload == b"hello"
        client.send(frame(CLOSE, b"\x03\xe8by\x1be"))
        client.read()
    assert server.refused(f"/echo/{token}?deny=401").status == 401

    def ours() -> list[dict[str, Any]]:
        return [line for line in lines_of(server) if token in line["websocket_path"]]

    eventually(lambda: len(ours()) == 3, "three lines")
    by_event = {line["websocket_event"]: line for line in ours()}
    assert by_event["opened"]["websocket_client"] == "127.0.0.1"
    closed = by_event["closed"]
    assert closed["websocket_reason"] == "by\\x1be"
    assert (closed["websocket_code"], closed["websocket_by"]) == (1000, "client")
    assert (closed["websocket_messages_received"], closed["websocket_messages_sent"]) == (1, 1)
    assert closed["websocket_bytes_received"] > closed["websocket_bytes_sent"] > 5
    assert by_event["refused"]["websocket_status"] == 401
    assert by_event["refused"]["level"] == "INFO"
