"""A worker that stops or reloads tells its clients, and lets nobody wait."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from flask_uwsgi_websocket.connection.worker import Worker
from flask_uwsgi_websocket.servers.uwsgi import process as uwsgi_process
from tests.rawclient import close_frame
from tests.server import PATIENCE, Server, eventually, uwsgi_binary

pytestmark = pytest.mark.slow

#: Seconds for what must not wait for uWSGI's mercy (60 s).
SOON = PATIENCE
#: Of servers that go on after a reload, and are shared by those who ask for one.
LASTING = {"TEST_TIMEOUT": 1}


def test_what_fails_at_the_end_keeps_nothing_else_from_it(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []
    worker: Any = SimpleNamespace(at_end=[lambda: 1 / 0, lambda: done.append("the other")])
    Worker.run_at_end(worker)
    assert done == ["the other"]
    assert "goes on to its end" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_what_fails_in_a_hook_keeps_none_from_being_called(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    found = SimpleNamespace(atexit=lambda: done.append("the app's"))
    monkeypatch.setattr(uwsgi_process, "uwsgi", found)
    process = object.__new__(uwsgi_process.UWSGIProcess)
    process.at_exit(lambda: done.append("ours"))
    process.at_exit(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        found.atexit()
    assert done == ["ours", "the app's"]


@pytest.mark.parametrize(
    ("signum", "codes"), [("SIGINT", {1001}), ("SIGTERM", {1001, 1012}), ("SIGHUP", {1012})]
)
def test_a_worker_that_stops_says_so(
    serve, shared_server, engine: str, signum: str, codes: set[int]
) -> None:
    server = (serve if signum == "SIGINT" else shared_server)(engine, config=LASTING)
    with server.raw("/echo") as client, server.raw("/quickstart") as other:
        # Once they have answered the handlers are running.
        for each in (client, other):
            each.echo("hello")
        # uWSGI's SIGTERM to a master is a reload, unless --die-on-term.
        server.signal(getattr(signal, signum))
        assert client.read_close(SOON).code in codes
        assert other.read_close(SOON).code in codes
        for each in (client, other):
            each.send(close_frame(1001))
            assert each.ended(SOON)
    if signum == "SIGINT":
        server.wait_ended()
    else:
        eventually(lambda: server.get("/ready").status == 200, "HTTP to answer after the reload")
        with server.raw() as again:
            again.echo("again")


def test_a_hook_that_waits_before_uwsgi_serves(serve) -> None:
    """It runs gevent's hub before uWSGI watches for signals there."""
    server = serve("gevent", app="waiting_hook")
    with server.raw() as client:
        client.echo("hello")
        server.signal(signal.SIGINT)
        assert client.read_close(SOON).code == 1001
        client.send(close_frame(1001))
    server.wait_ended()


@pytest.mark.parametrize(("signum", "code"), [("SIGINT", 1001), ("SIGHUP", 1012)])
def test_async_mode_stops_once_its_clients_have_been_told(serve, signum: str, code: int) -> None:
    server = serve("async", config=LASTING)
    with server.raw() as client:  # after which uWSGI's own handlers serve again
        client.echo("hello")
    with server.raw() as client, server.raw("/quickstart") as deaf:
        for each in (client, deaf):
            each.echo("hello")
        old = server.worker_pid
        server.signal(getattr(signal, signum))
        for each in (client, deaf):
            assert each.read_close(SOON).code == code
        client.send(close_frame(code))
        assert client.ended(SOON)
        assert deaf.ended(SOON)
    if signum == "SIGINT":
        server.wait_ended()
    else:
        respawned(server, old)


@pytest.mark.parametrize("mode", ["threads", "asyncio"])
def test_sigquit_to_all_processes_is_a_stop(serve, mode: str) -> None:
    """As the unit of systemd that uWSGI's documentation has does it."""
    server = serve(mode)
    with server.raw() as client:
        client.echo("hello")
        os.kill(server.worker_pid, signal.SIGQUIT)
        client.echo("still here")
        server.signal(signal.SIGQUIT)
        server.stopping = True
        assert client.read_close(SOON).code == 1001
        client.send(close_frame(1001))
        assert client.ended(SOON)
    server.wait_ended()


def test_sigquit_without_a_master_ends_all_workers(serve) -> None:
    """Nobody would tell them later: a worker that went on would keep the port."""
    undumped = ["sh", "-c", 'ulimit -c 0; exec "$0" "$@"', uwsgi_binary()]
    server = serve("threads", processes=2, master=False, launcher=undumped)
    server.signal_all(signal.SIGQUIT)
    server.wait_ended()
    eventually(lambda: is_refused(server), "the other worker's end")


def is_refused(server: Server) -> bool:
    try:
        server.tcp().close()
    except ConnectionRefusedError:
        return True
    return False


def respawned(server: Server, old: int) -> None:
    server.settle(old)
    eventually(lambda: server.get("/ready").status == 200, "HTTP to answer again")
    with server.raw() as client:
        client.echo("again")


def reloads_twice(server: Server) -> None:
    """The second worker is told before uWSGI has its own handlers of signals there."""
    old = server.worker_pid
    os.kill(old, signal.SIGHUP)
    eventually(lambda: server.stats()["workers"][0]["respawn_count"] == 3, "the third worker")
    respawned(server, old)


#: What is not heeded holds the server for an hour.
NO_MERCY = ["--enable-threads", "--worker-reload-mercy", "3600"]


@pytest.mark.parametrize("cores", [1, 2])
def test_a_reload_after_our_hook(serve, cores: int) -> None:
    server = serve("threads", app="signalled_early", cores=cores, options=NO_MERCY)
    reloads_twice(server)
    server.settle()


