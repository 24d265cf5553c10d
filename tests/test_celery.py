"""Tasks of Celery publish to rooms, from each of its pools."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.redis_servers import RedisServer
from tests.server import PATIENCE, ROOT, eventually
from tests.test_publisher import Ear

pytestmark = pytest.mark.slow

TASKS = """
import os, sys
from celery import Celery
from flask_uwsgi_websocket import Publisher

jobs = Celery("jobs", broker=os.environ["BROKER"])
jobs.conf.broker_connection_retry_on_startup = True
jobs.conf.task_default_queue = os.environ["QUEUE"]
jobs.conf.worker_hijack_root_logger = False
rooms = Publisher(os.environ["ROOMS"], prefix="shop")
if "worker" in sys.argv:
    rooms.to("b").send("at import")  # before anything is forked

@jobs.task
def pay(number):
    rooms.to("a").send(f"{number} {os.getpid()}")
    rooms.to("a").send_nowait(f"{number} {os.getpid()}")
"""

SEND = """
from jobs import pay
for number in range(20):
    pay.delay(number)
"""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("broker")).start()
    yield server
    server.kill()


@pytest.mark.parametrize("backplane", ["local", "redis"])
@pytest.mark.parametrize("pool", ["prefork", "solo", "threads", "gevent", "eventlet"])
def test_tasks(pool: str, backplane: str, broker: RedisServer, tmp_path: Path) -> None:
    url = f"local://{tmp_path}/rooms" if backplane == "local" else f"{broker.url}/1"
    (tmp_path / "jobs.py").write_text(TASKS)
    environment = {
        **os.environ,
        "BROKER": broker.url,
        "QUEUE": f"{pool}-{backplane}",
        "ROOMS": url,
        "PYTHONPATH": f"{tmp_path}:{ROOT}",
        "PYTHONWARNINGS": "ignore",  # of eventlet, that it is old
    }
    ear = Ear(url)
    arguments = ["-A", "jobs", "worker", "-P", pool, "-c", "2", "-l", "warning"]
    arguments += ["--without-gossip", "--without-mingle", "-f", str(tmp_path / "log")]
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", *arguments], cwd=tmp_path, env=environment
    )
    try:
        subprocess.run([sys.executable, "-c", SEND], cwd=tmp_path, env=environment, check=True)
        eventually(lambda: len(ear.records) >= 41 or worker.poll() is not None, "41 messages")
    finally:
        worker.send_signal(signal.SIGTERM)
        try:
            worker.wait(PATIENCE)
        finally:
            worker.kill()
        ear.close()
    log = (tmp_path / "log").read_text() if (tmp_path / "log").exists() else ""
    assert "Traceback" not in log, log
    heard = [message for message in ear.heard if message != "at import"]
    assert sorted(int(message.split()[0]) for message in heard) == sorted([*range(20)] * 2)
    processes = {message.split()[1] for message in heard}
    assert (str(worker.pid) in processes) == (pool != "prefork")
