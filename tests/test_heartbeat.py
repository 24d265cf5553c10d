"""Pings without a receive(): they keep idle connections, and end those of vanished peers."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from tests.rawclient import BINARY, PING, PONG, RawClient, frame
from tests.server import Server, eventually
from tests.test_backpressure import Writer

pytestmark = pytest.mark.slow

#: Quick enough for a test, slow enough for a busy machine.
QUICK = {
    "UWSGI_WEBSOCKET_PING_INTERVAL": 0.3,
    "UWSGI_WEBSOCKET_PING_TIMEOUT": 1.5,
    "TEST_TIMEOUT": 0.5,
}
#: Seconds after which a client that never answers has been given up: longer than both together.
GIVEN_UP = 2.5


def ping_from(client: RawClient) -> bytes:
    """The payload of the server's next ping."""
    while True:
        found = client.read()
        if found.opcode == PING:
            return found.payload


def given_up(client: RawClient) -> None:
    """Read without a pong until the server ends the connection."""
    end = time.monotonic() + 30
    try:
        while time.monotonic() < end:
            client.read()
    except (EOFError, ConnectionResetError):
        return
    raise AssertionError("the server still sends to a client that never answered a ping")


def answer_pings(seconds: float, *clients: RawClient) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for client in clients:
            client.send(frame(PONG, ping_from(client)))


@pytest.fixture
def quick(shared_server, engine: str) -> Server:
    return shared_server(engine, config=QUICK)


def test_a_client_that_answers_stays_whatever_the_handler_does(quick: Server, token: str) -> None:
    with (
        quick.raw() as client,
        quick.raw(f"/blocked/{token}") as blocked,
        quick.raw(f"/send-until-closed/{token}-x") as listener,
    ):
        assert blocked.message() == "blocked"
        answer_pings(GIVEN_UP, client, blocked, listener)
        client.echo("still here")
        assert listener.message() == "x" * 1000
        quick.http("POST", f"/gates/{token}")
        assert quick.record(token)["error"] is None
        assert blocked.read_close().code == 1000


def test_the_websockets_client_answers(quick: Server) -> None:
    with quick.connect("/latency", ping_interval=None) as client:

        def measured() -> bool:
            client.send("?")
            return json.loads(client.recv(30)) is not None

        eventually(measured, "a round trip to be measured", interval=0.1)
        client.send("?")
        latency = json.loads(client.recv(30))
        assert 0 <= latency < 30


def test_a_client_that_never_answers_is_given_up(quick: Server, token: str) -> None:
    with quick.raw(f"/collect/{token}") as client:
        seen = quick.record(token)
        assert seen["connected"] is False
        assert seen["code"] == 1006
        client.close()


def test_a_sender_gives_up_a_client_that_never_answers(quick: Server, token: str) -> None:
    with quick.raw(f"/send-until-closed/{token}") as client:
        given_up(client)
        assert quick.record(token)["connected"] is False


def test_a_handler_busy_elsewhere_loses_a_client_that_never_answers(
    quick: Server, engine: str, token: str
) -> None:
    with quick.raw(f"/blocked/{token}") as client:
        given_up(client)
        if engine == "threads":
            quick.http("POST", f"/gates/{token}")
        assert quick.record(token)["code"] == 1006
        quick.wait_idle()


def test_pings_can_be_turned_off(serve, engine: str) -> None:
    server = serve(engine, config={**QUICK, "UWSGI_WEBSOCKET_PING_INTERVAL": 0})
    with server.raw() as client:
        assert client.silent(1)


def test_what_we_did_not_read_ourselves_is_not_held_against_the_client(
    quick: Server, token: str
) -> None:
    server = quick
    with server.raw(f"/paused/{token}") as client:
        assert client.message() == "paused"
        writer = Writer(client, 1024)
        eventually(writer.stalled, "the writer to be held up")
        # Its pongs lie behind all this.
        time.sleep(GIVEN_UP)
        assert writer.failure is None
        server.http("POST", f"/gates/{token}")
        for _ in range(64):
            assert client.message() == "65536"


def test_pings_go_on_to_a_client_that_we_do_not_read(quick: Server, token: str) -> None:
    # Proxies cut what is silent, and by a write we notice that a client has gone.
    server = quick
    with server.raw(f"/blocked/{token}") as client:
        assert client.message() == "blocked"
        client.send(frame(BINARY, bytes(65536)) * 8)
        for _ in range(4):
            ping_from(client)
        client.abort()
    eventually(
        lambda: json.loads(server.get(f"/blocked/{token}").body)["code"] == 1006,
        "the reset to be noticed",
    )
    server.http("POST", f"/gates/{token}")


def test_a_client_that_answered_while_the_worker_was_held_up_stays(quick: Server) -> None:
    with quick.raw() as client, quick.raw() as sender:
        pid = quick.worker_pid
        ping = ping_from(client)
        os.kill(pid, signal.SIGSTOP)
        try:
            client.send(frame(PONG, ping))
            sender.text("sent meanwhile")
            time.sleep(GIVEN_UP)
        finally:
            os.kill(pid, signal.SIGCONT)
        for one in (client, sender):
            one.text("still here")
        assert sender.message() == "sent meanwhile"
        for one in (client, sender):
            assert one.message() == "still here"


def test_heartbeats_cost_no_thread_for_each_connection(quick: Server) -> None:
    with quick.raw() as one:
        ping_from(one)
        before = quick.threads()
        clients = [quick.raw() for _ in range(10)]
        for client in clients:
            ping_from(client)
        assert quick.threads() <= before
        for client in clients:
            client.close()


def test_idle_connections_survive_the_router_s_timeout(serve, engine: str, token: str) -> None:
    survives(serve(engine, "http", options=["--http-timeout", "2"], config=QUICK), token)


def survives(server: Server, token: str) -> None:
    """Idle clients that answer pings are still there after the proxy's timeout of 2 s."""
    with server.raw() as client, server.raw(f"/blocked/{token}") as blocked:
        assert blocked.message() == "blocked"
        answer_pings(3, client, blocked)
        client.echo("still here")
        server.http("POST", f"/gates/{token}")
        assert server.record(token)["error"] is None
