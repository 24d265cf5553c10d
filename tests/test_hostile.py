"""Clients that mean harm: the worker lives, its memory stays bounded, others are served."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
import zlib
from contextlib import ExitStack
from typing import Any

import pytest

from tests.rawclient import (
    BINARY,
    CONTINUATION,
    PING,
    TEXT,
    RawClient,
    close_frame,
    frame,
    opening,
)
from tests.server import Server, eventually

MIB = 1 << 20
BOUNDED = 24 * MIB


def send_all(client: RawClient, chunks: list[bytes]) -> threading.Thread:
    """Write from a thread for as long as the server takes it."""

    def write() -> None:
        try:
            for chunk in chunks:
                client.send(chunk)
        except OSError:
            pass  # the server has had enough, or the test

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    return writer


def serves(server: Server) -> None:
    with server.raw() as client:
        client.echo("still here")


def test_a_handshake_one_byte_at_a_time(server: Server) -> None:
    with server.tcp() as client:
        for byte in opening("/return", server.address):
            client.send(bytes([byte]))
        assert client.read_answer().status == 101
        assert client.message() == "bye"


@pytest.mark.parametrize("way", ["abort", "close", "half_close"])
def test_leaving_at_every_stage_of_the_handshake(server: Server, way: str) -> None:
    request = opening("/return", server.address)
    for size in [*range(0, len(request), 7), len(request) - 1, len(request)]:
        with server.tcp() as client:
            client.send(request[:size])
            getattr(client, way)()
    serves(server)


@pytest.mark.parametrize(
    "extra",
    [
        [("X-Huge", "x" * 1_000_000)],
        [(f"X-Many-{index}", "x") for index in range(20_000)],
        [("X" * 60_000, "x")],
        [("Sec-WebSocket-Extensions", "permessage-deflate; " * 5000)],
        [("Sec-WebSocket-Protocol", "a, " * 20_000)],
        [("Cookie", "session=" + "." * 60_000)],
    ],
    ids=lambda extra: extra[0][0][:30],
)
def test_huge_headers(server: Server, extra: list[tuple[str, str]]) -> None:
    with server.tcp() as client:
        writer = send_all(client, [opening("/echo", server.address, extra=extra)])
        client.socket.settimeout(30)
        try:
            answer = client.read_answer()
        except (EOFError, ConnectionError):
            pass  # uWSGI refuses what is above its --buffer-size
        else:
            assert answer.status >= 400
        writer.join(30)
        assert not writer.is_alive()
    serves(server)


def test_a_thousand_connects_without_a_request(server: Server) -> None:
    memory = server.rss()
    for index in range(1000):
        client = server.tcp()
        client.abort() if index % 2 else client.close()
        if index % 100 == 0:
            serves(server)
    serves(server)
    assert server.rss() - memory < BOUNDED


def test_a_thousand_open_connects_without_a_request(shared_server, engine: str) -> None:
    # uWSGI's router holds them; straight from uWSGI's own socket each takes a core, for as long
    # as --socket-timeout.
    server = shared_server(engine, "http")
    with ExitStack() as stack:
        for index in range(1000):
            stack.enter_context(server.tcp())
            if index % 100 == 0:
                serves(server)
        serves(server)


def test_headers_that_never_end(server: Server) -> None:
    with server.tcp() as client:
        client.send(b"GET /echo HTTP/1.1\r\nHost: x\r\n")
        writer = send_all(client, [b"X-More: " + b"x" * 1000 + b"\r\n"] * 1000)
        writer.join(30)
        assert not writer.is_alive()
    serves(server)


def test_a_message_that_never_ends(server: Server) -> None:
    memory = server.rss()
    with server.raw() as client:
        fragments = [frame(BINARY, bytes(65536), fin=False)]
        fragments += [frame(CONTINUATION, bytes(65536), fin=False)] * 1000
        writer = send_all(client, fragments)
        assert client.read_close().code == 1009
        client.close()
        writer.join(30)
    assert server.rss() - memory < BOUNDED


def test_a_message_of_empty_fragments(server: Server) -> None:
    memory = server.rss()
    with server.raw() as client:
        client.send(frame(TEXT, "a", fin=False))
        for _ in range(100):
            client.send(frame(CONTINUATION, fin=False) * 1000)
        client.send(frame(CONTINUATION, "z"))
        assert client.message() == "az"
    assert server.rss() - memory < BOUNDED


@pytest.mark.slow
def test_a_message_of_single_bytes(server: Server) -> None:
    memory = server.rss()
    with server.raw() as client:
        client.send(frame(TEXT, "a", fin=False))
        for _ in range(100):
            client.send(frame(CONTINUATION, "b", fin=False) * 1000)
        client.send(frame(CONTINUATION, "z"))
        assert client.message() == "a" + "b" * 100_000 + "z"
    assert server.rss() - memory < BOUNDED


@pytest.mark.parametrize("path", ["/echo", "/blocked"])
def test_pings_without_end_from_a_client_that_does_not_read(
    server: Server, token: str, path: str
) -> None:
    memory = server.rss()
    with server.raw(path if path == "/echo" else f"{path}/{token}") as client:
        writer = send_all(client, [frame(PING, bytes(125)) * 500] * 1000)
        for _ in range(20):
            serves(server)
        assert server.rss() - memory < BOUNDED
        client.abort()
        writer.join(30)
    if path != "/echo":
        server.http("POST", f"/gates/{token}")


@pytest.mark.slow
def test_pings_without_end_are_answered_to_a_client_that_reads(server: Server) -> None:
    with server.raw() as client:
        writer = send_all(client, [frame(PING, b"%06d" % index) for index in range(20_000)])
        writer.join(30)
        # RFC 6455 5.5.3: only the most recent ping need be answered; in order, in any case.
        last = b""
        while last != b"019999":
            pong = client.read()
            assert pong.payload > last
            last = pong.payload


@pytest.mark.slow
def test_a_compression_bomb(shared_server, engine: str) -> None:
    server = shared_server(engine, config={"UWSGI_WEBSOCKET_COMPRESSION": True})
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join(deflate.compress(bytes(MIB)) for _ in range(200))
    bomb += deflate.flush(zlib.Z_SYNC_FLUSH)
    memory = server.rss()
    headers = {"Sec-WebSocket-Extensions": "permessage-deflate"}
    for _ in range(3):
        with server.raw(headers=headers) as client:
            client.send(frame(BINARY, bomb[:-4], rsv=4))
            assert client.read_close().code == 1009
    assert server.rss() - memory < BOUNDED


@pytest.mark.parametrize("path", ["/paused", "/echo"])
def test_many_small_compression_bombs(shared_server, engine: str, token: str, path: str) -> None:
    # Each message is within the limit; what waits for the handler must be, too.
    server = shared_server(engine, config={"UWSGI_WEBSOCKET_COMPRESSION": True})
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = deflate.compress(bytes(1_000_000)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    offer = "permessage-deflate; client_no_context_takeover"
    memory = server.rss()
    path = f"{path}/{token}" if path == "/paused" else path
    with server.raw(path, headers={"Sec-WebSocket-Extensions": offer}) as client:
        writer = send_all(client, [frame(BINARY, bomb[:-4], rsv=4)] * 1000)
        writer.join(2)
        serves(server)
        # One read of 16 KiB inflates to 16 MiB, and malloc keeps some of what was freed.
        assert server.rss() - memory < 3 * BOUNDED
        client.abort()
        writer.join(30)
    if path != "/echo":
        server.http("POST", f"/gates/{token}")


@pytest.mark.slow
def test_leaving_in_the_middle_of_a_flood_of_pings(server: Server) -> None:
    for size in (0, 125):
        for _ in range(10):
            with server.raw() as client:
                flood = send_all(client, [frame(PING, bytes(size)) * 2000] * 20)
                client.read()
                client.abort()
                flood.join(30)
    serves(server)
    server.wait_idle()
    assert "Traceback" not in server.new_log()


def test_a_flood_after_the_close_does_not_hold_the_slot(serve, engine: str) -> None:
    server = serve(engine, config={"TEST_TIMEOUT": 1})
    with server.raw("/return") as client:
        assert client.message() == "bye"
        assert client.read_close().code == 1000
        flood = send_all(client, [frame(BINARY, bytes(60_000))] * 1_000_000)
        server.wait_idle()
        client.close()
        flood.join(30)


@pytest.mark.parametrize("payload", [b"\xff" * 100_000, b"ok" * 50_000 + b"\xed\xa0\x80"])
@pytest.mark.parametrize("pieces", [1, 10])
def test_text_that_is_not_utf8(server: Server, payload: bytes, pieces: int) -> None:
    size = len(payload) // pieces
    with server.raw() as client:
        parts = [payload[at : at + size] for at in range(0, len(payload), size)]
        frames = [
            frame(CONTINUATION if index else TEXT, part, fin=index == len(parts) - 1)
            for index, part in enumerate(parts)
        ]
        send_all(client, frames)
        assert client.read_close().code == 1007
    serves(server)


def test_frames_that_promise_much_and_bring_little(server: Server) -> None:
    memory = server.rss()
    clients = [server.raw() for _ in range(15)]
    for client in clients:
        client.send(frame(BINARY, b"x", length=MIB))
    assert server.rss() - memory < BOUNDED
    for index, client in enumerate(clients):
        client.abort() if index % 2 else client.close()
    server.wait_idle()


@pytest.mark.parametrize(
    "stage",
    [
        b"",
        b"\x81",
        b"\x81\xfe\x10",
        frame(TEXT, "x" * 1000)[:500],
        frame(TEXT, "x", fin=False),
        frame(TEXT, "whole"),
        close_frame(1000),
        close_frame(1000)[:3],
    ],
    ids=lambda stage: stage[:4].hex() + f"-{len(stage)}",
)
@pytest.mark.parametrize("way", ["abort", "close", "half_close"])
def test_leaving_at_every_stage(server: Server, stage: bytes, way: str) -> None:
    for path in ("/echo", "/quickstart", "/kinds"):
        with server.raw(path) as client:
            client.send(stage)
            getattr(client, way)()
            if way == "half_close":
                client.read_to_end()
    serves(server)


def test_half_the_connections_do_nothing(server: Server) -> None:
    silent = [server.tcp() for _ in range(8)]
    for client in silent:
        client.send(struct.pack(">I", 0x47455420))  # "GET ", and no more
    for _ in range(5):
        serves(server)
    for client in silent:
        client.abort()
    eventually(lambda: server.close_wait() == 0, "no connection in CLOSE_WAIT")


@pytest.mark.slow
@pytest.mark.parametrize(
    "part",
    [b"GET /rea", b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf"],
    ids=["head", "body"],
)
def test_resets_in_the_middle_of_a_request_hold_no_core(
    shared_server, engine: str, part: bytes
) -> None:
    server = shared_server(engine, options=["--socket-timeout", "120"])
    server.allow_log("Traceback")  # of the view whose request is reset
    clients = []
    for _ in range(3 * server.cores):
        clients.append(server.tcp())
        clients[-1].send(part)
        if len(clients) == 8:
            for client in clients:
                client.abort()
            clients.clear()
    for client in clients:
        client.abort()
    assert server.get("/ready").status == 200
    server.wait_idle()  # long before --socket-timeout


def handled_between_pages(server: Server, data: bytes, **handshake: Any) -> int:
    """How many messages of four floods are handled between one page and the next, as a rule."""

    def flood(client: RawClient) -> None:
        with contextlib.suppress(OSError):
            while True:
                client.send(data)

    def handled() -> int:
        return int(server.get("/handled").body)

    with ExitStack() as stack:
        for _ in range(4):
            client = server.raw("/handle", **handshake)
            stack.callback(client.abort)  # with all that lies in the kernel
            stack.callback(client.socket.shutdown, socket.SHUT_RDWR)  # close waits for the sender
            threading.Thread(target=flood, args=(client,), daemon=True).start()
        eventually(lambda: handled() > 100, "the flood to rise")
        counts = [handled() for _ in range(16)]
    between = sorted(after - before for before, after in itertools.pairwise(counts))
    return between[len(between) // 2]


@pytest.mark.parametrize("engine", ["gevent", "asyncio"])
def test_compressed_floods_let_others_have_their_turn(serve, engine: str) -> None:
    server = serve(engine, config={"UWSGI_WEBSOCKET_COMPRESSION": True})
    compressor = zlib.compressobj(9, zlib.DEFLATED, -12)
    zeros = compressor.compress(bytes(1 << 20)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    headers = {"Sec-WebSocket-Extensions": "permessage-deflate; client_no_context_takeover"}
    data = frame(BINARY, zeros[:-4], rsv=4) * 16
    # However slow the machine is.
    assert handled_between_pages(server, data, headers=headers) <= 20


@pytest.mark.parametrize("engine", ["gevent", "asyncio"])
def test_floods_of_tiny_frames_let_others_have_their_turn(serve, engine: str) -> None:
    # In messages: one in a hundred fragments ends one.
    piece = frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 98 + frame(CONTINUATION)
    assert handled_between_pages(serve(engine), piece * 100) <= 800


def test_what_inflates_before_the_answer_takes_no_more_memory_than_later(
    serve, engine: str
) -> None:
    server = serve(
        engine,
        config={"UWSGI_WEBSOCKET_COMPRESSION": True, "TEST_TIMEOUT": 1},
        options=["--buffer-size", "65535"],
    )
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = deflate.compress(bytes(1_000_000)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    offer = "permessage-deflate; client_no_context_takeover"
    memory = server.rss()
    for _ in range(3):
        with server.tcp() as client:
            then = frame(BINARY, bomb[:-4], rsv=4) * 55
            client.handshake("/handle", headers={"Sec-WebSocket-Extensions": offer}, then=then)
            assert client.read_close().code == 1008
            assert server.rss() - memory < BOUNDED
