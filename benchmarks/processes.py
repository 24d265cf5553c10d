"""A server's processes: started, ready, measured from /proc, ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

#: Seconds that a server may take until it answers a handshake.
PATIENCE = 30.0

#: Seconds that it may take to stop before it is killed.
MERCY = 0.5

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class ServerFailed(Exception):
    """It did not start."""


def tree(pid: int) -> Iterator[int]:
    """A process and all its descendants."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                yield from tree(int(child))


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its descendants, in user and kernel mode."""
    total = 0
    for each in tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(") ")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def machine_cpu_seconds() -> float:
    """CPU time of everything on this machine, with what a hypervisor took from it."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    idle = fields[3] + fields[4]
    return (sum(fields[:8]) - idle) / _TICKS


def resident_bytes(pid: int) -> int:
    """The resident sets of a process and its descendants, shared pages as often as they are."""
    total = 0
    for each in tree(pid):
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{each}/statm").read_text().split()[1])
    return total * _PAGE


class Server:
    """A peer's processes, from ``with`` to its end.

    :param log: the file that gets what it prints.
    :param path: where it answers WebSocket handshakes.
    """

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        path: str,
        log: Path,
        environment: Mapping[str, str],
        directory: Path,
    ) -> None:
        self.port = port
        self._path = path
        self._log = log
        with log.open("wb") as output:
            # A session of its own: Ctrl-C is ours to hear, and we end the server.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                cwd=directory,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def __enter__(self) -> Server:
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE
        answer = b""
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ServerFailed(f"it ended with status {self._process.returncode}")
            with contextlib.suppress(OSError):
                answer = self._handshake()
                if b" 101 " in answer:
                    return
            time.sleep(0.05)
        raise ServerFailed(f"no handshake within {PATIENCE:.0f} s, last answer {answer[:200]!r}")

    def _handshake(self) -> bytes:
        request = (
            f"GET {self._path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as client:
            client.sendall(request.encode())
            return client.recv(4096).partition(b"\r\n")[0]

    def log_end(self, lines: int = 15) -> str:
        """The last lines that it printed."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(MERCY)
        # Whatever is left of its session, also when the first process has gone before the others.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
