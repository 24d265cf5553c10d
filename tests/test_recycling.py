"""A worker that uWSGI's options have replaced: its clients are told, and requests are answered."""

from __future__ import annotations

import signal
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.conftest import ENGINES
from tests.rawclient import CLOSE, RawClient, close_frame
from tests.server import Response, Server, eventually
from tests.test_reload import http_that_goes_on

on_each_engine = pytest.mark.parametrize("engine", ENGINES)

#: So that tests need not wait for uWSGI's ten seconds.
SOON = ["--min-worker-lifetime", "0"]


def worker_of(client: RawClient) -> int:
    return int(client.message())


def told(client: RawClient) -> None:
    """The client hears that another worker follows, and leaves."""
    assert client.read_close(15).code == 1012
    client.send(close_frame(1012))
    assert client.ended(10)
    client.close()  # nobody waits for its end any more


def next_worker(server: Server) -> int | None:
    """Return who serves a new WebSocket; None where it came while uWSGI was just stopping."""
    with server.raw("/worker") as client:
        first = client.read()
        if first.opcode == CLOSE:
            assert first.code == 1012
            return None
        return int(first.payload)


def replaced(server: Server, old: int) -> None:
    """A WebSocket finds another worker, which stays."""
    assert eventually(lambda: next_worker(server), "a worker that stays") != old
    eventually(lambda: old not in {w["pid"] for w in server.stats()["workers"]}, "the old to end")


@on_each_engine
@pytest.mark.parametrize("cause", ["reload", "max-requests"])
def test_requests_in_flight_are_answered(serve, engine: str, cause: str) -> None:
    options = ["--max-requests", "12", *SOON] if cause == "max-requests" else []
    server = serve(engine, app="recycling", options=options)
    with (
        ThreadPoolExecutor(15) as pool,
        server.raw("/worker") as client,
        server.tcp() as upload,
    ):
        old = worker_of(client)
        asked: list[Future[Response]] = [
            pool.submit(server.get, path) for path in ("/slow", "/slow", "/stream")
        ]
        upload.send(b"POST /upload HTTP/1.0\r\nHost: x\r\nContent-Length: 10\r\n\r\nfirst")
        eventually(lambda: server.busy_cores() >= len(asked) + 1, "the requests to run")
        if cause == "reload":
            server.signal(signal.SIGHUP)
        # What the old worker does not take any more waits for the new one.
        others = [pool.submit(server.get, "/ready") for _ in range(12)]
        told(client)
        upload.send(b"-last")
        answer = upload.read_answer()
        assert (answer.status, answer.body) == (200, b"first-last")
        bodies = [future.result().body for future in asked]
        assert bodies == [b"slow", b"slow", b"01234"]
        assert {future.result().status for future in others} == {200}
    replaced(server, old)


@on_each_engine
def test_handlers_that_sleep_do_not_cut_requests(serve, engine: str) -> None:
    server = serve(engine, app="recycling", config={"TEST_TIMEOUT": 0.5})
    with ThreadPoolExecutor(1) as pool, server.raw("/sleep") as client:
        old = worker_of(client)
        slow = pool.submit(server.get, "/slow")
        eventually(lambda: server.busy_cores() > (engine == "threads"), "the request to run")
        server.signal(signal.SIGHUP)
        assert client.read_close(15).code == 1012
        assert slow.result().body == b"slow"
    replaced(server, old)


@on_each_engine
def test_a_lifetime(serve, engine: str) -> None:
    options = ["--max-worker-lifetime", "3", "--max-worker-lifetime-delta", "60", *SOON]
    server = serve(engine, app="recycling", processes=2, options=options)
    first = server.worker_pid
    with ExitStack() as stack, http_that_goes_on(server) as wrong:
        workers: dict[int, RawClient] = {}
        while first not in workers:
            client = stack.enter_context(server.raw("/worker"))
            workers[worker_of(client)] = client
        told(workers[first])
        replaced(server, first)
    assert not wrong


@on_each_engine
def test_memory_that_websockets_take(serve, engine: str) -> None:
    taken(
        serve(engine, app="recycling", processes=2, options=["--reload-on-rss", "200", *SOON]),
        "use 200",
    )


def test_address_space_that_websockets_take(serve) -> None:
    server = serve(
        "asyncio", app="recycling", processes=2, options=["--reload-on-as", "6000", *SOON]
    )
    taken(server, "reserve 6000")


def taken(server: Server, message: str) -> None:
    with server.raw("/worker") as client, http_that_goes_on(server) as wrong:
        old = worker_of(client)
        client.text(message)
        told(client)
        replaced(server, old)
    assert not wrong
