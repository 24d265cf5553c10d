"""A real uWSGI process as a test sees it: started, ready, watched, stopped.

Everything has a deadline, and nothing waits for a process that is already dead. A server that a
test spoilt says so in its log, which is read after each test (`Server.log_complaints`).
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from websockets.sync.client import ClientConnection, connect

from tests.deployments.fronts import FRONTS as ALL_FRONTS
from tests.deployments.fronts import Place
from tests.rawclient import Answer, RawClient, Refused

ROOT = Path(__file__).resolve().parent.parent

#: Seconds within which anything that ought to happen has happened, also on a busy machine. A
#: deadline only: no test measures speed with it.
PATIENCE = 30.0

#: Each engine's uWSGI options, given the number of connections that it shall hold.
ENGINES: dict[str, Callable[[int], list[str]]] = {
    "threads": lambda cores: ["--threads", str(cores)],
    "gevent": lambda cores: ["--gevent", str(cores)],
    "asyncio": lambda cores: ["--asyncio", str(cores), "--greenlet"],
    "asyncio-uvloop": lambda cores: ["--asyncio", str(cores), "--greenlet"],
    "asyncio-without-greenlet": lambda cores: ["--asyncio", str(cores)],
    "async": lambda cores: ["--async", str(cores), "--greenlet"],
    "async-ugreen": lambda cores: ["--async", str(cores), "--ugreen"],
    "single": lambda cores: [],
}

#: The ways in which a request reaches uWSGI, of which tests/deployments has all.
FRONTS = ("http-socket", "http", "nginx-proxy", "nginx-uwsgi")

#: What must not be in a server's log unless the test says that it provokes it.
COMPLAINT = re.compile(
    r"Traceback|segfault|Segmentation Fault|SystemError|^!!!|DAMN|NOT FOUND|Exception ignored"
    r"|exception was never retrieved|was never awaited|ResourceWarning|unable to",
    re.MULTILINE,
)

#: uWSGI's own remarks at its start, some of which look like complaints.
BANNER = re.compile(
    r"running uWSGI as root|no internal routing support|unable to find PCRE"
    r"|asyncio with a socket-timeout lower"
)

T = TypeVar("T")


def eventually(
    probe: Callable[[], T], what: str, patience: float = PATIENCE, interval: float = 0.02
) -> T:
    """The first true value of `probe()`, asked again until `patience` seconds have passed."""
    deadline = time.monotonic() + patience
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience} s: {what} (last seen: {value!r})")
        time.sleep(interval)


def _ports_of_this_process() -> Iterator[int]:
    """Each of the processes that run tests has ports of its own, below those that clients get."""
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first, count = 12_000 + 2_500 * (process % 8), 2_500
    begin = os.getpid() % count  # another run beside this one begins elsewhere
    return itertools.cycle([*range(first + begin, first + count), *range(first, first + begin)])


_ports = _ports_of_this_process()


def free_port() -> int:
    """A port that nobody has, nor gets from here for a long time: its server is still to come."""
    for port in _ports:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def uwsgi_binary() -> str:
    """The uWSGI of the environment that runs the tests."""
    beside = Path(sysconfig.get_path("scripts")) / "uwsgi"
    if beside.exists():
        return str(beside)
    found = shutil.which("uwsgi")
    assert found, "no uWSGI: run `python -m flask_uwsgi_websocket install-uwsgi`"
    return found


def client_context() -> ssl.SSLContext:
    """TLS as clients speak it who trust any certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


LISTENING, CLOSE_WAIT = "0A", "08"  # as the kernel writes them


def accepted_by(pid: int) -> set[str]:
    """The inodes of the TCP connections that a process has accepted, by its listeners' ports."""
    own = tcp_sockets(pid)
    listening = {port for port, state, _ in own if state == LISTENING}
    return {inode for port, state, inode in own if state != LISTENING and port in listening}


def tcp_sockets(pid: int) -> list[tuple[str, str, str]]:
    """The local port, state and inode of each TCP socket that a process has."""
    table = Path("/proc/net/tcp").read_text()
    return [row for inode in _sockets_of(pid) if (row := _tcp_row(inode, table))]


