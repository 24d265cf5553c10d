"""The service, the ini and the site of docs/production.rst: chat behind nginx with TLS."""

from __future__ import annotations

import configparser
import json
import os
import resource
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPSConnection
from pathlib import Path
from shutil import copytree
from ssl import create_default_context

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection

from tests.deployments.machine import (
    Machine,
    code_at_end,
    link_environment,
    machine,
    make_certificate,
    program,
    secure,
    start_nginx,
)
from tests.server import PATIENCE, ROOT, eventually, free_port

pytestmark = pytest.mark.slow

HOST = "chat.example.com"
PATHS = ("/srv/chat", "/run/chat")


class ChatMachine:
    """A machine on which the page's steps were taken, with another port for HTTPS."""

    def __init__(self, built: Machine) -> None:
        self.machine = built
        self.port, self.plain_port = free_port(), free_port()
        built.path("/run/chat").mkdir(parents=True)
        copytree(ROOT / "examples/chat-gevent", built.path("/srv/chat"))
        link_environment(built.path("/srv/chat/venv"))
        built.put("chat.ini", "/srv/chat/chat.ini", built.here(*PATHS))
        self.unit_file = built.put("chat.service", "/chat.service", built.here(*PATHS))
        self.unit = configparser.RawConfigParser(strict=False)
        self.unit.optionxform = str  # type: ignore[assignment,method-assign]
        self.unit.read(self.unit_file)

    def directive(self, name: str) -> str:
        return self.unit["Service"][name]

    def start(self) -> None:
        """Start the service as systemd does: until it says that it is ready."""
        assert self.directive("Type") == "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.bind(str(self.machine.path("/run/notify")))
            notified.settimeout(PATIENCE)
            limit = int(self.directive("LimitNOFILE"))
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            command = ["prlimit", f"--nofile={limit}", *shlex.split(self.directive("ExecStart"))]
            env = {"NOTIFY_SOCKET": str(self.machine.path("/run/notify"))}
            self.machine.start("uwsgi", command, env)
            while b"READY=1" not in notified.recv(4096):
                pass

    def start_nginx(self, certificate: Path, key: Path) -> None:
        self.certificate = certificate
        live = f"/etc/letsencrypt/live/{HOST}"
        site = self.machine.put(
            "nginx.conf",
            "/etc/nginx/sites-enabled/chat",
            {
                **self.machine.here(*PATHS),
                "listen 80;\n    listen [::]:80;": f"listen 127.0.0.1:{self.plain_port};",
                "listen 443 ssl;\n    listen [::]:443 ssl;": f"listen 127.0.0.1:{self.port} ssl;",
                f"{live}/fullchain.pem": str(certificate),
                f"{live}/privkey.pem": str(key),
            },
        )
        start_nginx(self.machine, site, self.port)

    def get(self, path: str) -> tuple[int, str]:
        context = create_default_context(cafile=self.certificate)
        context.check_hostname = False
        connection = HTTPSConnection("127.0.0.1", self.port, timeout=PATIENCE, context=context)
        try:
            connection.request("GET", path, headers={"Host": HOST})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def answers(self) -> bool:
        try:
            return self.get("/")[0] == 200
        except OSError:
            return False


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"), HOST)


@pytest.fixture(scope="module")
def chat(
    tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]
) -> Iterator[ChatMachine]:
    with machine(tmp_path_factory.mktemp("host")) as built:
        started = ChatMachine(built)
        started.start()
        started.start_nginx(*certificate)
        eventually(started.answers, "nginx and the app to answer")
        yield started


@pytest.fixture
def visit(chat: ChatMachine, certificate: tuple[Path, Path]) -> Iterator[Visit]:
    with ExitStack() as stack:
        yield Visit(chat, certificate[0], stack)


