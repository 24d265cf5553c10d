"""A handler that goes on as if its connection had not ended harms nobody, and ends.

In 0.6 `msg = ws.receive(); if not msg: continue` was right: many apps still have it.
"""

from __future__ import annotations

import signal
from contextlib import ExitStack

import pytest

from tests.conftest import ENGINES, ServerFactory
from tests.rawclient import RawClient
from tests.server import Server, eventually

WAYS = ("receive", "receive_with_timeout", "receive_json", "iterate", "poll")


@pytest.fixture(params=[*ENGINES, "async"])
def server(request: pytest.FixtureRequest, shared_server: ServerFactory) -> Server:
    return shared_server(request.param, app="heedless")


def echoes(client: RawClient) -> None:
    client.echo("1")


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_is_told_twice_and_then_ended(server: Server, way: str, token: str) -> None:
    with server.raw(f"/heedless/{way}/{token}") as client:
        if (server.engine, way) != ("async", "poll"):  # there only what waits lets others run
            echoes(client)
        client.close()
    seen = server.record(token)
    assert seen["nones"] <= 2
    assert seen["error"] == "ConnectionClosed"
    server.wait_idle()


def test_a_class_whose_on_close_goes_on_receiving(server: Server) -> None:
    with server.raw("/server") as client:
        echoes(client)
        client.leave()
    server.wait_idle()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("path", ["/heedless/poll/x", "/timeout-zero"])
def test_a_handler_that_polls_lets_others_run(
    shared_server: ServerFactory, engine: str, path: str
) -> None:
    server = shared_server(engine, app="heedless")
    with server.raw(path) as client:
        echoes(client)
        for _ in range(20):
            assert server.get("/ready").body == b"ready"
        echoes(client)


@pytest.mark.parametrize("engine", ENGINES)
def test_one_that_swallows_all_exceptions_harms_nobody(serve: ServerFactory, engine: str) -> None:
    server = serve(engine, app="heedless", config={"TEST_TIMEOUT": 4})
    for way in WAYS[:4] if engine == "asyncio" else WAYS:  # recv_nb cannot wait there
        with server.raw(f"/swallow/{way}") as client:
            echoes(client)
    eventually(lambda: server.cpu_share(1) < 0.2, "such handlers to pause")
    assert server.get("/ready").body == b"ready"
    server.raw("/send-for-ever").close()
    for _ in range(20):
        assert server.get("/ready").body == b"ready"
    server.signal(signal.SIGINT)
    server.wait_ended()


@pytest.mark.parametrize("engine", ENGINES)
def test_those_hold_no_reload(serve: ServerFactory, engine: str) -> None:
    server = serve(engine, app="heedless", config={"TEST_TIMEOUT": 1})
    old = server.worker_pid
    with ExitStack() as stack:
        for path in ("/swallow/receive", "/swallow/iterate", "/send-for-ever"):
            client = stack.enter_context(server.raw(path))
            client.send(b"")
        server.signal(signal.SIGHUP)
        server.settle(old)


@pytest.mark.parametrize("engine", ["gevent", "asyncio"])
def test_those_are_interrupted(serve: ServerFactory, engine: str) -> None:
    server = serve(engine, app="heedless", config={"TEST_TIMEOUT": 0.5})
    for path in ("/swallow/receive", "/swallow/iterate", "/send-for-ever"):
        server.raw(path).abort()
    server.wait_idle()