@pytest.mark.parametrize("mode", ["threads", "gevent", "asyncio", "async"])
def test_a_reload_before_our_hook(serve, mode: str) -> None:
    reloads_twice(serve(mode, app="signalled_early", options=NO_MERCY, env={"FIRST": "1"}))


@pytest.mark.parametrize("mode", ["threads", "gevent", "asyncio"])
def test_workers_whose_fork_calls_python_serve_and_reload(serve, mode: str) -> None:
    """As SDKs that start threads want it: it is no fork of Python's for all that."""
    options = [*NO_MERCY, "--py-call-uwsgi-fork-hooks"]
    reloads_twice(serve(mode, app="signalled_early", options=options, env={"FIRST": "1"}))


def test_a_reload_before_the_app_is_imported(serve) -> None:
    lazy = ["--lazy-apps", "--shared-import", "flask_uwsgi_websocket"]
    reloads_twice(serve("asyncio", app="signalled_early", options=[*NO_MERCY, *lazy]))


@pytest.mark.parametrize("signum", ["SIGINT", "SIGHUP"])
def test_handlers_that_are_busy_elsewhere_do_not_hold_the_worker(
    serve, shared_server, engine: str, token: str, signum: str
) -> None:
    server = (serve if signum == "SIGINT" else shared_server)(engine, config=LASTING)
    old = server.worker_pid
    with ExitStack() as stack:
        for index in range(10):
            client = stack.enter_context(server.raw(f"/blocked/{token}-{index}"))
            assert client.message() == "blocked"
        server.signal(getattr(signal, signum))
        # uWSGI alone would wait for its mercy: 60 s.
        if signum == "SIGINT":
            server.wait_ended(SOON)
        else:
            respawned(server, old)


def test_all_clients_are_told(shared_server, engine: str, token: str) -> None:
    server = shared_server(engine, config=LASTING)
    old = server.worker_pid
    with ExitStack() as stack:
        clients = [stack.enter_context(server.raw(f"/room/{token}")) for _ in range(10)]
        for client in clients:
            assert client.message() == "joined"
        server.signal(signal.SIGHUP)
        for client in clients:
            assert client.read_close(SOON).code == 1012
            client.send(close_frame(1012))
            assert client.ended(SOON)
    respawned(server, old)


def test_touch_reload(serve, engine: str, tmp_path) -> None:
    touched = tmp_path / "touched"
    touched.touch()
    server = serve(engine, options=["--touch-reload", str(touched)])
    old = server.worker_pid
    with server.raw() as client:
        client.echo("hello")
        os.utime(touched, (later := time.time() + 10, later))
        assert client.read_close().code == 1012
        client.send(close_frame(1012))
        assert client.ended(SOON)
    respawned(server, old)


def test_a_worker_that_is_killed_is_replaced(shared_server, engine: str) -> None:
    server = shared_server(engine, config=LASTING)
    old = server.worker_pid
    with ExitStack() as stack:
        clients = [stack.enter_context(server.raw()) for _ in range(20)]
        os.kill(old, signal.SIGKILL)
        for client in clients:
            assert client.ended(SOON)
    respawned(server, old)
    server.allow_log("DAMN")


@pytest.mark.parametrize("signum", ["SIGTERM", "SIGHUP"])
def test_without_a_master_each_signal_is_for_good(serve, engine: str, signum: str) -> None:
    server = serve(engine, master=False)
    with server.raw() as client:
        client.echo("hello")
        server.signal(getattr(signal, signum))
        assert client.read_close(SOON).code == 1001
    server.stopping = True
    server.wait_ended(SOON)


def test_a_stop_during_a_reload(serve, engine: str) -> None:
    # The reload waits for the request, for 60 s at most. The stop does not.
    server = serve(engine, app="background")
    with server.tcp() as slow, server.raw("/ticks") as client:
        slow.send(b"GET /slow HTTP/1.1\r\nHost: here\r\n\r\n")
        eventually(lambda: slow_runs(server), "the request to run")
        server.signal(signal.SIGHUP)
        assert client.read_close(SOON).code == 1012
        client.send(close_frame(1012))
        server.signal(signal.SIGINT)
        server.wait_ended(SOON)


def slow_runs(server: Server) -> bool:
    cores = server.stats()["workers"][0]["cores"]
    return any("REQUEST_URI=/slow" in core.get("vars", ()) for core in cores)


def test_a_stop_without_a_websocket(serve, engine: str) -> None:
    # The hooks must not need a WebSocket to have been there.
    server = serve(engine)
    server.signal(signal.SIGINT)
    server.wait_ended(SOON)


@pytest.mark.parametrize(("signum", "code"), [("SIGINT", 1001), ("SIGHUP", 1012)])
def test_processes_without_threads(serve, signum: str, code: int) -> None:
    server = serve("single", processes=2)
    for _ in range(2):  # uWSGI's own handlers serve between two WebSockets
        with server.raw() as client:
            client.echo("hello")
            client.leave()
    old = [worker["pid"] for worker in server.stats()["workers"]]
    with server.raw() as client:
        client.echo("hello")
        # The other worker is in C by then: uWSGI's handlers are not made for its Python.
        eventually(lambda: server.busy_cores() == 1, "the other WebSockets to have ended")
        server.signal(getattr(signal, signum))
        assert client.read_close(SOON).code == code
        client.send(close_frame(code))
        assert client.ended(SOON)
    if signum == "SIGINT":
        server.wait_ended(SOON)
    else:
        eventually(
            lambda: not set(old) & {worker["pid"] for worker in server.stats()["workers"]},
            "other workers",
        )
