"""Background tasks, and functions that start with a worker."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter

import pytest
from flask import Flask

from flask_uwsgi_websocket import AsyncioWebSocket, GeventWebSocket, WebSocket
from tests.conftest import ENGINES
from tests.server import Server, eventually


def told(server: Server, what: str) -> list[int]:
    """The processes that have told something in the log, each time."""
    return [int(pid) for pid in re.findall(rf"<{what} (\d+)>", server.log())]


def workers(server: Server) -> list[int]:
    return [worker["pid"] for worker in server.stats()["workers"] if worker["pid"]]


def all_started(server: Server) -> None:
    """Each worker of now has started the function, once."""

    def each() -> bool:
        started = Counter(told(server, "started"))
        return all(started[pid] == 1 for pid in workers(server))

    eventually(each, "each worker to start the function")


def elected(server: Server, number: int) -> list[int]:
    """The processes that have been elected so far: as many as that."""
    for what in ("elected", "also"):
        eventually(lambda what=what: len(told(server, what)) >= number, f"election {number}")
    assert told(server, "elected") == told(server, "also")  # both functions run in the same one
    return told(server, "elected")


def test_each_worker_and_one_of_them(serve, engine: str) -> None:
    server = serve(engine, app="background", processes=3)
    all_started(server)
    # Nobody has opened a WebSocket yet. What a worker sends reaches its own clients.
    with server.raw("/ticks") as client:
        assert int(client.message().split()[1]) in workers(server)
    (first,) = elected(server, 1)
    assert first in workers(server)

    os.kill(first, signal.SIGKILL)
    assert first not in elected(server, 2)[1:]
    eventually(lambda: first not in workers(server), "the worker to be replaced")
    all_started(server)
    server.allow_log("DAMN")

    before = set(workers(server))
    server.signal(signal.SIGHUP)
    eventually(lambda: not before & set(workers(server)), "other workers")
    all_started(server)
    assert before <= set(told(server, "ended"))  # they were stopped, and did not just vanish
    assert elected(server, 3)[2] in workers(server)


def instances(server: Server, workers: int) -> set[str]:
    """The instances that so many workers say they are of."""
    found = set()

    def all_told() -> bool:
        found.update(re.findall(r"<worker (\d+) of (\d+-\d+) is (\d+)>", server.log()))
        return len(found) == workers

    eventually(all_told, f"{workers} workers to tell their instance")
    assert {number for number, _, _ in found} == {"1", "2"}
    return {instance for _, instance, _ in found}


@pytest.mark.parametrize("options", [[], ["--lazy-apps"]])
def test_all_workers_know_their_instance(serve, options: list[str]) -> None:
    server = serve("threads", app="background", processes=2, options=options)
    (instance,) = instances(server, 2)
    server.signal(signal.SIGHUP)
    assert instances(server, 4) == {instance}
    assert instances(serve("threads", app="background", processes=2), 2) != {instance}


def test_lazy_apps(serve, engine: str) -> None:
    server = serve(engine, app="background", processes=2, options=["--lazy-apps"])
    all_started(server)
    (first,) = elected(server, 1)
    assert first in workers(server)


def test_neither_mules_nor_spoolers(serve) -> None:
    server = serve("threads", app="background", options=["--mule", "--spooler", "."])
    all_started(server)
    assert told(server, "started") == elected(server, 1) == workers(server)


def test_without_a_master(serve, engine: str) -> None:
    server = serve(engine, app="background", master=False)
    for what in ("started", "elected", "also"):
        eventually(lambda what=what: len(told(server, what)) == 1, what)


@pytest.mark.parametrize("by", ["view", "handler", "thread"])
def test_tasks(shared_server, engine: str, token: str, by: str) -> None:
    server = shared_server(engine, app="background")
    if by == "handler":
        server.raw(f"/handler/{token}").abort()
    else:
        assert server.get(f"/{by}/{token}").body == b"started"
    assert server.record(token) == {"by": by, "contexts": [False, False]}


@pytest.mark.parametrize("engine", [*ENGINES, "async"])
def test_a_handler_that_sleeps_lets_others_run(shared_server, engine: str) -> None:
    server = shared_server(engine, app="background")
    with server.raw("/sleep") as first, server.raw("/sleep") as second:
        server.get("/release")
        for client in (first, second):
            while (message := client.message()) != "released":
                assert message.startswith("tick")


def test_an_exception_is_logged(shared_server, engine: str) -> None:
    server = shared_server(engine, app="background")
    server.allow_log("Traceback")
    server.get("/fail")
    eventually(lambda: "ValueError: in the background" in server.new_log(), "the traceback")
    assert "ERROR in background: Exception in the background work fail" in server.new_log()
    assert not told(server, "signalled")
    assert server.get("/ready").status == 200


def test_a_stop_is_not_held_up(serve, engine: str) -> None:
    server = serve(engine, app="background", config={"TEST_TIMEOUT": 1})
    for signum in (signal.SIGHUP, signal.SIGINT):
        server.get("/go_on")
        server.wait_idle()  # uWSGI does not wait for threads while a request runs
        old = server.worker_pid
        began = time.monotonic()
        server.signal(signum)
        if signum == signal.SIGINT:
            server.wait_ended()
        else:
            server.settle(old)
            eventually(lambda: server.get("/ready").status == 200, "it to serve")
        assert time.monotonic() - began < 20  # not uWSGI's mercy of 60
        assert old in told(server, "ended")


@pytest.mark.parametrize("mode", ["threads", "single", "gevent", "asyncio"])
def test_work_ends_though_a_request_runs(serve, mode: str) -> None:
    # uWSGI exits at once, without its hooks, when a stop meets a request in a thread of its own.
    server = serve(mode, app="background", processes=2, env={"TEST_END_TIME": "1"})
    all_started(server)
    time.sleep(1.5)  # a thread is not ready for it before
    with server.tcp() as slow:
        slow.send(b"GET /slow HTTP/1.1\r\nHost: here\r\n\r\n")
        eventually(lambda: server.busy_cores() == 1, "the request to run")
        old = workers(server)
        server.signal(signal.SIGINT)
        server.wait_ended(15)
    assert sorted(told(server, "ended")) == sorted(old)


def test_processes_without_threads(serve) -> None:
    server = serve("single", app="background", processes=2)
    all_started(server)
    before = set(workers(server))
    with server.raw("/ticks") as client:
        assert client.message()
        client.leave()
    server.signal(signal.SIGHUP)
    eventually(lambda: not before & set(workers(server)), "other workers")
    assert before <= set(told(server, "ended"))
    eventually(lambda: server.get("/ready").status == 200, "the others to serve")
    all_started(server)


def test_while_the_app_is_imported_it_is_too_early(tmp_path) -> None:
    server = Server(tmp_path, "threads", app="background", env={"TEST_EARLY": "1"})
    try:
        with pytest.raises(ProcessLookupError):
            server.start()
        assert "is lost when uWSGI forks its workers: start it in a function decorated" in (
            server.log()
        )
    finally:
        server.stop()


async def asynchronous() -> None: ...


def plain() -> None: ...


@pytest.mark.parametrize("extension", [WebSocket, GeventWebSocket])
def test_coroutine_functions_are_for_asyncio(extension) -> None:
    websocket = extension()
    for start in (websocket.on_worker_start, websocket.start_background_task):
        with pytest.raises(
            TypeError, match=r"asynchronous is a coroutine function: .* use Asyncio"
        ):
            start(asynchronous)


def test_asyncio_is_for_coroutine_functions() -> None:
    websocket = AsyncioWebSocket()
    for start in (websocket.on_worker_start, websocket.start_background_task):
        with pytest.raises(TypeError, match=r"plain is a plain function: .* asyncio\.to_thread"):
            start(plain)


@pytest.mark.parametrize("extension", [WebSocket, GeventWebSocket, AsyncioWebSocket])
def test_with_the_test_client(extension) -> None:
    app = Flask(__name__)
    app.testing = True
    app.config["UWSGI_WEBSOCKET_AGGRESSIVE_PATCH"] = False
    websocket = extension(app)
    seen = []
    if extension is AsyncioWebSocket:

        @websocket.on_worker_start(once=True)
        async def start() -> None:
            await websocket.sleep(0)
            seen.append("started")

        @websocket.route("/")
        async def handler(ws) -> None:
            while len(seen) < 1:
                await websocket.sleep(0.01)
            await ws.send(seen[0])

    else:

        @websocket.on_worker_start(once=True)
        def start_blocking() -> None:
            websocket.sleep(0)
            seen.append("started")

        @websocket.route("/")
        def blocking_handler(ws) -> None:
            while len(seen) < 1:
                websocket.sleep(0.01)
            ws.send(seen[0])

    for _ in range(2):
        with websocket.test_client().connect("/") as connection:
            assert connection.receive(10) == "started"
    assert seen == ["started"]
