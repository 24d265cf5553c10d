"""What a new configuration of the front does to the WebSockets that it carries."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deployments.fronts import program
from tests.server import PATIENCE, Server, eventually

pytestmark = pytest.mark.gevent


def processes(server: Server) -> str:
    """The processes of the front."""
    pid = server.front_pid
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()


def by_signal(signum: int) -> Callable[[Server], None]:
    def renew(server: Server) -> None:
        old = processes(server)
        server.signal_front(signum)
        eventually(lambda: processes(server) != old, "another process")

    return renew


def edit(server: Server, name: str, old: str, new: str, more: str = "") -> Path:
    """Have the front add a header."""
    path = server.directory / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1) + more)
    return path


def renewed(server: Server) -> None:
    eventually(lambda: server.get("/ready").headers.get("X-New"), "the new configuration")


def renew_traefik(server: Server) -> None:
    headers = "  middlewares:\n    new:\n      headers: {customResponseHeaders: {X-New: yes}}\n"
    edit(server, "app.yaml", "service: app", "service: app\n      middlewares: [new]", headers)
    renewed(server)


def renew_caddy(server: Server) -> None:
    path = edit(server, "Caddyfile", "reverse_proxy", "header X-New yes\n    reverse_proxy")
    command = [program("caddy"), "reload", "--adapter", "caddyfile", "--config", str(path)]
    command += ["--address", f"unix/{server.directory}/admin"]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
    renewed(server)


@pytest.mark.parametrize(
    ("front", "renew"),
    [
        ("nginx-uwsgi", by_signal(signal.SIGHUP)),
        ("haproxy", by_signal(signal.SIGUSR2)),
        ("apache", by_signal(signal.SIGUSR1)),
        ("traefik", renew_traefik),
    ],
)
def test_websockets_stay(serve, front: str, renew: Callable[[Server], None]) -> None:
    server = serve("gevent", front, app="behind", config={"TEST_PROXY_FIX": True})
    with server.raw() as client:
        client.echo("before")
        renew(server)
        client.echo("after")
        with server.raw() as another:
            another.echo("from the new one")
        client.echo("still here")


def test_caddy_ends_websockets(serve) -> None:
    server = serve("gevent", "caddy", app="behind", config={"TEST_PROXY_FIX": True})
    with server.raw() as client:
        client.echo("before")
        renew_caddy(server)
        assert client.read_close().code == 1001
    with server.raw() as client:
        client.echo("after")