def _sockets_of(pid: int) -> set[str]:
    inodes = set()
    with contextlib.suppress(OSError):  # the process has just ended
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):  # it has just closed this one
                kind, _, inode = os.readlink(f"/proc/{pid}/fd/{name}").partition(":")
                if kind == "socket":
                    inodes.add(inode.strip("[]"))
    return inodes


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:  # it has just been closed
        return ""


def _tcp_row(inode: str, table: str) -> tuple[str, str, str] | None:
    # Among thousands of connections that earlier tests left.
    at = table.find(f" {inode} ")
    if at < 0:
        return None
    fields = table[table.rfind("\n", 0, at) : at].split()
    return fields[1].partition(":")[2], fields[3], inode


def _acts_as_worker(pid: int) -> bool:
    """Return whether a process of uWSGI has a worker's handlers of signals.

    Until it has set them they are those of the master that it was forked from, which do nothing in
    a worker: a signal is lost then. A worker handles SIGUSR2, which no master does.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it has ended
        return False
    handled = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(handled >> signal.SIGUSR2 - 1 & 1) and "State:\tZ" not in status


def _deaf_threads(pid: int) -> int:
    """Return how many threads of a process, but for the main one, have blocked all signals."""
    threads = Path(f"/proc/{pid}/task")
    try:
        found = set(threads.iterdir())
    except OSError:  # the process has just ended
        return 0
    return sum(map(_is_deaf, found - {threads / str(pid)}))


def _is_deaf(thread: Path) -> bool:
    try:
        status = (thread / "status").read_text()
    except OSError:  # it has just ended
        return False
    blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
    # A thread that starts blocks for a moment even what only the C library can block, such as 32.
    return bool(blocked >> signal.SIGCHLD - 1 & 1 and not blocked >> 31 & 1)


def _parsed(document: bytes) -> dict[str, Any]:
    # A request that runs is told with its headers, in whatever bytes its client sent: uWSGI
    # escapes quotation marks alone, neither what is not UTF-8 nor control characters.
    statistics: dict[str, Any] = json.loads(document.decode(errors="replace"), strict=False)
    return statistics


def _in_request(workers: list[dict[str, Any]]) -> int:
    return sum(core["in_request"] for worker in workers for core in worker["cores"])


def _accepted(workers: list[dict[str, Any]]) -> int:
    return sum(len(accepted_by(worker["pid"])) for worker in workers if worker["pid"])


class Server:
    """A uWSGI process that serves one of `tests/apps/`, and what stands in front of it.

    :param engine: the mode that uWSGI runs in, a key of `ENGINES`.
    :param front: how requests reach it, by its name in `tests/deployments/fronts.py`.
    :param app: the module in `tests/apps/`.
    :param extension: the engine whose extension class the app uses, if not that of `engine`.
    :param config: Flask configuration for the app.
    :param cores: how many requests it can hold at the same time.
    :param options: more uWSGI options.
    :param master: whether uWSGI has a master process; without one it has no statistics.
    :param proxy_timeout: seconds of silence that the front endures.
    :param env: more environment variables.
    :param launcher: what starts uWSGI, if not the binary beside this Python.
    """

    def __init__(
        self,
        directory: Path,
        engine: str,
        front: str = "http-socket",
        *,
        app: str = "standard",
        extension: str | None = None,
        config: Mapping[str, Any] | None = None,
        cores: int | None = None,
        processes: int = 1,
        options: Sequence[str] = (),
        master: bool = True,
        proxy_timeout: int = 60,
        env: Mapping[str, str] | None = None,
        launcher: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        self.engine = engine
        self.front = front
        self.cores = cores if cores is not None else (24 if engine == "threads" else 100)
        self.processes = processes
        self.options = list(options)
        self.master = master
        self.launcher = list(launcher)
        self.proxy_timeout = proxy_timeout
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("FLASK_")},
            "TEST_APP": app,
            "TEST_ENGINE": extension or engine,
            "TEST_CONFIG": json.dumps(dict(config or {})),
            "PYTHONUNBUFFERED": "1",
            # uvloop is installed with the tests, so that it would be taken for both.
            "FLASK_UWSGI_UVLOOP": "1" if engine == "asyncio-uvloop" else "0",
            **(env or {}),
        }
        self.host = "127.0.0.1"
        #: The address that clients have, if not the server's own.
        self.source: str | None = None
        self.port = 0
        self.inner_port = 0
        self.tls = client_context() if ALL_FRONTS[front].tls else None
        self.log_path = directory / "uwsgi.log"
        self.front_log_path = directory / "front.log"
        self._stats_path = directory / "stats"
        self._seen = 0  # how much of the log earlier tests have answered for
        self._uwsgi: subprocess.Popen[bytes] | None = None
        self._front: subprocess.Popen[bytes] | None = None
        self._has_served = False
        self.stopping = False
        self._stubborn: list[str] = []
        self._allowed: list[re.Pattern[str]] = []

    def __repr__(self) -> str:
        return f"<Server {self.engine} {self.front} port {self.port}>"

    # Life

    def start(self) -> Server:
        self.directory.mkdir(parents=True, exist_ok=True)
        for _ in range(5):
            self.port = free_port()
            self._spawn()
            try:
                eventually(self._answers, f"{self!r} to answer", interval=0.05)
                break
            except ProcessLookupError:
                # Somebody took the port between our asking and uWSGI's binding it.
                if "Address already in use" not in self.log() + self.front_log():
                    raise
                self.stop()
        self.settle()
        self._has_served = True
        self._seen = len(self.log())
        return self

    def settle(self, *gone: int) -> None:
        """Wait until all workers serve, and take signals: after a start, a reload, a kill.

        :param gone: ids of processes that must not be among them: the master may not yet know that
            one is dead, or have begun to replace it.
        """
        eventually(lambda: self._has_settled(gone), f"all workers of {self!r} to take signals")

    def _settle_before_end(self) -> None:
        """Settle where there is something to settle: what has ended, or never served, does not."""
        if self._has_served and not self.stopping:
            with contextlib.suppress(AssertionError):  # whatever hinders it, the end shows it
                eventually(lambda: not self.alive or self._has_settled(), "a moment to stop at")

    def _has_settled(self, gone: Collection[int] = ()) -> bool:
        pids = self._serving_pids()
        if not pids or not pids.isdisjoint(gone) or not all(map(_acts_as_worker, pids)):
            return False
        # uWSGI exits in the thread that takes a SIGINT, and in any but the main one Python waits
        # for the main one's end: a worker that is stopped while its threads start may hang.
        return self.engine != "threads" or all(_deaf_threads(pid) >= self.cores - 1 for pid in pids)

    def _serving_pids(self) -> set[int]:
        """The ids of all workers; none while some are yet to load the app.

        With --lazy-apps one may answer while another is still loading.
        """
        if not self.master:
            return {self._pid}
        document = self._ask_stats()  # refused while a master that reloads becomes another one
        workers = _parsed(document)["workers"] if document else []
        wanted = [worker for worker in workers if worker["status"] != "cheap"]
        if not all(worker["pid"] and worker["apps"] for worker in wanted):
            return set()
        return {worker["pid"] for worker in wanted}

    @property
    def _pid(self) -> int:
        assert self._uwsgi is not None
        return self._uwsgi.pid

    def _spawn(self) -> None:
        front = ALL_FRONTS[self.front]
        self.stopping = False
        self.inner_port = free_port()
        inner = (
            str(self.directory / "inner.sock") if front.unix else f"{self.host}:{self.inner_port}"
        )
        place = Place(self.directory, self.port, free_port(), inner, self.proxy_timeout)
        command = [
            *(self.launcher or [uwsgi_binary()]),
            *("--need-app", "--disable-logging", "--sharedarea", "1"),
            *(("--master", "--stats", str(self._stats_path)) if self.master else ()),
            *("--processes", str(self.processes)),
            *("--pythonpath", str(ROOT), "--module", "tests.apps.wsgi"),
            *(("--virtualenv", sys.prefix) if sys.prefix != sys.base_prefix else ()),
            *ENGINES[self.engine](self.cores),
            *front.workers(place),
            *self.options,
        ]
        self._uwsgi = self._popen(command, self.log_path)
        if front.command:
            self._front = self._popen(front.command(place), self.front_log_path)

    def _popen(self, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as output:
            return subprocess.Popen(
                command,
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _answers(self) -> bool:
        for process, name in ((self._uwsgi, "uWSGI"), (self._front, self.front)):
            if process and process.poll() is not None:
                raise ProcessLookupError(
                    f"{name} ended with {process.returncode} at its start:\n"
                    f"{self.log()}{self.front_log()}"
                )
        try:
            return self.get("/ready", timeout=2).status == 200
        except (OSError, http.client.HTTPException):
            return False

    @property
    def alive(self) -> bool:
        return self._uwsgi is not None and self._uwsgi.poll() is None

    def stop(self) -> None:
        """Ask uWSGI to end, then end it: its own process group, nothing else."""
        if self._front is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._front.pid, signal.SIGINT)
            self._await_end(self._front)
        if self._uwsgi is not None:
            if not self.stopping:
                self.begin_stop()
            self._await_end(self._uwsgi)

    def _await_end(self, process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._stubborn.append(f"{self!r} went on for {PATIENCE} s after a SIGINT")
        # Nobody of its group may outlive it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)

    def begin_stop(self) -> None:
        """Ask uWSGI to end, and do not wait: `stop` does.

        The master alone, which tells its workers: one that is told twice, as by Ctrl-C, exits at
        once, and on a busy machine in the middle of what it does at its end.
        """
        self._settle_before_end()
        if self.alive:
            self.signal(signal.SIGINT)

    def signal(self, signum: int) -> None:
        """Signal the master alone, as an operator would."""
        self.stopping = signum == signal.SIGINT
        os.kill(self._pid, signum)

    def signal_all(self, signum: int) -> None:
        """Signal all its processes, as a terminal does."""
        self.stopping = True
        os.killpg(self._pid, signum)

    def signal_front(self, signum: int) -> None:
        os.kill(self.front_pid, signum)

    @property
    def front_pid(self) -> int:
        assert self._front is not None
        return self._front.pid

    def wait_ended(self, patience: float = PATIENCE) -> int:
        assert self._uwsgi is not None
        return self._uwsgi.wait(patience)

    # What it says

    def log(self) -> str:
        try:
            return self.log_path.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def front_log(self) -> str:
        try:
            return self.front_log_path.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def new_log(self) -> str:
        """What was logged since the test began."""
        return self.log()[self._seen :]

    def allow_log(self, *patterns: str) -> None:
        """Say that this test provokes log lines that match, so that they are no complaint."""
        self._allowed += [re.compile(pattern) for pattern in patterns]

    def log_complaints(self) -> list[str]:
        """Lines since the last call that a healthy server would not have logged; and whether it
        had to be killed."""
        log = self.log()
        lines = log[self._seen :].splitlines()
        self._seen = len(log)
        allowed, self._allowed = [*self._allowed, BANNER], []
        stubborn, self._stubborn = self._stubborn, []
        return stubborn + [
            line
            for line in lines
            if COMPLAINT.search(line) and not any(pattern.search(line) for pattern in allowed)
        ]

    def stats(self) -> dict[str, Any]:
        """uWSGI's own statistics, which take no core of a worker."""
        # Refused while a master that reloads becomes another one.
        return _parsed(eventually(self._ask_stats, f"statistics of {self!r}"))

    def _ask_stats(self) -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            try:
                client.connect(str(self._stats_path))
                return b"".join(iter(lambda: client.recv(65536), b""))
            except (ConnectionError, FileNotFoundError):
                return b""

    def busy_cores(self) -> int:
        """How many requests uWSGI is serving now."""
        return _in_request(self.stats()["workers"])

    def open_connections(self) -> int:
        """How many accepted connections the workers hold, of requests and of WebSockets."""
        return _accepted(self.stats()["workers"])

    def busy(self) -> int:
        """How many WebSockets are open, between two HTTP requests."""
        workers = self.stats()["workers"]
        return max(_in_request(workers), _accepted(workers))

    def wait_idle(self, patience: float = PATIENCE) -> None:
        """Wait until there is no request or WebSocket any more."""
        eventually(lambda: self.busy() == 0, f"{self!r} to have no connection left", patience)

    @property
    def worker_pid(self) -> int:
        pid: int = self.stats()["workers"][0]["pid"]
        return pid

    def pids(self) -> set[int]:
        """The ids of all workers' processes."""
        return {worker["pid"] for worker in self.stats()["workers"]}

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.worker_pid}/fd"))

    def settled_descriptors(self) -> int:
        """How many descriptors the worker has once it has what it keeps: the file that it writes
        its statistics to is open a while after it serves."""

        def writes() -> bool:
            files = Path(f"/proc/{self.worker_pid}/fd").iterdir()
            return any(".stats" in _target(file) for file in files)

        eventually(writes, "the worker to write its statistics")
        return self.descriptors()

    def watched(self) -> int:
        """How many descriptors the worker's epolls hold, those that nobody waits for included."""
        directory = Path(f"/proc/{self.worker_pid}/fdinfo")
        return sum(entry.read_text().count("tfd:") for entry in directory.iterdir())

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.worker_pid}/task"))

    def rss(self) -> int:
        """The worker's resident memory in bytes."""
        pages = int(Path(f"/proc/{self.worker_pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu(self) -> float:
        """Seconds of CPU that the worker has used."""
        fields = Path(f"/proc/{self.worker_pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def cpu_share(self, seconds: float) -> float:
        """Which share of a processor the worker takes for so long."""
        before, began = self.cpu(), time.monotonic()
        time.sleep(seconds)
        return (self.cpu() - before) / (time.monotonic() - began)

    def close_wait(self) -> int:
        """Connections whose client has left and which the server still holds."""
        ports = {f"{port:04X}" for port in (self.port, self.inner_port)}
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(row[1][-4:] in ports and row[3] == CLOSE_WAIT for row in rows)

    # Talking to it

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def url(self, path: str) -> str:
        return f"{'wss' if self.tls else 'ws'}://{self.address}{path}"

    @property
    def origin(self) -> str:
        """Where a page of the app comes from, as a browser says it."""
        return f"{'https' if self.tls else 'http'}://{self.address}"

    def raw(self, path: str = "/echo", **kwargs: Any) -> RawClient:
        """A raw client on `path`, its opening handshake done."""
        client = self.tcp()
        try:
            client.handshake(path, **kwargs)
        except BaseException:
            client.close()
            raise
        return client

    def refused(self, path: str = "/echo", **kwargs: Any) -> Answer:
        """The HTTP answer to a handshake that must not succeed."""
        try:
            self.raw(path, **kwargs).close()
        except Refused as refused:
            return refused.answer
        raise AssertionError(f"{path} is a WebSocket")

    def tcp(self) -> RawClient:
        """A raw client that has connected, and said nothing yet."""
        return RawClient((self.host, self.port), PATIENCE, tls=self.tls, source=self.source)

    def connect(self, path: str = "/echo", **kwargs: Any) -> ClientConnection:
        """The `websockets` library's client on `path`."""
        kwargs.setdefault("compression", None)
        kwargs.setdefault("max_size", None)
        kwargs.setdefault("proxy", None)
        kwargs.setdefault("ssl", self.tls)
        for timeout in ("open_timeout", "close_timeout"):
            kwargs.setdefault(timeout, PATIENCE)
        return connect(self.url(path), **kwargs)

    def http(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = PATIENCE,
    ) -> Response:
        connection = self._http_connection(timeout)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Response(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def _http_connection(self, timeout: float) -> http.client.HTTPConnection:
        source = self.source and (self.source, 0)
        if self.tls is None:
            return http.client.HTTPConnection(self.host, self.port, timeout, source)
        return http.client.HTTPSConnection(
            self.host, self.port, timeout=timeout, source_address=source, context=self.tls
        )

    def get(self, path: str, timeout: float = PATIENCE, **headers: str) -> Response:
        return self.http("GET", path, None, headers, timeout)

    def record(self, token: str, patience: float = PATIENCE) -> Any:
        """What the app recorded under `token`, as soon as it has."""

        def look() -> list[Any]:
            found: list[Any] = json.loads(self.get(f"/records/{token}").body)
            return found

        return eventually(look, f"a record of {token!r}", patience)[0]

    def records(self, token: str) -> list[Any]:
        """All that the app has recorded under `token` by now."""
        found: list[Any] = json.loads(self.get(f"/records/{token}").body)
        return found


class Response:
    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.body[:200]!r}>"


if __name__ == "__main__":
    # `python -m tests.server gevent [front]` keeps a standard server for trying things by hand.
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        by_hand = Server(Path(place), *sys.argv[1:]).start()
        try:
            print(by_hand.address, flush=True)
            by_hand.wait_ended(3600)
        finally:
            by_hand.stop()
            print(by_hand.log())
