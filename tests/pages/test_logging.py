"""The code of docs/logging.rst, as it stands there, in the log of the uWSGI of the page."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import flask
import pytest
from websockets.sync.client import connect

from tests.pages import Page
from tests.pages.serving import serving
from tests.server import PATIENCE, eventually, free_port, uwsgi_binary

PAGE = Page("logging")

APP = """
from flask import Flask
from flask_uwsgi_websocket import GeventWebSocket

app = Flask(__name__)
websocket = GeventWebSocket(app)

@websocket.route('/echo')
def echo(ws):
    for message in ws:
        ws.send(message)
"""


def test_the_level_of_an_access_log() -> None:
    app = flask.Flask("shop")
    exec(PAGE.code("['UWSGI_WEBSOCKET_LOG_CLOSED'] = 'INFO'"), {"app": app})
    assert app.config["UWSGI_WEBSOCKET_LOG_CLOSED"] == "INFO"


def lines_of(log: Path) -> list[dict[str, Any]]:
    """The lines that are whole, and JSON; uWSGI's own are not."""
    found = []
    for line in log.read_text().splitlines(keepends=True) if log.exists() else ():
        if line.startswith("{") and line.endswith("\n"):
            found.append(json.loads(line))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("log_master", [False, True], ids=["straight", "log-master"])
@pytest.mark.parametrize("library", [False, True], ids=["standard library", "python-json-logger"])
def test_json_in_the_log_of_uwsgi(tmp_path: Path, log_master: bool, library: bool) -> None:
    code = PAGE.code("class JSONFormatter")
    if library:
        code = f"from logging.config import dictConfig\n{PAGE.code('pythonjsonlogger')}"
    level = PAGE.code("['UWSGI_WEBSOCKET_LOG_CLOSED'] = 'INFO'")
    (tmp_path / "chat.py").write_text(f"{code}\n{APP}\n{level}")
    log, port = tmp_path / "chat.log", free_port()
    ini = PAGE.code("logto = ").replace("/var/log/chat.log", str(log)).replace("8080", str(port))
    if log_master:
        ini = ini.replace("logto = ", "log-master = true\nlogger = file:")
    if sys.prefix != sys.base_prefix:
        ini += f"virtualenv = {sys.prefix}\n"
    (tmp_path / "app.ini").write_text(ini)
    with serving([uwsgi_binary(), "--ini", "app.ini"], port, tmp_path) as address:
        for number in range(4):
            with connect(f"ws://{address}/echo?secret=1", proxy=None) as client:
                client.send(str(number))
                assert client.recv(PATIENCE) == str(number)
        eventually(lambda: len(lines_of(log)) == 4, "four lines", PATIENCE)
    for line in lines_of(log):
        assert line["websocket_event"] == "closed"
        assert (line["websocket_code"], line["websocket_path"]) == (1000, "/echo")
        assert line["message"].startswith("WebSocket /echo of 127.0.0.1 closed with 1000")
        assert line["levelname" if library else "level"] == "INFO"
        assert line["asctime" if library else "time"]
    assert "secret" not in log.read_text()


def test_the_formatter_keeps_tracebacks() -> None:
    found = PAGE.code("class JSONFormatter").partition("dictConfig({")[0]
    names: dict[str, Any] = {}
    exec(found, names)
    try:
        raise LookupError("lost")
    except LookupError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "it failed", (), sys.exc_info())
    line = json.loads(names["JSONFormatter"]().format(record))
    assert (line["message"], line["level"]) == ("it failed", "ERROR")
    assert "LookupError: lost" in line["exception"]
