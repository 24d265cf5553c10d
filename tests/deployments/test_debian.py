"""Debian's own uWSGI, with the plugins that it has for each engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import ENGINES
from tests.deployments.machine import program
from tests.rawclient import close_frame
from tests.server import Server, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

#: What docs/production.rst loads, in its order.
PLUGINS = {
    "threads": "python3",
    "gevent": "python3,gevent_python3",
    "asyncio": "python3,asyncio_python3,greenlet_python3",
}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment of the Python that the plugins are for."""
    folder = tmp_path_factory.mktemp("debian") / "venv"
    virtualenv = [sys.executable, "-m", "virtualenv", "--quiet", "--python", "/usr/bin/python3"]
    subprocess.run([*virtualenv, str(folder)], check=True, timeout=60)
    packages = ["Flask", "gevent", "greenlet"]
    pip = [folder / "bin/python", "-m", "pip", "install", "--quiet", *packages]
    subprocess.run(pip, check=True, timeout=180)
    return folder


@pytest.fixture
def debian(serve, environment: Path, request: pytest.FixtureRequest) -> Server:
    engine = request.getfixturevalue("engine")
    return serve(
        engine,
        app="members_of_rooms",
        processes=2,
        launcher=[program("uwsgi-core"), "--plugins", PLUGINS[engine]],
        options=["--virtualenv", str(environment), "--die-on-term"],
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_rooms_messages_and_reloads(debian: Server, engine: str) -> None:
    large = os.urandom(300_000)
    with ExitStack() as stack, ThreadPoolExecutor(6) as pool:
        sender, *others = pool.map(lambda _: debian.raw("/join/lobby"), range(6))
        for client in (sender, *others):
            stack.enter_context(client)
            assert client.message() == ""
        sender.text("hello")
        sender.binary(large)
        for client in others:
            assert client.message() == "hello"
            assert client.message() == large
        old = {worker["pid"] for worker in debian.stats()["workers"]}
        debian.signal(signal.SIGHUP)
        for client in (sender, *others):
            assert client.read_close().code == 1012
            client.send(close_frame(1012))
            client.close()
    eventually(lambda: debian.get("/ready").status == 200, "HTTP to answer again")
    eventually(lambda: not old & {w["pid"] for w in debian.stats()["workers"]}, "other workers")
    with debian.raw("/join/lobby") as again:
        assert again.message() == ""
