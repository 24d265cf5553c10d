"""Large messages in flight in both directions: nothing freezes, every byte is right.

uWSGI's http router does not read while it writes, so an echo that only sends while it sends
stands still for ever (see the design, section 2).
"""

from __future__ import annotations

import os
import threading

import pytest

from tests.rawclient import BINARY, RawClient, close_frame, frame
from tests.server import FRONTS, Server

MIB = 1 << 20


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


@pytest.mark.parametrize("front", FRONTS)
def test_large_messages_in_flight(serve, engine: str, front: str) -> None:
    server = serve(engine, front, config={"UWSGI_WEBSOCKET_MAX_MESSAGE_SIZE": 4 * MIB})
    with server.raw() as client:
        echo_in_flight(client, [os.urandom(4 * MIB) for _ in range(8)])
        echo_in_flight(client, [os.urandom(MIB) for _ in range(16)])
        assert client.leave().code == 1000


@pytest.mark.parametrize("front", ["http-socket", "http"])
def test_large_messages_of_several_clients(serve, engine: str, front: str) -> None:
    server = serve(engine, front)
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
