"""pyuwsgi, uWSGI as a module of Python's: a wheel, which needs no compiler."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from flask_uwsgi_websocket.launch.defaults import complete
from flask_uwsgi_websocket.launch.keywords import arguments
from tests.rawclient import close_frame
from tests.server import PATIENCE, eventually

pytestmark = [
    pytest.mark.xdist_group("pyuwsgi"),
    pytest.mark.skipif(sys.version_info >= (3, 14), reason="pyuwsgi has no wheel for it"),
]


@pytest.fixture(scope="module")
def pyuwsgi() -> dict[str, str]:
    """The environment variables with which Python finds it.

    It is not among the packages of the tests, whose uWSGI it would replace.
    """
    folder = Path(sys.prefix) / "pyuwsgi-for-tests"
    if not list(folder.glob("pyuwsgi*.so")):
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder)]
        subprocess.run([*pip, "--only-binary", ":all:", "pyuwsgi"], check=True)
    # A reload starts the interpreter that the virtual environment was made from.
    return {"PYTHONPATH": os.pathsep.join([str(folder), sysconfig.get_path("purelib")])}


def test_a_thread_that_sleeps_does_not_hold_a_reload(serve, token, pyuwsgi) -> None:
    launcher = [sys.executable, "-c", "import pyuwsgi; pyuwsgi.run()"]
    server = serve("threads", launcher=launcher, env=pyuwsgi, config={"TEST_TIMEOUT": 1})
    old = server.worker_pid
    with ExitStack() as stack:
        for number in range(3):  # not all of them in the main thread
            client = stack.enter_context(server.raw(f"/blocked/{token}-{number}"))
            assert client.message() == "blocked"
        server.signal(signal.SIGHUP)
        eventually(lambda: server.worker_pid != old, "another worker", 15)


def test_its_statsd_gets_our_figures(serve, pyuwsgi) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(PATIENCE)
        address = f"127.0.0.1:{statsd.getsockname()[1]}"
        given = {"stats_push": f"statsd:{address},chat", "stats_pusher_default_freq": 1}
        options = [
            word
            for name, value in complete(given).items()
            for word in arguments(name, value)
            if name.startswith(("metric", "stats"))
        ]
        launcher = [sys.executable, "-c", "import pyuwsgi; pyuwsgi.run()"]
        server = serve("threads", launcher=launcher, env=pyuwsgi, options=options)
        with server.raw() as one, server.raw() as other:
            one.echo("hello")
            other.echo("hello")
            wanted = {
                *(b"chat.flask_websocket.open:2|g", b"chat.worker.1.flask_websocket.accepted:2|g"),
                b"chat.flask_websocket.messages_sent:2|g",
            }
            deadline = time.monotonic() + PATIENCE
            while wanted and time.monotonic() < deadline:
                wanted.discard(statsd.recv(1500))
            assert not wanted


@pytest.mark.parametrize("signum", ["SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("engine", ["threads", "gevent"])
def test_stops_and_reloads(serve, engine: str, signum: str, pyuwsgi: dict[str, str]) -> None:
    launcher = [sys.executable, "-c", "import pyuwsgi; pyuwsgi.run()"]
    options = ["--die-on-term"]
    server = serve(engine, launcher=launcher, env=pyuwsgi, options=options)
    worker = server.worker_pid
    with server.raw() as client:
        client.echo("hello")
        server.stopping = signum != "SIGHUP"
        server.signal(getattr(signal, signum))
        # --die-on-term has the master pass SIGINT on.
        assert client.read_close(15).code == (1012 if signum == "SIGHUP" else 1001)
        client.send(close_frame(1000))
        assert client.ended()
    if signum == "SIGHUP":
        eventually(lambda: server.worker_pid != worker, "another worker")
        with server.raw() as again:
            again.echo("again")
    else:
        server.wait_ended(15)
