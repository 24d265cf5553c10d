"""What an idle connection costs: memory for each, and CPU for the heartbeats of all.

::

    pip install -e .[dev]                            # and a uWSGI with the engines
    python -m benchmarks.idle gevent
    python -m benchmarks.idle asyncio --connections 5000 --seconds 60 --ping-interval 25

One uWSGI worker with the tests' standard app, handlers in ``receive()``, and a client that only
answers pings. Each connection takes a descriptor of the worker, or two under threads, and one of
the client, which ``ulimit -n`` must allow: the default is what it does. Memory is the growth of the
worker's resident set from the first hundred connections to the last; a second figure adds the
kernel's share, which ``/proc/net/sockstat`` tells for all sockets of the machine, both ends of
these.
"""

from __future__ import annotations

import argparse
import os
import resource
import selectors
import tempfile
import time
from pathlib import Path

from tests.rawclient import PING, PONG, RawClient, frame
from tests.server import Server

WARM = 100


def main() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("engine", choices=["threads", "gevent", "asyncio"])
    parser.add_argument("--connections", type=int, default=min(10_000, (most - 200) // 2))
    parser.add_argument("--ping-interval", type=float, default=25)
    parser.add_argument("--seconds", type=float, default=100)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as place:
        server = Server(
            Path(place),
            arguments.engine,
            cores=arguments.connections + 10,
            config={"UWSGI_WEBSOCKET_PING_INTERVAL": arguments.ping_interval},
            options=["--listen", "1000"],
        )
        try:
            measure(server.start(), arguments)
        finally:
            server.stop()


def measure(server: Server, arguments: argparse.Namespace) -> None:
    clients = Clients()
    for _ in range(WARM):
        clients.add(server.raw())
    memory, kernel = server.rss(), kernel_memory()
    for index in range(arguments.connections - WARM):
        clients.add(server.raw())
        if index % 500 == 0:
            clients.answer_pings(0)
    clients.answer_pings(1)
    number = arguments.connections - WARM
    user, both = server.rss() - memory, server.rss() - memory + kernel_memory() - kernel
    print(
        f"{server.engine}: {arguments.connections} connections, "
        f"{user / number / 1024:.1f} KiB for each in the worker, "
        f"{both / number / 1024:.1f} KiB with the kernel's buffers"
    )
    begin, cpu, pings = time.monotonic(), server.cpu(), clients.pings
    clients.answer_pings(arguments.seconds)
    seconds = time.monotonic() - begin
    print(
        f"{server.engine}: {(server.cpu() - cpu) / seconds:.2%} CPU over {seconds:.0f} s with "
        f"{(clients.pings - pings) / seconds:.0f} pings a second"
    )


def kernel_memory() -> int:
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            return int(line.split()[-1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


class Clients:
    """Connections that answer pings, and do nothing else."""

    def __init__(self) -> None:
        self.pings = 0
        self._selector = selectors.DefaultSelector()

    def add(self, client: RawClient) -> None:
        self._selector.register(client.socket, selectors.EVENT_READ, client)

    def answer_pings(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            left = end - time.monotonic()
            for key, _ in self._selector.select(max(left, 0)):
                ping = key.data.read()
                assert ping.opcode == PING, ping
                key.data.send(frame(PONG, ping.payload))
                self.pings += 1
            if left <= 0:
                return


if __name__ == "__main__":
    main()
