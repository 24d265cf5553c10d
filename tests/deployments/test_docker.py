"""The Dockerfile and the compose file: nginx, uWSGI and Redis, each as its container runs it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import yaml
from websockets.sync.client import ClientConnection

from tests.checkout import copy_checkout
from tests.deployments.dockerfile import Image
from tests.deployments.machine import (
    DEPLOY,
    Machine,
    code_at_end,
    machine,
    make_certificate,
    program,
    secure,
    start_nginx,
)
from tests.server import PATIENCE, ROOT, eventually, free_port

# The image is built once for all; pip fetches what is in it.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(sys.version_info >= (3, 14), reason="pyuwsgi has no wheel for it"),
]

HOST = "localhost"
SERVICES: dict[str, Any] = yaml.safe_load((DEPLOY / "docker/compose.yaml").read_text())["services"]


class Composition:
    """The services of compose.yaml, on ports of this machine."""

    def __init__(self, built: Machine) -> None:
        self.machine = built
        self.ports = {name: free_port() for name in ("http", "https", "uwsgi", "health", "redis")}
        self.certificate, _ = make_certificate(built.path("/"), HOST)
        self.folder = built.path("/app")
        copytree(DEPLOY / "docker", self.folder)
        copytree(ROOT / "examples/pubsub-gevent", self.folder, dirs_exist_ok=True)
        words = {"0.0.0.0:3031": self.at("uwsgi"), "127.0.0.1:8000": self.at("health")}
        built.put("docker/app.ini", "/app/app.ini", words)
        build_wheel(built.path("/checkout"), self.folder)
        self.image = Image(self.folder)
        self.image.build()

    def at(self, name: str) -> str:
        return f"127.0.0.1:{self.ports[name]}"

    def start(self) -> None:
        assert SERVICES["app"]["depends_on"] == ["redis"]
        self._start_redis()
        env = dict(SERVICES["app"]["environment"])
        assert env["REDIS_URL"] == "redis://redis:6379"
        env["REDIS_URL"] = f"redis://{self.at('redis')}"
        assert not self.is_healthy()
        command = self.image.command("CMD")
        command[-1] = str(self.folder / command[-1])
        words = self.image.env | env | {"PWD": str(self.folder)}
        self.machine.start("app", ["env", "-C", str(self.folder), *command], words)
        assert SERVICES["nginx"]["depends_on"]["app"]["condition"] == "service_healthy"
        eventually(self.is_healthy, "the app to be healthy", interval=0.3)
        self._start_nginx()

    def _start_redis(self) -> None:
        name, *options = SERVICES["redis"]["command"]
        options += ["--port", str(self.ports["redis"]), "--bind", "127.0.0.1"]
        self.machine.start("redis", [program(name), *options])

    def _start_nginx(self) -> None:
        assert SERVICES["nginx"]["volumes"] == [
            "./nginx.conf:/etc/nginx/conf.d/default.conf:ro",
            "./certificates:/etc/nginx/certificates:ro",
        ]
        site = self.machine.put(
            "docker/nginx.conf",
            "/etc/nginx/conf.d/default.conf",
            {
                "listen 80;": f"listen {self.at('http')};",
                "listen 443 ssl;": f"listen {self.at('https')} ssl;",
                "app:3031": self.at("uwsgi"),
                "/etc/nginx/certificates": str(self.machine.path("/")),
            },
        )
        start_nginx(self.machine, site, self.ports["https"])

    def is_healthy(self) -> bool:
        command = self.image.command("HEALTHCHECK")
        assert "127.0.0.1:8000" in command[-1]
        command[-1] = command[-1].replace("127.0.0.1:8000", self.at("health"))
        done = subprocess.run(command, env=self.image.env, capture_output=True, timeout=PATIENCE)
        return done.returncode == 0

    def visit(self) -> ClientConnection:
        return secure(self.ports["https"], "/channels/lobby", self.certificate, HOST)


def build_wheel(checkout: Path, folder: Path) -> None:
    """What stands beside the Dockerfile for as long as no index has it."""
    copy_checkout(checkout)
    pip = [program("pip"), "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder)]
    subprocess.run([*pip, str(checkout)], check=True, timeout=200)


@pytest.fixture(scope="module")
def composition(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composition]:
    with machine(tmp_path_factory.mktemp("docker")) as built:
        composition = Composition(built)
        composition.start()
        yield composition


def test_visitors_hear_each_other_until_docker_stops_them(composition: Composition) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(composition.visit()) for _ in range(6)]
        for client in clients:
            assert json.loads(client.recv(PATIENCE))["you"]
        clients[0].send("hello")
        for client in clients[1:]:
            assert json.loads(client.recv(PATIENCE))["text"] == "hello"
        app = composition.machine.running["app"]
        app.send_signal(signal.SIGTERM)  # as `docker stop` does
        assert {code_at_end(client) for client in clients} == {1001}
        app.wait(int(SERVICES["app"]["stop_grace_period"].rstrip("s")))


def test_what_is_not_for_the_image_is_not_in_it() -> None:
    assert "certificates" in (DEPLOY / "docker/.dockerignore").read_text().split()
