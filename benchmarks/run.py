"""A run: the servers take turns at the works, round after round."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.client import Failed, Task
from benchmarks.peer import ROOT, Peer, uwsgi_version
from benchmarks.processes import Server, ServerFailed
from benchmarks.results import Results
from benchmarks.works import SPARE, Work
from flask_uwsgi_websocket.codec import fast_path
from flask_uwsgi_websocket.exceptions import EngineError
from flask_uwsgi_websocket.inspection.binaries import find_uwsgi
from tests.server import free_port

#: Seconds that a task may take beyond those of its load.
PATIENCE = 90.0


class Client:
    """The client's process, from ``with`` to its end.

    :param module: what runs in it.
    """

    def __init__(self, module: str) -> None:
        self._module = module

    def __enter__(self) -> Client:
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, task: Any) -> dict[str, float]:
        """The figures of a task.

        :raises Failed: the server, or the client.
        """
        pipes = self._process
        assert pipes.stdin is not None
        assert pipes.stdout is not None
        patience = PATIENCE + task.seconds
        try:
            pipes.stdin.write(json.dumps(asdict(task)) + "\n")
            pipes.stdin.flush()
        except OSError as error:
            raise Failed(f"the client ended: {error}") from error
        if not select.select([pipes.stdout], [], [], patience)[0]:
            raise Failed(f"no figures within {patience:.0f} s")
        line = pipes.stdout.readline()
        if not line:
            raise Failed("the client ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer


class Run:
    """Fills `results`; interrupted, it leaves in them what there is."""

    #: The module that the client's process runs.
    client = "benchmarks.client"

    def __init__(
        self,
        results: Results,
        peers: Sequence[Peer],
        works: Sequence[Work],
        rounds: int,
        seconds: float,
        logs: Path,
    ) -> None:
        self.results = results
        self._rounds = rounds
        self._seconds = seconds
        self._logs = logs
        self._works = works
        self._peers = []
        self._skipped: set[tuple[str, str]] = set()
        descriptors = raise_descriptor_limit()
        for peer in peers:
            reason = peer.missing()
            if reason is not None:
                results.missing[peer.name] = reason
                continue
            self._peers.append(peer)
            results.peers[peer.name] = {
                "label": peer.label,
                "kind": peer.kind,
                "versions": peer.versions(),
            }
            for work in works:
                self._leave_out(peer, work, work.reason_to_skip(peer, descriptors))
        results.machine = machine()

    def _leave_out(self, peer: Peer, work: Work, reason: str | None) -> None:
        if reason is not None:
            self._skipped.add((peer.name, work.name))
        if reason:
            self.results.skipped.append({"peer": peer.name, "work": work.name, "reason": reason})

    def perform(self) -> None:
        sessions = dict.fromkeys(work.session for work in self._works)
        for number in range(self._rounds):
            for session in sessions:
                works = [
                    work
                    for work in self._works
                    if work.session == session
                    and (work.most_rounds is None or number < work.most_rounds)
                ]
                # Another peer begins each round, and in every other round they go backwards.
                start = number * len(self._peers) // self._rounds
                peers = self._peers[start:] + self._peers[:start]
                for peer in peers[:: -1 if number % 2 else 1]:
                    todo = [work for work in works if (peer.name, work.name) not in self._skipped]
                    if todo:
                        self._serve(number + 1, session, peer, todo)

    def _serve(self, number: int, session: str, peer: Peer, works: list[Work]) -> None:
        """Do works on a server; after a failure the rest on a new one."""
        head = f"round {number} of {self._rounds}, {session}: {peer.label}"
        print(head, end="", flush=True, file=sys.stderr)
        started = time.monotonic()
        left = list(works)
        while left:
            with contextlib.suppress(_Spoilt):
                for work, figures in self._session(number, peer, left):
                    value = figures[work.figure] * work.scale
                    print(f"; {work.name} {value:,.0f}", end="", flush=True, file=sys.stderr)
        print(f" ({time.monotonic() - started:.1f} s)", file=sys.stderr)

    def _session(
        self, number: int, peer: Peer, left: list[Work]
    ) -> Iterator[tuple[Work, dict[str, float]]]:
        """Do the works that are left, and take each off the list."""
        server = self._server(peer, left)
        try:
            with server, Client(self.client) as client:
                while left:
                    work = left[0]
                    figures = self._measure(client, work, peer, server)
                    left.pop(0)
                    self.results.samples.append(
                        {"round": number, "peer": peer.name, "work": work.name, "figures": figures}
                    )
                    yield work, figures
        except (Failed, ServerFailed) as error:
            work = left.pop(0)
            print(f"; {work.name} FAILED: {error}", end="", flush=True, file=sys.stderr)
            self._skipped.add((peer.name, work.name))
            self.results.failures.append(
                {
                    "round": number,
                    "peer": peer.name,
                    "work": work.name,
                    "reason": str(error),
                    "log": server.log_end().replace(f"{ROOT}/", "").replace(f"{sys.prefix}/", ""),
                }
            )
            raise _Spoilt from error

    def _measure(self, client: Client, work: Work, peer: Peer, server: Any) -> dict[str, float]:
        return client.ask(self._task(work, peer, server))

    def _server(self, peer: Peer, works: Sequence[Work]) -> Any:
        """What holds all the connections of these works."""
        port = free_port()
        cores = max(work.connections for work in works) + SPARE
        compression = any(work.compression for work in works)
        return Server(
            peer.command(port, cores),
            port,
            peer.path,
            self._logs / f"{peer.name}.log",
            peer.variables(port, cores, compression),
            peer.directory(),
        )

    def _task(self, work: Any, peer: Peer, server: Any) -> Any:
        path = peer.path
        if work.goes_to_all and peer.dialect == "websocket":
            path = "/all"
        return Task(
            action=work.action,
            port=server.port,
            path=path,
            pid=server.pid,
            seconds=self._seconds,
            dialect=peer.dialect,
            connections=work.connections,
            size=work.size,
            depth=work.depth,
            compression=work.compression,
        )


class _Spoilt(Exception):
    """The server is not to be used any more."""


def raise_descriptor_limit() -> int:
    """To the most that is allowed; the servers inherit it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most if most != resource.RLIM_INFINITY else 1 << 20


def machine() -> dict[str, Any]:
    """What the figures depend on beside the peers."""
    cpu = "unknown"
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.partition(": ")[2]
                break
    uwsgi = "none"
    with contextlib.suppress(EngineError):
        uwsgi = uwsgi_version(find_uwsgi())
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    return {
        "CPU": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "Python": platform.python_version(),
        "uWSGI": uwsgi,
        "revision": revision or "unknown",
        "speedups": fast_path.COMPILED,
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }
