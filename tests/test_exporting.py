"""What a collector has of a worker that ended, and what a worker suffers from one that hangs."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.collector import Collector, collecting
from tests.conftest import ENGINES
from tests.server import PATIENCE, Server, eventually

pytestmark = pytest.mark.slow

#: Spans are sent for no other reason than the end of a worker, and nobody gives up soon.
SENDING = {
    "OTEL_BSP_SCHEDULE_DELAY": "600000",  # ms
    "OTEL_METRIC_EXPORT_INTERVAL": "500",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "600",  # s
}
SOON = {**SENDING, "OTEL_BSP_SCHEDULE_DELAY": "100"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def echo(client: Any) -> None:
    client.send("x")
    assert client.recv(PATIENCE) == "x"


class Clients:
    """Clients that are connected to both workers of a server."""

    def __init__(self, server: Server, stack: ExitStack) -> None:
        self.by_worker: Counter[str] = Counter()
        self.open: list[Any] = []
        while len(self.by_worker) < 2 or len(self.open) < 4:
            client = stack.enter_context(server.connect("/echo"))
            self.open.append(client)
            self.by_worker[str(client.recv(PATIENCE))] += 1
            echo(client)

    def wait_for_close(self, code: int) -> None:
        for client in self.open:
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(PATIENCE)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == code

    def are_served(self) -> bool:
        return any(os.path.exists(f"/proc/{pid}") for pid in self.by_worker)


def has_all(collector: Collector, clients: Clients) -> bool:
    """Whether the spans and metrics of all of them have arrived, from the workers that had them."""
    spans = {pid: len(spans) for pid, spans in list(collector.spans.items())}
    names = ("accepted", "closed", "connection.duration")
    found = [spans, *(collector.values(name) for name in names)]
    return all(each.get(pid) == n for each in found for pid, n in clients.by_worker.items())


@pytest.mark.parametrize("engine", [*ENGINES, "async"])
def test_the_end_of_a_worker(
    serve: Callable[..., Server], engine: str, collector: Collector
) -> None:
    """It sends all that is left. A collector that hangs holds up neither the end nor a message."""
    server = serve(
        engine,
        app="exporting",
        processes=2,
        options=["--enable-threads"],
        env={**SENDING, **collector.environment},
    )
    with ExitStack() as stack:
        clients = Clients(server, stack)
        server.signal(signal.SIGHUP)
        clients.wait_for_close(1012)
        eventually(lambda: not clients.are_served(), "the workers to end")
        eventually(lambda: has_all(collector, clients), f"all of {clients.by_worker}")
    with ExitStack() as stack:
        clients = Clients(server, stack)
        collector.answers.clear()
        before = collector.asked
        eventually(lambda: collector.asked >= before + 2, "both workers to wait for it")
        for client in clients.open:
            echo(client)
        server.settle()
        server.signal(signal.SIGINT)
        clients.wait_for_close(1001)
        eventually(lambda: not clients.are_served(), "the workers to end")


def test_the_suspend_engine_sends_while_connections_are_open(
    serve: Callable[..., Server], collector: Collector
) -> None:
    """Though threads hardly run there."""
    server = serve(
        "async",
        app="exporting",
        options=["--enable-threads"],
        env={**SOON, **collector.environment},
    )
    with server.connect("/echo") as open_client:
        pid = open_client.recv(PATIENCE)
        with server.connect("/echo") as client:
            client.recv(PATIENCE)
            echo(client)
        eventually(lambda: len(collector.spans.get(pid, ())) == 1, "the span of what has ended")
        eventually(lambda: collector.values("accepted").get(pid) == 2, "the metrics of both")


@pytest.mark.parametrize("engine", ["threads", "asyncio"])
def test_an_sdk_that_is_there_before_the_fork(
    serve: Callable[..., Server], engine: str, collector: Collector
) -> None:
    """It works where uWSGI tells Python of the fork."""
    server = serve(
        engine,
        app="exporting",
        processes=2,
        config={"TEST_EARLY": True},
        options=["--enable-threads", "--py-call-osafterfork"],
        env={**SOON, **collector.environment},
    )
    with ExitStack() as stack:
        Clients(server, stack)
        eventually(lambda: len(collector.values("accepted")) >= 2, "both workers to tell theirs")
    eventually(lambda: len(collector.spans) == 2, "spans of both")
