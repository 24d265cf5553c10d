"""The emperor: each file in a folder is an app's uWSGI."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from shutil import copytree

import pytest

from tests.deployments.machine import Machine, link_environment, machine
from tests.rawclient import RawClient, close_frame
from tests.server import ENGINES, PATIENCE, ROOT, eventually, free_port, uwsgi_binary
from tests.test_reload import later

pytestmark = pytest.mark.slow


class Vassal:
    """A file in the emperor's folder, and the app that it stands for."""

    def __init__(self, folder: Path, engine: str) -> None:
        self.port = free_port()
        self.file = folder / f"{engine}.ini"
        options = [line.removeprefix("--").replace(" ", " = ") for line in lines(engine)]
        self._text = "\n".join(
            [
                "[uwsgi]",
                f"http-socket = 127.0.0.1:{self.port}",
                f"virtualenv = {sys.prefix}",
                f"pythonpath = {ROOT}",
                "module = tests.apps.wsgi",
                "env = TEST_APP=recycling",
                f"env = TEST_ENGINE={engine}",
                "master = true",
                "processes = 2",
                "need-app = true",
                "disable-logging = true",
                *options,
                "",
            ]
        )

    def appear(self) -> None:
        self.file.write_text(self._text)

    def open(self) -> RawClient:
        client = RawClient(("127.0.0.1", self.port), PATIENCE)
        client.handshake("/worker")
        return client

    def answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("POST", "/upload", b"hello")
            return connection.getresponse().read() == b"hello"
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def lines(engine: str) -> list[str]:
    """An engine's options as an ini file has them."""
    words = ENGINES[engine](20)
    return [f"{words[0]} {words[1]}", *(f"{word} true" for word in words[2:])]


@pytest.fixture
def empire(tmp_path: Path) -> Iterator[Machine]:
    with machine(tmp_path) as built:
        built.path("/etc/uwsgi/vassals").mkdir(parents=True)
        ini = built.put("emperor.ini", "/etc/uwsgi/emperor.ini", built.here("/etc/uwsgi/vassals"))
        built.start("emperor", [uwsgi_binary(), "--ini", str(ini)])
        yield built


def end_of(client: RawClient) -> int | None:
    code = client.read_close(PATIENCE).code
    client.send(close_frame(code))
    assert client.ended(PATIENCE)
    client.close()
    return code


def test_vassals_come_change_and_go(empire: Machine) -> None:
    folder = empire.path("/etc/uwsgi/vassals")
    vassals = [Vassal(folder, engine) for engine in ("threads", "gevent", "asyncio")]
    for vassal in vassals:
        vassal.appear()
    with ExitStack() as stack:
        for vassal in vassals:
            eventually(vassal.answers, f"{vassal.file} to answer")
        first, *others = [stack.enter_context(vassal.open()) for vassal in vassals]
        old = {client.message() for client in (first, *others)}
        later(vassals[0].file)
        assert end_of(first) == 1012
        eventually(vassals[0].answers, "the vassal to answer again")
        with vassals[0].open() as again:
            assert again.message() not in old
        os.remove(vassals[1].file)
        assert end_of(others[0]) == 1001
        assert vassals[2].answers()
        empire.running["emperor"].send_signal(signal.SIGTERM)
        assert end_of(others[1]) == 1001
        empire.running["emperor"].wait(PATIENCE)


def test_the_chats_file_is_a_vassal_as_it_is(empire: Machine) -> None:
    empire.path("/run/chat").mkdir(parents=True)
    copytree(ROOT / "examples/chat-gevent", empire.path("/srv/chat"))
    link_environment(empire.path("/srv/chat/venv"))
    words = empire.here("/srv/chat", "/run/chat")
    empire.put("chat.ini", "/etc/uwsgi/vassals/chat.ini", words)
    eventually(lambda: empire.log("emperor").count("WSGI app 0") == 2, "both workers to load it")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(empire.path("/run/chat/uwsgi.sock")))
