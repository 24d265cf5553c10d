"""Reloads that replace workers one after another, or when code changes, with open WebSockets."""

from __future__ import annotations

import itertools
import os
import select
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.rawclient import RawClient, close_frame
from tests.server import PATIENCE, Server, eventually

#: Seconds in which HTTP answers after a reload. The bar is 5; a machine that also runs the rest of
#: the suite gets more, but less than what a handler that holds the worker would take (60).
AGAIN = 5.0 if os.environ.get("ENDURANCE") == "full" else PATIENCE

#: What tells clients of a stop, and of a reload.
TOLD = {1001, 1012}


def later(path: Path) -> None:
    """Modify a file, as a watcher of its time sees it."""
    modified = path.stat().st_mtime + 10
    os.utime(path, (modified, modified))


def command(server: Server, letter: str) -> None:
    """Write to the master's fifo."""
    with (server.directory / "fifo").open("w") as fifo:
        fifo.write(letter)


def workers(server: Server) -> set[int]:
    return {worker["pid"] for worker in server.stats()["workers"]}


def opened(server: Server, token: str, stack: ExitStack, number: int) -> list[RawClient]:
    clients = []
    for index in range(number):
        client = stack.enter_context(server.raw(f"/until-the-end/{token}-{index}"))
        client.echo("hello")
        clients.append(client)
    return clients


def all_told(clients: list[RawClient]) -> None:
    """Each client gets its Close when its worker's turn comes, answers it, and leaves."""

    def told(client: RawClient) -> None:
        assert client.read_close().code in TOLD
        client.send(close_frame(1000))
        assert client.ended()
        client.close()

    with ThreadPoolExecutor(len(clients)) as pool:
        list(pool.map(told, clients))


def replaced(server: Server, old: set[int], since: float) -> None:
    """All workers are others, HTTP answers and so do WebSockets."""
    eventually(lambda: server.get("/ready").status == 200, "HTTP to answer again")
    assert time.monotonic() - since < AGAIN
    eventually(lambda: not old & workers(server), "other workers")
    each_serves(server)
    with server.raw() as again:
        again.echo("again")


def each_serves(server: Server) -> None:
    """Each worker has answered: one that only starts would not hear the signal to end."""

    def answered() -> bool:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(server.get, ["/ready"] * 8))
        return all(worker["delta_requests"] for worker in server.stats()["workers"])

    eventually(answered, "each worker to serve")


def ended_well(server: Server, token: str, number: int) -> None:
    """The `finally` of each handler has run, once."""
    for index in range(number):
        eventually(
            lambda line=f"finally {token}-{index}\n": server.log().count(line) == 1,
            f"the finally block of handler {index}",
        )


@contextmanager
def http_that_goes_on(server: Server) -> Iterator[list[object]]:
    """Ask for a page without pause; what went wrong."""
    wrong: list[object] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                answer = server.get("/ready")
                if answer.status != 200:
                    wrong.append(answer)
            except OSError as error:
                wrong.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield wrong
    finally:
        done.set()
        asking.join()


def test_chain_reload(serve, engine: str, token: str, tmp_path) -> None:
    touched = tmp_path / "touched"
    touched.touch()
    options = ["--touch-chain-reload", str(touched), "--lazy-apps"]
    server = serve(engine, processes=2, options=options)
    old = workers(server)
    with ExitStack() as stack, http_that_goes_on(server) as wrong:
        clients = opened(server, token, stack, 10)
        later(touched)
        all_told(clients)
        since = time.monotonic()
        replaced(server, old, since)
        eventually(lambda: "chain reloading complete" in server.log(), "the chain to end")
    ended_well(server, token, 10)
    # One worker serves while the other is replaced.
    assert not wrong


def sent_away(client: ClientConnection, done: threading.Event) -> bool:
    """Stay until the server sends the client away, or all is over."""
    while not done.is_set():
        try:
            client.recv(timeout=0.05)
        except TimeoutError:
            continue
        except ConnectionClosed:
            return True
    return False


