"""`max_rate`: who sends too fast waits, loses nothing, and holds nobody up."""

from __future__ import annotations

import socket
import time
import zlib

import pytest

from tests.conftest import ENGINES, ServerFactory
from tests.rawclient import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, RawClient, frame
from tests.server import Server

#: As the app has them for `/quick`.
MESSAGES, SECONDS = 10, 0.5
FLOOD = "too many messages or other frames"
WAYS = ("receive", "receive_with_timeout", "iterate", "poll")
CONFIG = {"TEST_TIMEOUT": 1, "UWSGI_WEBSOCKET_MAX_RATE": [2, 0.5]}


@pytest.fixture(params=[*ENGINES, "async"])
def server(request: pytest.FixtureRequest, shared_server: ServerFactory) -> Server:
    return shared_server(request.param, app="limits", config=CONFIG)


def answers_at_rate(client: RawClient, sent: bytes, count: int) -> list[str]:
    """Send all that at once; the answers, none of which may come before its time."""
    began = time.monotonic()
    client.send(sent)
    answers = []
    for number in range(count):
        answers.append(str(client.message()))
        # One more may come, since that an empty one is none of the others shows in its header.
        assert time.monotonic() - began >= (number - MESSAGES) * SECONDS / MESSAGES, number
    return answers


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_client_that_sends_too_fast_is_slowed_down(server: Server, way: str) -> None:
    if (server.engine, way) == ("async", "poll"):
        return  # there only what waits lets others run
    # What polls takes an empty one for none.
    sizes = [5, *([] if way == "poll" else [0]), 200, 70_000, 1, *[30] * 15]
    with server.raw(f"/quick/{way}") as client, server.raw("/any") as other:
        sent = b"".join(frame(BINARY, bytes(size)) for size in sizes)
        assert answers_at_rate(client, sent, len(sizes)) == [str(size) for size in sizes]
        other.echo("goes on")
        client.close()


@pytest.mark.slow
def test_a_flood_of_tiny_frames_neither_gets_through_nor_stops_others(server: Server) -> None:
    with server.raw("/quick/receive") as client, server.raw("/any") as other:
        assert answers_at_rate(client, frame(TEXT, "") * 10_000, 15) == ["0"] * 15
        for _ in range(20):
            other.echo("goes on")
        client.abort()


