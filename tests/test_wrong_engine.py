"""An extension under a uWSGI mode that is not its own says so, and hurts nobody."""

from __future__ import annotations

import pytest

from tests.rawclient import Refused

#: uWSGI's mode, the extension's engine, what the message must name.
MISMATCHES = [
    ("threads", "gevent", "GeventWebSocket", "--gevent"),
    ("threads", "asyncio", "AsyncioWebSocket", "--asyncio"),
    ("gevent", "threads", "WebSocket", "GeventWebSocket"),
    ("gevent", "asyncio", "AsyncioWebSocket", "--asyncio"),
    ("asyncio", "threads", "WebSocket", "AsyncioWebSocket"),
    ("asyncio", "gevent", "GeventWebSocket", "--gevent"),
    ("asyncio-without-greenlet", "asyncio", "AsyncioWebSocket", "--greenlet"),
    ("single", "gevent", "GeventWebSocket", "--gevent"),
    ("single", "asyncio", "AsyncioWebSocket", "--asyncio"),
    ("single", "async", "AsyncWebSocket", "--async"),
    ("async-ugreen", "async", "AsyncWebSocket", "--greenlet"),
    ("async", "threads", "WebSocket", "AsyncWebSocket"),
]


@pytest.mark.parametrize(("mode", "extension", "name", "remedy"), MISMATCHES)
def test_a_mismatch_is_named_and_the_worker_lives(
    serve, mode: str, extension: str, name: str, remedy: str
) -> None:
    server = serve(mode, extension=extension, cores=4)
    pid = server.worker_pid
    for _ in range(3):
        with pytest.raises(Refused) as caught:
            server.raw("/echo").close()
        assert 500 <= caught.value.answer.status < 600
        # A client needs no account of how the server is run.
        body = caught.value.answer.body
        assert body == b"WebSockets do not work here; the server's log says why\n"
    log = server.log()
    assert name in log
    assert remedy in log
    assert server.get("/ready").body == b"ready"
    server.wait_idle()
    assert server.worker_pid == pid
    server.allow_log("Traceback")


def test_the_message_is_one_for_a_person(serve) -> None:
    server = serve("threads", extension="gevent", cores=4)
    with pytest.raises(Refused):
        server.raw("/echo").close()
    message = next(line for line in server.log().splitlines() if "GeventWebSocket" in line)
    assert "--gevent" in message
    server.allow_log("Traceback")


def test_an_app_in_debug_mode_tells_its_client(serve) -> None:
    server = serve("threads", extension="gevent", cores=4, env={"FLASK_UWSGI_DEBUG": "1"})
    with pytest.raises(Refused) as caught:
        server.raw("/echo").close()
    assert caught.value.answer.status == 500
    assert b"GeventWebSocket needs uWSGI to be started with --gevent" in caught.value.answer.body


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
        client.text("unharmed")
        assert client.message() == "unharmed"
    assert server.worker_pid == worker
    server = serve(engine, options=[*mount, "--single-interpreter"])
    assert server.get("/second/ready").status == 200
    with server.raw("/second/echo") as client:
        client.text("served")
        assert client.message() == "served"
