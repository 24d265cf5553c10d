"""The other ways to run uWSGI: processes, lazy apps, no master, green threads, uvloop."""

from __future__ import annotations

import os
import time

import pytest

from flask_uwsgi_websocket.servers.uwsgi.request import devnull
from tests.rawclient import PING
from tests.server import Server, eventually


def works(server: Server) -> None:
    """Echo with both clients, HTTP between, more than one connection."""
    with server.raw() as raw, server.connect() as client:
        for size in (0, 1, 126, 70_000):
            raw.text("x" * size)
            client.send(b"y" * size)
            assert client.recv(30) == b"y" * size
            assert raw.message() == "x" * size
        assert server.get("/both").body == b"http GET"
        assert raw.leave(4000).code == 4000
    server.raw("/quickstart").abort()


def test_options_that_people_use(serve, engine: str) -> None:
    # None undoes another; --lazy-apps is below.
    options = ["--enable-threads", "--thunder-lock", "--single-interpreter", "--die-on-term"]
    works(serve(engine, options=[*options, "--vacuum", "--offload-threads", "1"]))


def test_two_processes_behind_the_router(serve, engine: str) -> None:
    server = serve(engine, "http", processes=2)
    for _ in range(4):
        works(server)


def test_two_processes_with_lazy_apps(serve, engine: str) -> None:
    server = serve(engine, processes=2, options=["--lazy-apps"])
    for _ in range(4):
        works(server)


def test_no_master_and_lazy_apps(serve, engine: str) -> None:
    works(serve(engine, master=False, options=["--lazy-apps"]))


def test_processes_without_threads(serve) -> None:
    # One core each: one connection at a time for a worker.
    server = serve("single", processes=2)
    for _ in range(4):
        with server.raw() as client:
            client.echo("hello")
            assert client.leave().code == 1000


def test_uvloop(serve) -> None:
    server = serve("asyncio-uvloop")
    works(server)
    assert server.get("/loop").body == b"uvloop"


def test_uwsgi_s_own_async_mode(serve) -> None:
    works(serve("async", cores=8))


def test_time_passes_in_uwsgi_s_own_async_mode(serve) -> None:
    """Also while nobody sends anything, when uWSGI lets no thread run."""
    server = serve("async", cores=8, config={"UWSGI_WEBSOCKET_PING_INTERVAL": 0.5})
    with server.raw("/timeout") as client:
        assert client.message() == "timeout"
        assert client.read().opcode == PING


def test_threads_get_somewhere_beside_a_waiting_request_of_uwsgi_s_async_mode(
    serve, tmp_path
) -> None:
    """Each time that they let go of the lock they wait for the request to wake up."""
    server = serve("async", app="turns", cores=8)
    with server.raw("/") as client:
        client.text(str(tmp_path / "done"))
        assert client.message() == "begun"
        eventually((tmp_path / "done").exists, "the helper thread to be through")


def test_clients_that_vanish_while_sends_wait_in_uwsgi_s_own_async_mode(serve) -> None:
    """All that such a send waits for is ready at once then, and uWSGI is to close none of it."""
    server = serve("async", cores=16)
    for _ in range(4):
        clients = [server.raw("/flood/vanished") for _ in range(12)]
        time.sleep(0.2)  # until their queues are full
        for client in clients:
            client.abort()
        works(server)
    server.wait_idle()


def test_gevent_that_uwsgi_has_patched(serve) -> None:
    works(serve("gevent", options=["--gevent-early-monkey-patch"]))
    works(serve("gevent", options=["--gevent-monkey-patch"]))


def test_gevent_without_the_patch(serve) -> None:
    server = serve("gevent", config={"UWSGI_WEBSOCKET_AGGRESSIVE_PATCH": False})
    works(server)


def test_the_router_with_its_other_options(serve, engine: str) -> None:
    works(serve(engine, "http", options=["--http-keepalive", "--http-auto-chunked"]))


def test_lazy_apps_with_the_reloader(serve, tmp_path) -> None:
    options = ["--lazy-apps", "--python-autoreload", "1"]
    server = Server(tmp_path / "refused", "gevent", options=options)
    try:
        with pytest.raises((ProcessLookupError, AssertionError)):
            server.start()
        assert "add --gevent-early-monkey-patch" in server.log()
    finally:
        server.stop()
    works(serve("gevent", options=[*options, "--gevent-early-monkey-patch"]))


def test_a_chroot_without_devices(serve, engine: str) -> None:
    # A real one needs root, and Python's libraries within: this app cannot open any device.
    server = serve(engine, app="jail")
    for _ in range(3):
        with server.raw() as client:
            client.echo("hello")
    assert server.get("/ready").body == b"ready"


def test_what_uwsgi_writes_for_a_detached_request_never_blocks_it() -> None:
    for _ in range(4):  # 64 KiB fit into a pipe
        assert os.write(devnull(), bytes(60_000)) == 60_000
