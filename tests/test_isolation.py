"""What one client does, right or wrong, stays on its own connection."""

from __future__ import annotations

import pytest

from tests.rawclient import BINARY, CONTINUATION, TEXT, frame
from tests.server import Server


@pytest.fixture
def server(engine: str, shared_server) -> Server:
    # One of the clients below says no more, and need not be waited for.
    return shared_server(engine, config={"TEST_TIMEOUT": 0.5})


def test_interleaved_fragments_of_two_clients_never_mix(server: Server) -> None:
    with server.raw() as one, server.raw() as two:
        one.send(frame(TEXT, "SECRET-OF-ONE, ", fin=False))
        two.send(frame(TEXT, "two begins, ", fin=False))
        one.send(frame(CONTINUATION, "more, ", fin=False))
        two.send(frame(CONTINUATION, "two ends"))
        assert two.message() == "two begins, two ends"
        one.send(frame(CONTINUATION, "end"))
        assert one.message() == "SECRET-OF-ONE, more, end"


def test_halves_of_frames_of_many_clients_never_mix(server: Server) -> None:
    clients = [server.raw() for _ in range(10)]
    frames = [frame(TEXT, f"client {index} " * 50) for index in range(10)]
    try:
        for client, data in zip(clients, frames, strict=True):
            client.send(data[: len(data) // 2])
        for client, data in reversed(list(zip(clients, frames, strict=True))):
            client.send(data[len(data) // 2 :])
        assert [c.message() for c in clients] == [f"client {index} " * 50 for index in range(10)]
    finally:
        for client in clients:
            client.close()


def test_fragments_left_behind_are_not_the_next_client_s(server: Server) -> None:
    for _ in range(5):
        with server.raw() as gone:
            gone.send(frame(TEXT, "left behind", fin=False) + b"\x81")
    with server.raw() as client:
        client.echo("mine")


STRAYS = {
    "a continuation of nothing": frame(CONTINUATION, "b-tail"),
    "a continuation of nothing, unfinished": frame(CONTINUATION, "b-tail", fin=False),
    "an unmasked frame": frame(TEXT, "x", mask=None),
    "a reserved bit": frame(TEXT, "x", rsv=4),
    "a reserved opcode": frame(0x3, "x"),
    "a reserved control opcode": frame(0xB, "x"),
    "a fragmented ping": frame(0x9, "x", fin=False),
    "a ping of 126 bytes": frame(0x9, "x" * 126),
    "a new message inside another": frame(TEXT, "x", fin=False) + frame(BINARY, "y"),
    "a length with its highest bit set": frame(BINARY, length=(1 << 63) + 5),
}


@pytest.mark.parametrize("stray", STRAYS.values(), ids=STRAYS.keys())
def test_a_broken_frame_closes_its_own_connection_and_nothing_else(
    server: Server, stray: bytes
) -> None:
    pid = server.worker_pid
    with server.raw() as other, server.raw() as client:
        other.send(frame(TEXT, "begun, ", fin=False))
        client.send(stray)
        assert client.read_close().code == 1002
        assert client.ended()
        other.send(frame(CONTINUATION, "done"))
        assert other.message() == "begun, done"
    assert server.worker_pid == pid


def test_messages_before_the_broken_frame_are_not_lost(server: Server, token: str) -> None:
    with server.raw(f"/collect/{token}") as client:
        client.send(frame(TEXT, "one") + frame(TEXT, "two") + frame(CONTINUATION, "stray"))
        assert client.read_close().code == 1002
    seen = server.record(token)
    assert seen["messages"] == ["one", "two"]
    assert seen["code"] == 1002


BAD_TEXT = {
    "latin-1": frame(TEXT, b"caf\xe9"),
    "an overlong slash": frame(TEXT, b"\xc0\xaf"),
    "a surrogate": frame(TEXT, b"\xed\xa0\x80"),
    "beyond Unicode": frame(TEXT, b"\xf4\x90\x80\x80"),
    "cut off": frame(TEXT, b"\xe2\x98"),
    "cut off by the last fragment": frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"\x98"),
    "already bad in the first fragment": frame(TEXT, b"ab\xff", fin=False),
}


@pytest.mark.parametrize("text", BAD_TEXT.values(), ids=BAD_TEXT.keys())
def test_text_that_is_not_utf8_closes_with_1007(server: Server, text: bytes) -> None:
    with server.raw() as client:
        client.send(text)
        assert client.read_close().code == 1007
        assert client.ended()
