"""A real Prometheus that scrapes what a test has it scrape, asked by its HTTP API."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.server import PATIENCE, eventually, free_port

PROMTOOL = "promtool"

CONFIG = """\
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: flask-websocket
    static_configs: [{{targets: {targets}}}]
"""


class Prometheus:
    """A Prometheus with its data in a folder, which asks its targets each second.

    :param targets: the addresses of servers whose metrics are at /metrics.
    :param rules: a file of alert rules.
    """

    def __init__(self, folder: Path, targets: Sequence[str], rules: Path) -> None:
        self._folder = folder
        self._log = folder / "prometheus.log"
        config = CONFIG.format(rules=rules, targets=json.dumps(targets))
        (folder / "prometheus.yml").write_text(config)

    def __enter__(self) -> Prometheus:
        self._port = free_port()
        command = [
            "prometheus",
            f"--config.file={self._folder}/prometheus.yml",
            f"--storage.tsdb.path={self._folder}/data",
            f"--web.listen-address=127.0.0.1:{self._port}",
            "--log.level=warn",
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            eventually(self._is_ready, "Prometheus to be ready", interval=0.1)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(PATIENCE)

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        with contextlib.suppress(OSError, AssertionError):  # 503 while it reads its storage
            return bool(self._get("/-/ready"))
        return False

    def _get(self, path: str, **parameters: str) -> bytes:
        query = urllib.parse.urlencode(parameters)
        url = f"http://127.0.0.1:{self._port}{path}?{query}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(url, timeout=PATIENCE) as answer:
                body: bytes = answer.read()
                return body
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def ask(self, path: str, **parameters: str) -> Any:
        """What a question of its API is answered with."""
        answer = json.loads(self._get(f"/api/v1/{path}", **parameters))
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """The series that an expression gives now, by their labels."""
        result = self.ask("query", query=expression)["result"]
        return [(series["metric"], float(series["value"][1])) for series in result]

    def number(self, expression: str) -> float | None:
        """The one value that an expression gives now."""
        found = self.query(expression)
        return found[0][1] if found else None
