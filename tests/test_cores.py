"""A client that leaves gives its core back, whatever its handler is doing."""

from __future__ import annotations

import pytest

from tests.rawclient import opening
from tests.server import Server, eventually

INTERRUPTIBLE = pytest.mark.parametrize("engine", ["gevent", "asyncio", "asyncio-uvloop"])


@pytest.fixture
def small(engine: str, shared_server) -> Server:
    """A server of two cores."""
    return shared_server(engine, cores=2, config={"TEST_TIMEOUT": 0.2})


def settled(server: Server) -> int:
    """The worker's descriptors once two looks agree."""
    server.settled_descriptors()
    seen = [-1]

    def same() -> bool:
        seen.append(server.descriptors())
        return seen[-1] == seen[-2]

    eventually(same, "the number of descriptors to settle", interval=0.2)
    return seen[-1]


@pytest.mark.slow
@INTERRUPTIBLE
@pytest.mark.parametrize("way", ["abort", "close"])
def test_fifty_aborts_with_two_slots_leave_room_for_the_next(
    small: Server, token: str, way: str
) -> None:
    # Two to warm up: what the worker opens once, it has opened.
    descriptors = 0
    for index in range(52):
        client = small.raw(f"/blocked/{token}-{index}")
        assert client.message() == "blocked"
        getattr(client, way)()
        if index == 1:
            small.wait_idle()
            descriptors = settled(small)
    with small.raw() as client:
        client.echo("served")
        assert client.leave().code == 1000
    small.wait_idle()
    eventually(lambda: small.close_wait() == 0, "no connection in CLOSE_WAIT")
    eventually(lambda: small.descriptors() <= descriptors, f"{descriptors} descriptors again")
    assert small.threads() <= 4


@pytest.mark.slow
def test_aborts_with_two_slots_while_receiving(small: Server) -> None:
    for _ in range(2):
        small.raw("/echo").abort()
    small.wait_idle()
    descriptors = settled(small)
    for _ in range(50):
        small.raw("/echo").abort()
        small.raw("/quickstart").close()
    with small.raw() as client:
        client.echo("served")
    small.wait_idle()
    eventually(lambda: small.close_wait() == 0, "no connection in CLOSE_WAIT")
    eventually(lambda: small.descriptors() <= descriptors, f"{descriptors} descriptors again")


@pytest.mark.slow
def test_aborts_before_the_answer_with_two_slots(small: Server, token: str) -> None:
    small.raw("/echo").abort()
    small.wait_idle()
    descriptors = settled(small)
    for _ in range(50):
        client = small.tcp()
        client.send(opening("/echo"))
        client.abort()
    with small.raw() as client:
        client.echo("served")
    small.wait_idle()
    eventually(lambda: small.descriptors() <= descriptors, f"{descriptors} descriptors again")


def test_all_slots_can_be_taken_and_given_back(serve, engine: str) -> None:
    server = serve(engine, cores=8)
    for _ in range(3):
        clients = [server.raw() for _ in range(8)]
        assert server.busy() == 8
        for index, client in enumerate(clients):
            client.echo(str(index))
        for client in clients:
            client.leave()
        server.wait_idle()
    assert server.get("/ready").body == b"ready"


def test_more_connections_than_slots_wait_their_turn(small: Server) -> None:
    first, second = small.raw(), small.raw()
    third = small.tcp()
    third.send(opening("/return", small.address))
    first.leave()
    assert third.read_answer().status == 101
    assert third.message() == "bye"
    third.close()
    second.leave()


@pytest.mark.timeout(240)
def test_threads_and_memory_stay_where_they_were(serve, engine: str) -> None:
    server = serve(engine, cores=20)

    def cycle() -> None:
        clients = [server.raw("/echo") for _ in range(10)]
        for client in clients:
            client.binary(bytes(10_000))
        for index, client in enumerate(clients):
            assert len(client.message()) == 10_000
            client.abort() if index % 2 else client.leave()
        server.wait_idle()

    for _ in range(20):
        cycle()
    descriptors, threads, memory = settled(server), server.threads(), server.rss()
    for _ in range(80):
        cycle()
    eventually(lambda: server.descriptors() <= descriptors, f"{descriptors} descriptors again")
    assert server.threads() <= threads
    assert server.rss() - memory < 5 << 20
