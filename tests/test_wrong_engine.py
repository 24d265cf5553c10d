"""An extension under a uWSGI mode that is not its own says so, and hurts nobody."""

from __future__ import annotations

import re

import pytest

ASYNCIO = "AsyncioWebSocket needs uWSGI to be started with --asyncio N --greenlet"
GEVENT = "GeventWebSocket needs uWSGI to be started with --gevent N"
SUSPEND = "AsyncWebSocket needs uWSGI to be started with --async N --greenlet"
THREADS = "WebSocket needs uWSGI to be started with --threads N, or --processes N"
PROCESSES = "no engine's flags, that is with processes, where WebSocket works"

#: uWSGI's mode, the extension's engine, what that needs, and what it got.
MISMATCHES = [
    ("threads", "gevent", GEVENT, "--threads 4, where WebSocket works"),
    ("threads", "asyncio", ASYNCIO, "--threads 4, where WebSocket works"),
    ("gevent", "threads", THREADS, "--gevent 4, where GeventWebSocket works"),
    ("gevent", "asyncio", ASYNCIO, "--gevent 4, where GeventWebSocket works"),
    ("asyncio", "threads", THREADS, "--asyncio 4 --greenlet, where AsyncioWebSocket works"),
    ("asyncio", "gevent", GEVENT, "--asyncio 4 --greenlet, where AsyncioWebSocket works"),
    ("asyncio-without-greenlet", "asyncio", ASYNCIO, "--asyncio 4"),
    ("single", "gevent", GEVENT, PROCESSES),
    ("single", "asyncio", ASYNCIO, PROCESSES),
    ("single", "async", SUSPEND, PROCESSES),
    ("async-ugreen", "async", SUSPEND, "--async 4 --ugreen"),
    ("async", "threads", THREADS, "--async 4 --greenlet, where AsyncWebSocket works"),
]


@pytest.mark.parametrize(("mode", "extension", "needs", "got"), MISMATCHES)
def test_a_mismatch_is_named_and_the_worker_lives(
    serve, mode: str, extension: str, needs: str, got: str
) -> None:
    server = serve(mode, extension=extension, cores=4)
    pid = server.worker_pid
    for _ in range(3):
        answer = server.refused("/echo")
        assert answer.status == 500
        # A client needs no account of how the server is run.
        body = answer.body
        assert body == b"WebSockets do not work here; the server's log says why\n"
    refusals = [line.partition(" refused: ")[2] for line in server.new_log().splitlines()]
    assert refusals == [f"{needs}; it was started with {got}"] * 3  # a line each, and no traceback
    # uWSGI's start says so too, before anybody comes.
    assert re.search("handshakes? (is|are) answered with 500", server.log())
    assert server.get("/ready").body == b"ready"
    server.wait_idle()
    assert server.worker_pid == pid


def test_an_app_in_debug_mode_tells_its_client(serve) -> None:
    server = serve("threads", extension="gevent", cores=4, env={"FLASK_UWSGI_DEBUG": "1"})
    answer = server.refused("/echo")
    assert answer.status == 500
    assert b"GeventWebSocket needs uWSGI to be started with --gevent" in answer.body


@pytest.mark.parametrize("engine", ["gevent", "asyncio"])
def test_a_second_app_without_the_single_interpreter(serve, engine: str) -> None:
    # uWSGI's asyncio loop aborts when a request enters another interpreter.
    mount = ["--mount", "/second=tests.apps.wsgi:application", "--manage-script-name"]
    server = serve(engine, options=mount)
    server.allow_log("Traceback", "unable to load app")
    assert "loop serves those in the first one only: add --single-interpreter" in server.log()
    worker = server.worker_pid
    with server.raw() as client:
        assert server.get("/second/ready").status == 404
        client.echo("unharmed")
    assert server.worker_pid == worker
    server = serve(engine, options=[*mount, "--single-interpreter"])
    assert server.get("/second/ready").status == 200
    with server.raw("/second/echo") as client:
        client.echo("served")
