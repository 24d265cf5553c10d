"""Messages arrive whole, in order, of the type that they were sent as; none is invented."""

from __future__ import annotations

import itertools
import json

import pytest

from tests.rawclient import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, frame
from tests.server import Server

SIZES = (1, 125, 126, 65_535, 65_536, 1 << 20)


def text_of(size: int) -> str:
    return "".join(itertools.islice(itertools.cycle("abcdefghijklmnopqrstuvwxyz"), size))


def bytes_of(size: int) -> bytes:
    return bytes(itertools.islice(itertools.cycle(range(256)), size))


@pytest.mark.parametrize("size", SIZES)
def test_text_and_binary_keep_their_type_and_size(server: Server, size: int) -> None:
    with server.raw() as client:
        client.echo(text_of(size))
        client.binary(bytes_of(size))
        assert client.message() == bytes_of(size)


@pytest.mark.parametrize("size", SIZES)
def test_another_client_sees_the_same(server: Server, size: int) -> None:
    with server.connect() as client:
        client.send(text_of(size))
        assert client.recv(30) == text_of(size)
        client.send(bytes_of(size))
        assert client.recv(30) == bytes_of(size)


@pytest.mark.slow
@pytest.mark.parametrize("front", ["http", "nginx-proxy", "nginx-uwsgi"])
def test_every_front_carries_every_size(engine: str, shared_server, front: str) -> None:
    server = shared_server(engine, front)
    with server.raw() as raw, server.connect() as client:
        for size in SIZES:
            raw.text(text_of(size))
            client.send(bytes_of(size))
            assert raw.message() == text_of(size)
            assert client.recv(30) == bytes_of(size)
        assert raw.leave().code == 1000


def test_a_message_in_three_fragments_with_a_ping_between(server: Server) -> None:
    with server.raw() as client:
        client.send(frame(TEXT, "one, ", fin=False))
        client.send(frame(CONTINUATION, "two, ", fin=False))
        client.send(frame(PING, "are you there?"))
        assert client.read() == Frame(PONG, b"are you there?")
        client.send(frame(CONTINUATION, "three"))
        assert client.message() == "one, two, three"


def test_fragments_of_bytes_that_arrive_one_at_a_time(server: Server) -> None:
    whole = frame(BINARY, b"\x00\xff", fin=False) + frame(CONTINUATION, b"\x01")
    with server.raw() as client:
        for byte in whole:
            client.send(bytes([byte]))
        assert client.message() == b"\x00\xff\x01"


def test_a_character_split_between_fragments(server: Server) -> None:
    snowman = "☃".encode()
    with server.raw() as client:
        client.send(frame(TEXT, snowman[:1], fin=False) + frame(CONTINUATION, snowman[1:]))
        assert client.message() == "☃"


def test_500_messages_in_one_send_come_back_in_order(server: Server) -> None:
    sent = [f"message {index}" for index in range(500)]
    with server.raw() as client:
        client.send(b"".join(frame(TEXT, text) for text in sent))
        assert [client.message() for _ in sent] == sent


def test_mixed_sizes_in_one_send_come_back_in_order(server: Server) -> None:
    sizes = [0, 1, 125, 126, 70_000, 3, 65_536, 127, 0, 20_000] * 5
    with server.raw() as client:
        client.send(b"".join(frame(BINARY, bytes_of(size)) for size in sizes))
        assert [len(client.message()) for _ in sizes] == sizes


def test_empty_messages_are_messages(server: Server) -> None:
    with server.raw("/describe") as client:
        client.send(frame(TEXT) + frame(BINARY) + frame(TEXT, fin=False) + frame(CONTINUATION))
        assert [client.message() for _ in range(3)] == ["str 0", "bytes 0", "str 0"]


@pytest.mark.slow
def test_nothing_is_delivered_while_nothing_is_sent(server: Server) -> None:
    with server.raw("/describe") as client:
        assert client.silent(1.0)
        client.send(frame(PING) + frame(PONG, "unasked for"))
        assert client.read() == Frame(PONG, b"")
        assert client.silent(0.5)
        client.text("x")
        assert client.message() == "str 1"


def test_pongs_carry_the_ping_s_payload_in_order(server: Server) -> None:
    payloads = [b"", b"x", bytes(range(125))]
    with server.raw() as client:
        for payload in payloads:
            client.send(frame(PING, payload))
        assert [client.read() for _ in payloads] == [Frame(PONG, data) for data in payloads]