def test_clients_that_come_back_during_a_chain_reload(serve, engine: str) -> None:
    server = serve(engine, processes=2, options=["--lazy-apps", "--master-fifo", "fifo"])
    old = workers(server)
    connected, done = threading.Barrier(11), threading.Event()

    def stay() -> int:
        """Be connected, again and again until all is over; how often it was sent away."""
        for times in itertools.count():
            with server.connect() as client:
                client.send("here")
                assert client.recv() == "here"
                if not times:
                    connected.wait(PATIENCE)
                if not sent_away(client, done):
                    client.send("still here")
                    assert client.recv() == "still here"
                    return times
                assert client.close_code in TOLD
        raise AssertionError

    with ThreadPoolExecutor(10) as pool:
        staying = [pool.submit(stay) for _ in range(10)]
        connected.wait(PATIENCE)
        try:
            command(server, "c")
            eventually(lambda: "chain reloading complete" in server.log(), "the chain to end")
        finally:
            done.set()
        # Once, and again where it came back to a worker that was to go.
        assert min(future.result() for future in staying) >= 1
    assert not old & workers(server)
    each_serves(server)


def test_handlers_of_clients_that_do_not_answer_end(serve, engine: str, token: str) -> None:
    options = ["--lazy-apps", "--master-fifo", "fifo"]
    server = serve(engine, options=options, config={"TEST_TIMEOUT": 1})
    old = workers(server)
    with ExitStack() as stack:
        opened(server, token, stack, 10)
        command(server, "c")
        replaced(server, old, time.monotonic())
    ended_well(server, token, 10)


@pytest.mark.parametrize("letter", ["r", "w"])
def test_reloads_through_the_fifo(serve, engine: str, token: str, letter: str) -> None:
    server = serve(engine, processes=2, options=["--lazy-apps", "--master-fifo", "fifo"])
    old = workers(server)
    with ExitStack() as stack:
        clients = opened(server, token, stack, 10)
        command(server, letter)
        all_told(clients)
        replaced(server, old, time.monotonic())
    ended_well(server, token, 10)


def test_a_reload_of_workers_behind_the_router(serve, engine: str, token: str) -> None:
    options = ["--lazy-apps", "--master-fifo", "fifo"]
    server = serve(engine, "http", options=options)
    old = workers(server)
    with ExitStack() as stack, http_that_goes_on(server) as wrong:
        clients = opened(server, token, stack, 5)
        command(server, "w")
        for client in clients:
            assert client.read_close().code == 1012
            client.send(close_frame(1012))
            client.close()
        replaced(server, old, time.monotonic())
    # The router waits for the new worker.
    assert not wrong
    ended_well(server, token, 5)


def test_a_graceful_stop_says_that_it_is_for_good(serve, engine: str) -> None:
    server = serve(engine, options=["--master-fifo", "fifo"])
    with server.raw() as client:
        client.echo("hello")
        command(server, "q")
        server.stopping = True
        assert client.read_close().code == 1001
        client.send(close_frame(1001))
        assert client.ended()
    server.wait_ended()


def test_python_autoreload(serve, engine: str, token: str, tmp_path) -> None:
    module = tmp_path / "edited.py"
    module.touch()
    options = ["--python-autoreload", "1", "--pythonpath", str(tmp_path), "--import", "edited"]
    server = serve(engine, options=options)
    old = workers(server)
    with ExitStack() as stack:
        clients = opened(server, token, stack, 10)

        def edited() -> bool:
            # uWSGI's thread must have seen the module once to notice an edit.
            later(module)
            return bool(select.select([clients[0].socket], [], [], 1)[0])

        eventually(edited, "a reload after an edit")
        all_told(clients)
        replaced(server, old, time.monotonic())
    ended_well(server, token, 10)
