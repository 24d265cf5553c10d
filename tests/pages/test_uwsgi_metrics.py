"""The options of docs/uwsgi_metrics.rst, as they stand there."""

from __future__ import annotations

import ast
import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from flask_uwsgi_websocket.launch import defaults
from flask_uwsgi_websocket.metrics.totals import TOTALS
from tests.pages import PAGES, Page
from tests.pages.serving import serving
from tests.pages.test_logging import APP
from tests.server import PATIENCE, eventually, free_port, uwsgi_binary

PAGE = Page("uwsgi_metrics")


def metrics_of(port: int) -> dict[str, Any]:
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as stats:
        document = b"".join(iter(lambda: stats.recv(65536), b""))
    found: dict[str, Any] = json.loads(document)["metrics"]
    return found


@pytest.mark.slow
def test_the_file_of_options(tmp_path: Path) -> None:
    port, stats = free_port(), free_port()
    ini = PAGE.code("endfor").replace("8080", str(port)).replace("9191", str(stats))
    if sys.prefix != sys.base_prefix:
        ini += f"virtualenv = {sys.prefix}\n"
    (tmp_path / "chat.py").write_text(APP)
    (tmp_path / "app.ini").write_text(ini)
    with serving([uwsgi_binary(), "--ini", "app.ini"], port, tmp_path) as address:
        for number in range(3):
            with connect(f"ws://{address}/echo", proxy=None) as client:
                client.send(str(number))
                assert client.recv(PATIENCE) == str(number)

        def all_are_counted() -> bool:
            metrics = metrics_of(stats)
            names = ("accepted", "closed", "messages_sent")
            return all(metrics[f"flask_websocket.{name}"]["value"] == 3 for name in names)

        eventually(all_are_counted, "three of each")
        assert not any(".core." in name for name in metrics_of(stats))
        assert '"value":0' in read_by_command(stats)


def read_by_command(port: int) -> str:
    command = PAGE.code("--connect-and-read").removeprefix("$ ").replace("9191", str(port))
    command = command.replace("uwsgi", uwsgi_binary(), 1)
    return subprocess.check_output(command, shell=True, text=True, timeout=PATIENCE)


def test_the_options_of_run() -> None:
    [run] = [
        node for node in ast.walk(ast.parse(PAGE.code("app.run("))) if isinstance(node, ast.Call)
    ]
    given = {each.arg or "": ast.literal_eval(each.value) for each in run.keywords}
    declared = defaults.complete(given)["metric"]
    ini = PAGE.code("endfor")
    [names] = re.findall(r"^for = (.*)$", ini, re.MULTILINE)
    for line in re.findall(r"^metric = (.*)$", ini, re.MULTILINE):
        assert {line.replace("%(_)", name) for name in names.split()} <= set(declared)


def test_the_table_has_all() -> None:
    table = (
        PAGES["uwsgi_metrics"]
        .read_text()
        .partition("The names\n")[2]
        .partition("Where they show\n")[0]
    )
    rows = re.findall(r"^(``.*?)(?:  |$)", table, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"``(\w+)``", row)} == set(TOTALS)
