"""What a reload costs when thousands of clients come back at a time, each to where it was.

::

    pip install -e .[dev]                            # and a uWSGI with the engines
    python -m benchmarks.storm gevent
    python -m benchmarks.storm asyncio --clients 5000 --rooms 50 --seconds 5 --redis --chain

Clients that resume are in kept rooms, to which messages are sent all the time. uWSGI is told to
reload; each client is closed with 1012, waits at random for up to so many seconds, as ``rooms.js``
does, and comes back. Meanwhile another process asks for a page by HTTP, 50 times a second, on a
connection of its own each time, and notes how long each answer takes from when it should have been
asked. What counts is the time from the first client that is back to the last.

Each connection takes a descriptor of the worker and one of the client, which ``ulimit -n`` must
allow.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import multiprocessing
import random
import resource
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

from flask_uwsgi_websocket import Publisher, RoomError
from tests.redis_servers import RedisServer
from tests.resumers import Connection, Resumer, Truth
from tests.server import Server

#: Handshakes at a time when all connect at first.
_AT_A_TIME = 50
#: Seconds between two questions by HTTP.
_PAUSE = 0.02
#: Seconds for an answer by HTTP.
_PATIENCE = 30
#: Messages a second, to all rooms together.
_RATE = 100


def main() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("engine", choices=["threads", "gevent", "asyncio"])
    parser.add_argument("--clients", type=int, default=5000)
    parser.add_argument("--rooms", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--redis", action="store_true", help="in place of the local backplane")
    parser.add_argument("--chain", action="store_true", help="reload one worker after another")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        redis = RedisServer(Path(place)).start() if arguments.redis else None
        url = redis.url if redis else f"local://{place}/rooms"
        server = Server(
            Path(place) / "server",
            arguments.engine,
            app="chaos",
            processes=arguments.processes,
            cores=arguments.clients + 100,
            config={"UWSGI_WEBSOCKET_BACKPLANE": url},
            options=["--listen", "4096", "--lazy-apps", "--master-fifo", f"{place}/fifo"],
        )
        try:
            with Publisher(url, prefix="chaos") as publisher:
                storm = Storm(server.start(), publisher, arguments)
                asyncio.run(storm.run(lambda: reload(server, Path(place) / "fifo", arguments)))
        finally:
            server.stop()
            if redis is not None:
                redis.kill()


def reload(server: Server, fifo: Path, arguments: argparse.Namespace) -> None:
    if arguments.chain:
        fifo.write_text("c")
    else:
        server.signal(signal.SIGHUP)


class Storm:
    def __init__(self, server: Server, publisher: Publisher, arguments: argparse.Namespace) -> None:
        self._server, self._publisher, self._arguments = server, publisher, arguments
        self.truth = Truth()
        self._clients = [
            Resumer(f"client {n}", self.truth, f"room{n % arguments.rooms}")
            for n in range(arguments.clients)
        ]
        self._gate = asyncio.Semaphore(_AT_A_TIME)
        self._over = threading.Event()
        self._sent = 0

    async def run(self, reload: Callable[[], None]) -> None:
        connections = await asyncio.gather(*map(self._connect_first, self._clients))
        print(f"{len(connections)} clients are there")
        sender = threading.Thread(target=self._send)
        sender.start()
        await asyncio.sleep(1)
        with Prober(self._server) as prober:
            begun = time.monotonic()
            reload()
            back = sorted(await asyncio.gather(*map(self._come_back, self._clients, connections)))
            self._over.set()
            await asyncio.sleep(1)
        sender.join()
        self._report(begun, back, prober.times)

    async def _connect_first(self, client: Resumer) -> Connection:
        async with self._gate:
            while True:
                connection = await self._connect(client)
                if connection is not None:
                    return connection

    async def _connect(self, client: Resumer) -> Connection | None:
        """Connect, and wait until it is in its room; None where that fails."""
        client.begin()
        connection = Connection(client, self._server)
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: connection, self._server.host, self._server.port)
        except OSError:
            return None
        while not client.is_in:
            if connection.over.is_set():
                return None
            connection.news.clear()
            await connection.news.wait()
        return connection

    async def _come_back(self, client: Resumer, connection: Connection) -> float:
        """Be away for a while when it is closed; return when it was back."""
        await connection.over.wait()
        await asyncio.sleep(random.uniform(0, self._arguments.seconds))
        while await self._connect(client) is None:
            self.truth.counters["failed attempts"] += 1
            await asyncio.sleep(random.uniform(0.5, 1))
        return time.monotonic()

    def _send(self) -> None:
        begun = time.monotonic()
        while not self._over.wait(max(0, begun + self._sent / _RATE - time.monotonic())):
            with suppress(RoomError):
                room = self._sent % self._arguments.rooms
                self._publisher.to(f"room{room}").send(f"message {self._sent}")
            self._sent += 1

    def _report(self, begun: float, back: list[float], asked: list[tuple[float, float]]) -> None:
        meanwhile = [took for when, took in asked if back[0] <= when <= back[-1]]
        counters = Counter(self.truth.counters)
        engine = self._server.engine
        print(
            f"{engine}: {len(back)} clients were back {back[0] - begun:.1f} to "
            f"{back[-1] - begun:.1f} s after the signal; {dict(counters)}"
        )
        print(f"{engine}: HTTP meanwhile: {quantiles(meanwhile)}")
        print(f"{engine}: HTTP from the signal on: {quantiles([took for _, took in asked])}")
        for wrong in self.truth.wrong[:5]:
            print("WRONG:", wrong)


def quantiles(times: list[float]) -> str:
    ordered = sorted(times)
    parts = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "worst": 1}
    found = {
        name: ordered[min(int(len(ordered) * q), len(ordered) - 1)] for name, q in parts.items()
    }
    text = ", ".join(f"{name} {seconds * 1000:.0f} ms" for name, seconds in found.items())
    return f"{text} of {len(ordered)} requests"


class Prober:
    """Asks for a page again and again, in a process of its own."""

    def __init__(self, server: Server) -> None:
        self.times: list[tuple[float, float]] = []
        self._here, there = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(
            target=probe, args=(server.host, server.port, there)
        )

    def __enter__(self) -> Prober:
        self._process.start()
        self._here.recv()
        return self

    def __exit__(self, *error: object) -> None:
        self._here.send("enough")
        self.times = self._here.recv()
        self._process.join()


def probe(host: str, port: int, pipe: Pipe) -> None:
    times: list[tuple[float, float]] = []
    threads = []

    def ask(due: float) -> None:
        connection = http.client.HTTPConnection(host, port, timeout=_PATIENCE)
        with suppress(OSError):  # which counts as the time until then
            connection.request("GET", "/ready")
            assert connection.getresponse().read() == b"ready"
        connection.close()
        times.append((due, time.monotonic() - due))

    pipe.send("ready")
    due = time.monotonic()
    while not pipe.poll(max(0, due - time.monotonic())):
        threads.append(threading.Thread(target=ask, args=(due,)))
        threads[-1].start()
        due += _PAUSE
    for thread in threads:
        thread.join()
    pipe.send(times)


if __name__ == "__main__":
    main()