@pytest.mark.slow
def test_a_compressed_flood_is_no_quicker(server: Server) -> None:
    deflate = zlib.compressobj(wbits=-15)
    data = deflate.compress(bytes(100_000)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    offer = {"Sec-WebSocket-Extensions": "permessage-deflate; client_no_context_takeover"}
    with server.raw("/quick/receive", headers=offer) as client:
        sent = frame(BINARY, data[:-4], rsv=4) * 13
        assert answers_at_rate(client, sent, 13) == ["100000"] * 13
        client.abort()


@pytest.mark.parametrize("engine", ENGINES)
def test_what_comes_with_the_handshake_counts(shared_server: ServerFactory, engine: str) -> None:
    server = shared_server(engine, app="limits", config=CONFIG)
    with server.tcp() as client:
        client.handshake("/quick/receive", then=frame(TEXT, "") * 300)
        close = client.read_close()
        assert (close.code, close.reason) == (1008, FLOOD)
        client.abort()


@pytest.mark.parametrize("engine", ["gevent"])
def test_behind_the_router(shared_server: ServerFactory, engine: str) -> None:
    server = shared_server(engine, "http", app="limits", config=CONFIG)
    with server.raw("/quick/receive") as client:
        sent = frame(BINARY, bytes(20_000)) * 15
        assert answers_at_rate(client, sent, 15) == ["20000"] * 15
        client.close()


def test_large_messages_in_fragments_count_once(server: Server) -> None:
    with server.raw("/quick/receive") as client:
        for _ in range(MESSAGES // 2):
            client.send(frame(BINARY, bytes(4096), fin=False))
            client.send(frame(CONTINUATION, bytes(4096), fin=False) * 20)
            client.send(frame(CONTINUATION, b""))
        assert [client.message() for _ in range(MESSAGES // 2)] == ["86016"] * 5
        client.close()


@pytest.mark.parametrize("what", ["pings", "pongs", "empty fragments", "small fragments"])
def test_other_frames_without_end_close_it(server: Server, what: str) -> None:
    begin = frame(TEXT, "x", fin=False)
    first, each = {
        "pings": (b"", frame(PING, "x")),
        "pongs": (b"", frame(PONG, "")),
        "empty fragments": (begin, frame(CONTINUATION, b"", fin=False)),
        "small fragments": (begin, frame(CONTINUATION, bytes(10), fin=False)),
    }[what]
    with server.raw("/quick/receive") as client:
        client.send(first + each * 90)
        client.send(each * 2000)
        close = client.read_close()
        assert (close.code, close.reason) == (1008, FLOOD)
        client.send(frame(CLOSE, b"\x03\xf0"))
        client.read_to_end()


def test_while_nothing_may_be_sent_pings_are_answered_and_a_close_is_too(
    server: Server, token: str
) -> None:
    with server.raw(f"/slow/{token}") as client:
        client.echo("the only one")
        for _ in range(3):
            client.send(frame(PING, "p"))
            assert client.read().payload == b"p"
        client.send(frame(CLOSE, b"\x03\xe8"))
        assert client.read_close().code == 1000
        client.read_to_end()
    assert server.record(token) == {"code": 1000, "reason": ""}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["end of file", "reset"])
def test_it_is_noticed_that_one_who_waits_has_left(server: Server, how: str, token: str) -> None:
    with server.raw(f"/slow/{token}") as client:
        client.echo("the only one")
        client.send(frame(TEXT, "one too many") + frame(CLOSE, b"\x03\xe8"))
        if how == "reset":
            client.abort()
        else:
            client.socket.shutdown(socket.SHUT_WR)
        assert server.record(token)["code"] == 1006
        server.wait_idle()


def test_a_receive_with_timeout_and_a_close_while_the_client_waits(server: Server) -> None:
    with server.raw("/slow/timeout") as client:
        client.echo("the only one")
        client.send(frame(TEXT, "one too many"))
        assert [client.message() for _ in range(3)] == ["none"] * 3
        assert client.read_close().code == 4000
        client.send(frame(CLOSE, b"\x0f\xa0"))
        client.read_to_end()


@pytest.mark.slow
def test_a_handler_that_is_busy_finds_what_came_meanwhile(server: Server) -> None:
    with server.raw("/busy") as client:
        sent = [str(number) for number in range(20)]
        client.send(b"".join(frame(TEXT, text) for text in ["go", *sent]))
        assert [client.message() for _ in sent] == sent
        client.close()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_no_heartbeat_cuts_who_waits(shared_server: ServerFactory, engine: str, token: str) -> None:
    quick = {"UWSGI_WEBSOCKET_PING_INTERVAL": 0.2, "UWSGI_WEBSOCKET_PING_TIMEOUT": 0.2}
    server = shared_server(engine, app="limits", config={**CONFIG, **quick})
    with server.raw(f"/slow/{token}") as client:
        client.echo("the only one")
        client.send(frame(TEXT, "one too many"))
        ends = time.monotonic() + 2
        while time.monotonic() < ends:
            found = client.read()
            assert found.opcode == PING, found
            client.send(frame(PONG, found.payload))
        assert not server.records(token)
        client.abort()


def test_what_the_configuration_says_holds_for_routes_that_say_nothing(server: Server) -> None:
    with server.raw("/default") as client, server.raw("/any") as other:
        began = time.monotonic()
        client.send(frame(TEXT, "x") * 5)
        assert [client.message() for _ in range(5)] == ["x"] * 5
        assert time.monotonic() - began > 0.7
        client.close()
        other.send(frame(TEXT, "x") * 1000)
        assert [other.message() for _ in range(1000)] == ["x"] * 1000
        other.close()