class Visit:
    """Opens the chat."""

    def __init__(self, chat: ChatMachine, certificate: Path, stack: ExitStack) -> None:
        self._chat, self._certificate, self._stack = chat, certificate, stack

    def __call__(self, name: str, **options: str) -> tuple[ClientConnection, int]:
        """A visitor, and the worker that has them."""
        opened = secure(self._chat.port, f"/chat?name={name}", self._certificate, HOST, **options)
        client = self._stack.enter_context(opened)
        hello = json.loads(client.recv(PATIENCE))
        while json.loads(client.recv(PATIENCE)).get("id") != hello["you"]:
            pass  # others come and go; who hears of their own coming is in the room
        return client, hello["process"]

    def on_each_worker(self) -> list[ClientConnection]:
        found: dict[int, ClientConnection] = {}

        def all_have_one() -> bool:
            # Several at a time: of those that come one by one, one worker may take them all.
            with ThreadPoolExecutor(6) as pool:
                for client, worker in pool.map(self, [f"visitor{number}" for number in range(6)]):
                    found.setdefault(worker, client)
            return len(found) == 2

        eventually(all_have_one, "a visitor of each worker")
        return list(found.values())


def heard(client: ClientConnection, text: str) -> None:
    while json.loads(client.recv(PATIENCE)).get("text") != text:
        pass


def test_systemd_accepts_the_unit(chat: ChatMachine) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", str(chat.unit_file)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    # What else it says is of other units of this machine.
    assert "chat.service" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr


def test_the_page_and_its_files(chat: ChatMachine) -> None:
    status, page = chat.get("/")
    assert status == 200
    assert "<html" in page
    assert chat.get("/static/chat.js")[0] == 200


def test_all_workers_hear_what_one_visitor_says(chat: ChatMachine, visit: Visit) -> None:
    first, second = visit.on_each_worker()
    first.send("hello")
    heard(first, "hello")
    heard(second, "hello")


def test_pages_of_others_are_refused(visit: Visit) -> None:
    with pytest.raises(InvalidStatus) as refused:
        visit("mallory", origin="https://example.net")
    assert refused.value.response.status_code == 403


def test_a_reload_takes_one_worker_after_the_other(chat: ChatMachine, visit: Visit) -> None:
    clients = visit.on_each_worker()
    old = workers(chat)
    subprocess.run(shlex.split(chat.directive("ExecReload")), check=True, timeout=PATIENCE)
    assert [code_at_end(client) for client in clients] == [1012, 1012]
    eventually(lambda: not old & workers(chat), "other workers")
    visit.on_each_worker()


def workers(chat: ChatMachine) -> set[int]:
    with socket.socket(socket.AF_UNIX) as stats:
        stats.settimeout(PATIENCE)
        stats.connect(str(chat.machine.path("/run/chat/stats.sock")))
        text = b""
        while more := stats.recv(65536):
            text += more
    return {worker["pid"] for worker in json.loads(text)["workers"]}


def test_the_doctor_finds_nothing(chat: ChatMachine) -> None:
    done = subprocess.run(
        [program("flask"), "websocket", "doctor", str(chat.machine.path("/srv/chat/chat.ini"))],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert "Nothing found." in done.stdout, done.stdout


def test_a_stop_tells_everybody(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    with machine(tmp_path) as built, ExitStack() as stack:
        chat = ChatMachine(built)
        chat.start()
        chat.start_nginx(*certificate)
        eventually(chat.answers, "nginx and the app to answer")
        visit = Visit(chat, certificate[0], stack)
        clients = visit.on_each_worker()
        # KillMode=mixed: systemd signals the main process alone, and kills what is left.
        assert chat.directive("KillMode") == "mixed"
        uwsgi = built.running["uwsgi"]
        uwsgi.send_signal(signal.SIGTERM)
        assert [code_at_end(client) for client in clients] == [1001, 1001]
        uwsgi.wait(int(chat.directive("TimeoutStopSec")))
        assert not os.path.exists(built.path("/run/chat/uwsgi.sock"))
