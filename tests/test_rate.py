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
MESSAGES, SECONDS = 10, 1.0
WAYS = ("receive", "receive_with_timeout", "iterate", "poll")
CONFIG = {"TEST_TIMEOUT": 1, "UWSGI_WEBSOCKET_MAX_RATE": [2, 0.5]}


@pytest.fixture(params=[*ENGINES, "async"])
def server(request: pytest.FixtureRequest, shared_server: ServerFactory) -> Server:
    return shared_server(request.param, app="limits", config=CONFIG)


def times(client: RawClient, count: int) -> list[float]:
    """When the handler got each of its next messages."""
    return [float(str(client.message()).split()[0]) for _ in range(count)]


def assert_at_rate(found: list[float]) -> None:
    """No span of time has brought more than the bucket holds, and what has come meanwhile."""
    for i, begin in enumerate(found):
        for j in range(i + 1, len(found)):
            # One more, since it is empty ones that have come when their header has.
            allowed = MESSAGES + 1 + (found[j] - begin + 0.05) * MESSAGES / SECONDS
            assert j - i + 1 <= allowed, found


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_client_that_sends_too_fast_is_slowed_down(server: Server, way: str) -> None:
    if (server.engine, way) == ("async", "poll"):
        return  # there only what waits lets others run
    # What polls takes an empty one for none.
    sizes = [5, *([] if way == "poll" else [0]), 200, 70_000, 1, *[30] * 20]
    with server.raw(f"/quick/{way}") as client, server.raw("/any") as other:
        client.send(b"".join(frame(BINARY, bytes(size)) for size in sizes))
        other.echo("goes on")
        answers = [str(client.message()).split() for _ in sizes]
        assert [int(size) for _, size in answers] == sizes
        assert_at_rate([float(moment) for moment, _ in answers])
        client.close()


@pytest.mark.slow
def test_the_bucket_fills_again(server: Server) -> None:
    with server.raw("/quick/receive") as client:
        client.send(frame(TEXT, "x") * MESSAGES)
        first = times(client, MESSAGES)
        time.sleep(SECONDS + 0.1)
        client.send(frame(TEXT, "x") * MESSAGES)
        second = times(client, MESSAGES)
        assert_at_rate(first + second)
        assert second[0] - first[0] >= SECONDS


@pytest.mark.slow
def test_a_flood_of_tiny_frames_neither_gets_through_nor_stops_others(server: Server) -> None:
    with server.raw("/quick/receive") as client, server.raw("/any") as other:
        client.send(frame(TEXT, "") * 10_000)
        found = times(client, MESSAGES * 2)
        for _ in range(20):
            other.echo("goes on")
        assert_at_rate(found)
        client.abort()


@pytest.mark.slow
def test_a_compressed_flood_is_no_quicker(server: Server) -> None:
    deflate = zlib.compressobj(wbits=-15)
    data = deflate.compress(bytes(100_000)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    offer = {"Sec-WebSocket-Extensions": "permessage-deflate; client_no_context_takeover"}
    with server.raw("/quick/receive", headers=offer) as client:
        client.send(frame(BINARY, data[:-4], rsv=4) * 15)
        answers = [str(client.read().payload.decode()).split() for _ in range(15)]
        assert {size for _, size in answers} == {"100000"}
        assert_at_rate([float(moment) for moment, _ in answers])
        client.abort()


def test_large_messages_in_fragments_count_once(server: Server) -> None:
    with server.raw("/quick/receive") as client:
        for _ in range(MESSAGES // 2):
            client.send(frame(BINARY, bytes(4096), fin=False))
            client.send(frame(CONTINUATION, bytes(4096), fin=False) * 20)
            client.send(frame(CONTINUATION, b""))
        assert [str(client.message()).split()[1] for _ in range(MESSAGES // 2)] == ["86016"] * 5
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
        assert close.code == 1008
        assert close.reason == "too many messages or other frames"
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
        sent = [str(number) for number in range(25)]
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