def test_the_websockets_client_gets_its_pong(server: Server) -> None:
    # It closes the connection when a pong lacks the payload of its ping.
    with server.connect() as client:
        assert client.ping().wait(30)
        client.send("still here")
        assert client.recv(30) == "still here"


@pytest.mark.parametrize("path", ["/iterate", "/recv"])
def test_other_ways_to_receive(server: Server, path: str) -> None:
    with server.raw(path) as client:
        client.text("a")
        client.binary(b"b")
        assert [client.message(), client.message()] == ["a", b"b"]
        assert client.leave().code == 1000


def test_receive_with_a_timeout(server: Server) -> None:
    with server.raw("/timeout") as client:
        assert client.message() == "timeout"
        client.echo("after it")


def test_recv_nb_never_waits(server: Server, token: str) -> None:
    with server.raw(f"/recv_nb/{token}") as client:
        assert client.message() == "now"
        client.echo("something")
    assert server.record(token) == {"before": "", "end": None}


def test_json(server: Server, token: str) -> None:
    with server.raw(f"/json/{token}") as client:
        client.text('{"a": [1, 2.5, "☃", null]}')
        assert json.loads(client.message()) == {"got": {"a": [1, 2.5, "☃", None]}}
        client.binary(b"[1]")
        assert json.loads(client.message()) == {"got": [1]}
        client.text("null")
        assert json.loads(client.message()) == {"got": None}
        assert client.leave(4001).code == 4001
    assert server.record(token) == {"code": 4001}


def test_each_way_to_send(server: Server) -> None:
    with server.raw("/kinds") as client:
        assert [client.message() for _ in range(10)] == [
            "text",
            b"binary",
            b"as binary",
            "as text",
            b"by name",
            "without waiting",
            b"the same in binary",
            "",
            b"",
            "naïve ☃ 😀",
        ]


def test_a_shared_area_from_a_position_on(server: Server) -> None:
    with server.raw("/sharedarea") as client:
        assert client.message() == "from the shared area"
        assert client.message() == b"area"


def test_attributes(server: Server) -> None:
    with server.raw("/attributes/a/b?c=d") as one, server.raw("/attributes/x") as two:
        first, second = json.loads(one.message()), json.loads(two.message())
        assert first.pop("id") != second.pop("id")
        assert isinstance(first["fd"], int)
        assert first.pop("fd") != second.pop("fd")
        assert first == {
            "connected": True,
            "close_code": None,
            "timeout": 5,
            "subprotocol": None,
            "path": "/attributes/a/b",
            "query": "c=d",
            "rest": "a/b",
        }


def test_a_message_above_the_limit_closes_with_1009(server: Server) -> None:
    with server.raw("/tiny") as client:
        client.text("x" * 1000)
        assert client.message() == "1000"
        client.text("x" * 1001)
        assert client.read_close().code == 1009
        assert client.ended()


def test_the_limit_counts_the_whole_message(server: Server) -> None:
    with server.raw("/tiny") as client:
        client.send(frame(TEXT, "x" * 600, fin=False) + frame(CONTINUATION, "x" * 600))
        assert client.read_close().code == 1009


def test_a_frame_that_only_claims_to_be_huge_is_refused_at_once(server: Server) -> None:
    with server.raw("/tiny") as client:
        client.send(frame(BINARY, length=1 << 40))
        assert client.read_close().code == 1009


def test_the_default_limit_is_one_mebibyte(server: Server) -> None:
    with server.raw("/describe") as client:
        client.binary(bytes(1 << 20))
        assert client.message() == f"bytes {1 << 20}"
        client.binary(bytes((1 << 20) + 1))
        assert client.read_close().code == 1009


def test_the_limit_is_configurable(serve, engine: str) -> None:
    server = serve(engine, config={"UWSGI_WEBSOCKET_MAX_MESSAGE_SIZE": 100})
    with server.raw("/describe") as client:
        client.binary(bytes(100))
        assert client.message() == "bytes 100"
        client.binary(bytes(101))
        assert client.read().opcode == CLOSE


def test_legacy_brings_back_the_types_of_0_6(serve, engine: str) -> None:
    server = serve(engine, config={"UWSGI_WEBSOCKET_LEGACY": True})
    with server.raw("/describe") as client:
        client.text("text")
        client.binary(b"binary")
        assert [client.message(), client.message()] == ["bytes 4", "bytes 6"]
    for path in ("/echo", "/iterate"):
        with server.raw(path) as client:
            client.echo("goes out as text")
            client.binary(b"so does this")
            assert client.message() == "so does this"
            assert client.leave().code == 1000
