"""A run of the works with rooms: several processes for each server, and a Redis between them."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.client import Failed
from benchmarks.fanout.client import WRONG, RoomTask
from benchmarks.fanout.works import WORKERS
from benchmarks.processes import PATIENCE, Server, ServerFailed
from benchmarks.run import Run
from benchmarks.works import SPARE
from tests.server import free_port


class Redis:
    """A Redis that keeps nothing, from ``with`` to its end."""

    def __init__(self) -> None:
        self._port = free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"

    def __enter__(self) -> Redis:
        self._folder = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            [
                *(shutil.which("redis-server") or "redis-server", "--port", str(self._port)),
                *("--bind", "127.0.0.1", "--save", "", "--appendonly", "no"),
                *("--dir", self._folder.name),
            ],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.pid = self._process.pid
        return self

    def __exit__(self, *error: Any) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
                return
            time.sleep(0.02)
        raise ServerFailed("Redis did not start")


def redis_version() -> str:
    """What ``Redis server v=7.0.15 sha=...`` says, if there is one."""
    program = shutil.which("redis-server")
    if program is None:
        return "none"
    output = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
    return output.partition("v=")[2].split()[0]


class Servers:
    """All instances of a peer and what is between them, from ``with`` to their end."""

    def __init__(self, peer: Any, cores: int, logs: Path) -> None:
        self.ports = [free_port() for _ in range(WORKERS)]
        self._peer = peer
        self._cores = cores
        self._logs = logs
        self._redis = Redis() if peer.redis else None
        self._instances: list[Server] = []

    @property
    def pids(self) -> list[int]:
        return [instance.pid for instance in self._instances]

    @property
    def broker(self) -> int | None:
        return self._redis.pid if self._redis else None

    def __enter__(self) -> Servers:
        with contextlib.ExitStack() as stack:
            if self._redis:
                stack.enter_context(self._redis)
                self._redis.wait_until_ready()
            groups = [self.ports] if self._peer.whole else [[port] for port in self.ports]
            for ports in groups:
                self._instances.append(self._instance(ports))
                stack.callback(self._instances[-1].stop)
            for instance in self._instances:
                instance.wait_until_ready()
            self._end = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._end.close()

    def _instance(self, ports: Sequence[int]) -> Server:
        peer = self._peer
        return Server(
            peer.command(ports[0], self._cores),
            ports[0],
            peer.path,
            self._logs / f"{peer.name}-{self.ports.index(ports[0]) + 1}.log",
            peer.surroundings(ports, self._cores, self._redis.url if self._redis else None),
            peer.directory(),
        )

    def log_end(self) -> str:
        """The last lines of the instance that printed most."""
        return max((instance.log_end() for instance in self._instances), key=len, default="")


class RoomRun(Run):
    """Fills `results` with the works on rooms."""

    client = "benchmarks.fanout.client"

    def perform(self) -> None:
        self.results.machine["Redis"] = redis_version()
        super().perform()

    def _server(self, peer: Any, works: Sequence[Any]) -> Servers:
        cores = max(work.connections for work in works) // WORKERS + SPARE
        return Servers(peer, cores, self._logs)

    def _measure(self, client: Any, work: Any, peer: Any, server: Any) -> dict[str, float]:
        """The figures; what the others may lose, ours may not."""
        figures: dict[str, float] = super()._measure(client, work, peer, server)
        wrong = [f"{figures[each]:,.0f} {each}" for each in WRONG if figures[each]]
        if peer.is_ours and wrong:
            raise Failed(f"of {figures['expected']:,.0f} deliveries {', '.join(wrong)}")
        return figures

    def _task(self, work: Any, peer: Any, server: Servers) -> RoomTask:
        return RoomTask(
            ports=server.ports,
            pids=server.pids,
            broker=server.broker,
            seconds=self._seconds,
            dialect=peer.dialect,
            connections=work.connections,
            rooms=work.rooms,
            size=work.size,
            depth=work.depth,
            burst=work.burst,
        )
