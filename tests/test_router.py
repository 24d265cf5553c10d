"""Large messages in flight in both directions: nothing freezes, every byte is right.

uWSGI's http router does not read while it writes, so an echo that only sends while it sends
stands still for ever (see the design, section 2).
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from flask_uwsgi_websocket.inspection.socket_rules import ROUTER_BUFFER
from tests.rawclient import BINARY, RawClient, Refused, close_frame, frame, opening
from tests.server import FRONTS, ROOT, Server, eventually

MIB = 1 << 20
LARGE = {"UWSGI_WEBSOCKET_MAX_MESSAGE_SIZE": 4 * MIB}


def echo_in_flight(client: RawClient, messages: list[bytes]) -> None:
    """Send all without waiting for any, read all."""
    failures: list[BaseException] = []

    def write() -> None:
        try:
            for message in messages:
                client.send(frame(BINARY, message))
        except BaseException as error:
            failures.append(error)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    for index, message in enumerate(messages):
        assert client.message() == message, f"message {index}"
    writer.join(30)
    assert not writer.is_alive()
    assert not failures


@pytest.mark.slow
@pytest.mark.parametrize("front", FRONTS)
def test_large_messages_in_flight(shared_server, engine: str, front: str) -> None:
    server = shared_server(engine, front, config=LARGE)
    with server.raw() as client:
        echo_in_flight(client, [os.urandom(4 * MIB) for _ in range(8)])
        echo_in_flight(client, [os.urandom(MIB) for _ in range(16)])
        assert client.leave().code == 1000


@pytest.mark.slow
@pytest.mark.parametrize("front", ["http-socket", "http"])
def test_large_messages_of_several_clients(shared_server, engine: str, front: str) -> None:
    server = shared_server(engine, front, config=LARGE)
    failures: list[BaseException] = []

    def talk(server: Server) -> None:
        try:
            with server.raw() as client:
                echo_in_flight(client, [os.urandom(256 * 1024) for _ in range(16)])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=talk, args=(server,), daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert not failures
    assert not any(thread.is_alive() for thread in threads)


def test_the_router_with_its_small_buffer(serve, engine: str) -> None:
    # Slow (Nagle against delayed ACKs, see the design), but right.
    server = serve(engine, "http", options=["--http-buffer-size", "4096"])
    with server.raw() as client:
        echo_in_flight(client, [os.urandom(size) for size in (5000, 70_000, 300_000, 1)])


@pytest.mark.slow
@pytest.mark.parametrize("front", ["http", "nginx-proxy", "nginx-uwsgi"])
def test_ends_through_every_front(engine: str, shared_server, front: str, token: str) -> None:
    server = shared_server(engine, front)
    with server.raw(f"/collect/{token}") as client:
        assert client.leave(4005, "mine").code == 4005
    assert server.record(token)["code"] == 4005
    for way in ("abort", "close"):
        client = server.raw(f"/collect/{token}-{way}")
        getattr(client, way)()
        assert server.record(f"{token}-{way}")["code"] == 1006
    with server.raw("/return") as client:
        assert client.message() == "bye"
        assert client.read_close().code == 1000
        client.send(close_frame(1000))
        assert client.ended()


def upload(server: Server, size: int, head: str = "", *, at_once: bool = True) -> bool:
    """Whether an upload arrives.

    :param head: more of the request's head, lines with their ends.
    :param at_once: send head and body in one go, so that they may arrive in one read.
    """
    body = os.urandom(size)
    start = (
        f"POST /upload HTTP/1.1\r\nHost: {server.address}\r\nConnection: close\r\n"
        f"Content-Length: {size}\r\n{head}\r\n"
    ).encode()
    with server.tcp() as client:
        for part in [start + body] if at_once else [start, body]:
            client.send(part)
        answer = client.read_answer()
        return answer.status == 200 and answer.body.decode() == hashlib.sha256(body).hexdigest()


@pytest.mark.slow
def test_uploads_through_the_router(shared_server) -> None:
    # From a buffer of 65535 bytes on it loses those whose body arrives with the head.
    server = shared_server("gevent", "http")
    edges = [size << 10 for size in (4, 32, 60, 64, 96, 128, 256)]
    sizes = [1, *(edge + more for edge in edges for more in (-5000, -200, -100, -1, 0, 1))]
    sizes = [size for size in sizes if size > 0] + [120_000] * 20 + [1_000_000, 20_000_000]
    assert [size for size in sizes if not upload(server, size)] == []
    assert [
        size for size in (1, 70_000, 1_000_000) if not upload(server, size, at_once=False)
    ] == []


@pytest.mark.slow
def test_uploads_with_large_heads_through_the_router(shared_server) -> None:
    # It sends the head to the worker in the same buffer.
    server = shared_server("gevent", "http", options=["--buffer-size", "32768"])
    cookies = f"Cookie: {'c' * 4000}\r\n" * 3 + "".join(f"X-{n}: y\r\n" for n in range(40))
    assert [size for size in range(1000, 130_000, 8000) if not upload(server, size, cookies)] == []


def test_a_buffer_that_loses_uploads_is_told_of_at_the_start(serve) -> None:
    server = serve("gevent", "http", options=["--http-buffer-size", "65535"])
    assert "--http-buffer-size 65535: uWSGI's router resets" in server.log()


def test_commands_in_the_docs_have_the_buffer_that_loses_nothing() -> None:
    places = [ROOT / "README.rst", *Path(ROOT, "docs").glob("*.rst")]
    places += Path(ROOT, "examples").rglob("*.py")
    sizes = re.findall(
        r"uwsgi .*--http-buffer-size (\d+)", "".join(place.read_text() for place in places)
    )
    assert len(sizes) > 10
    assert set(sizes) == {str(ROUTER_BUFFER)}


def connected(server: Server, stack: ExitStack) -> list[RawClient]:
    """As many clients as the server takes; the next is refused with 503."""
    clients: list[RawClient] = []
    while len(clients) < 200:
        try:
            clients.append(stack.enter_context(server.raw()))
        except Refused as refused:
            if refused.answer.status != 503:
                raise
            break
    return clients


# The cores of both workers' threads are enough for what the router cannot hold; those of one do not
# use up its descriptors, whichever of the two accepts the most.
@pytest.mark.parametrize("engine", ["threads", "gevent", "asyncio"])
@pytest.mark.parametrize("options", [[], ["--lazy-apps"]], ids=["", "lazy-apps"])
def test_the_router_keeps_descriptors_for_http(serve, engine: str, options: list[str]) -> None:
    server = serve(
        engine, "http", cores=32, processes=2, options=["--max-fd", "128", *options]
    )  # it takes two for each WebSocket of both workers
    with ExitStack() as stack:
        clients = connected(server, stack)
        # Workers that cannot count together have half of the room each.
        assert (10 if options else 40) <= len(clients) < 56
        for _ in range(5):
            assert server.get("/ready", timeout=5).body == b"ready"
        for number, client in enumerate(clients):
            client.echo(str(number))
        assert "uWSGI's router holds two descriptors for each" in server.log()
        clients.pop().leave()
        clients.pop().leave()
        eventually(lambda: connected(server, stack), "room for another", interval=0.2)


@pytest.mark.parametrize("engine", ["gevent", "asyncio"])
def test_the_router_keeps_descriptors_when_many_wait_for_their_handlers(serve, engine: str) -> None:
    options = ["--max-fd", "128"]
    server = serve(engine, "http", app="detaching", processes=3, options=options)
    with ExitStack() as stack:
        clients = [stack.enter_context(server.tcp()) for _ in range(57)]
        for client in clients:
            client.send(opening("/hesitates", server.address))
        statuses = [client.read_answer().status for client in clients]
        assert set(statuses) == {101, 503}
        assert server.get("/ready", timeout=5).body == b"ready"


def test_the_router_has_its_descriptors_back_when_a_worker_dies(serve) -> None:
    server = serve("gevent", "http", options=["--max-fd", "128"])
    server.allow_log("DAMN")
    with ExitStack() as stack:
        before = len(connected(server, stack))
        os.kill(server.worker_pid, signal.SIGKILL)
        eventually(lambda: "Respawned" in server.log(), "another worker")
    with ExitStack() as stack:
        assert len(connected(server, stack)) >= before - 2
