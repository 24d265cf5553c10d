"""Frames, RFC 6455 section 5: what is sent, what is read, by both roles."""

from __future__ import annotations

import pytest

from flask_uwsgi_websocket.codec import CLIENT, SERVER, Fail, Ping, Pong, Protocol, Role
from flask_uwsgi_websocket.exceptions import (
    InvalidPayload,
    LocalProtocolError,
    MessageTooBig,
    RemoteProtocolError,
)
from tests.rawclient import BINARY, CONTINUATION, PING, TEXT, frame

SIZES = (0, 1, 2, 125, 126, 127, 4096, 16383, 16384, 65535, 65536, 70000)


@pytest.fixture(params=[SERVER, CLIENT])
def role(request: pytest.FixtureRequest) -> Role:
    return request.param


def failure(protocol: Protocol, data: bytes) -> RemoteProtocolError:
    """The error of the Fail that the data must lead to, and nothing else."""
    [event] = protocol.receive_data(data)
    assert isinstance(event, Fail)
    assert not protocol.incomplete
    return event.error


# RFC 6455 5.7: the examples


def test_examples_of_the_rfc() -> None:
    server, client = Protocol(SERVER), Protocol(CLIENT)
    assert server.text("Hello") == bytes.fromhex("810548656c6c6f")
    assert server.receive_data(bytes.fromhex("818537fa213d7f9f4d5158")) == ["Hello"]
    assert client.receive_data(bytes.fromhex("010348656c") + bytes.fromhex("80026c6f")) == ["Hello"]
    assert server.ping(b"Hello") == bytes.fromhex("890548656c6c6f")
    assert server.receive_data(bytes.fromhex("8a8537fa213d7f9f4d5158")) == [Pong(b"Hello")]
    assert server.binary(bytes(256)) == bytes.fromhex("827E0100") + bytes(256)
    assert server.binary(bytes(65536)) == bytes.fromhex("827F0000000000010000") + bytes(65536)


# Sending


@pytest.mark.parametrize("size", SIZES)
def test_a_server_sends_the_shortest_unmasked_frame(size: int) -> None:
    server, data = Protocol(SERVER), b"x" * size
    assert server.binary(data) == frame(BINARY, data, mask=None)
    assert server.text("x" * size) == frame(TEXT, data, mask=None)


@pytest.mark.parametrize("size", SIZES)
def test_a_client_masks_with_a_new_key_each_time(size: int) -> None:
    client, data = Protocol(CLIENT), b"x" * size
    header = len(frame(BINARY, data)) - size
    frames = [client.binary(data) for _ in range(5)]
    keys = {sent[header - 4 : header] for sent in frames}
    assert len(keys) == 5
    for sent in frames:
        assert sent == frame(BINARY, data, mask=sent[header - 4 : header])
        assert Protocol(SERVER).receive_data(sent) == [data]


@pytest.mark.parametrize("data", [b"1234", bytearray(b"1234"), memoryview(b"1234")])
def test_binary_takes_whatever_holds_bytes(role: Role, data: bytes) -> None:
    sender = Protocol(role)
    receiver = Protocol(CLIENT if role is SERVER else SERVER)
    assert receiver.receive_data(sender.binary(data)) == [b"1234"]


def test_binary_counts_octets_not_items() -> None:
    numbers = memoryview(bytes(range(8))).cast("I")
    assert Protocol(SERVER).binary(numbers) == b"\x82\x08" + bytes(range(8))


def test_text_that_utf_8_cannot_say_is_not_sent() -> None:
    protocol = Protocol(SERVER)
    with pytest.raises(LocalProtocolError, match="surrogates"):
        protocol.text("\ud800")
    with pytest.raises(LocalProtocolError, match="surrogates"):
        protocol.close(1000, "\ud800")
    assert not protocol.close_sent


def test_a_control_frame_holds_125_octets(role: Role) -> None:
    protocol = Protocol(role)
    for send in (protocol.ping, protocol.pong):
        assert len(send(b"x" * 125)) == 127 + (4 if role is CLIENT else 0)
        with pytest.raises(LocalProtocolError):
            send(b"x" * 126)


# Receiving


def test_masking_is_demanded_of_clients_and_refused_from_servers() -> None:
    for opcode in (TEXT, BINARY, PING):
        unmasked, masked = frame(opcode, b"", mask=None), frame(opcode, b"")
        assert failure(Protocol(SERVER), unmasked).reason == "frame not masked"
        assert failure(Protocol(CLIENT), masked).reason == "masked frame"


@pytest.mark.parametrize(
    ("size", "step"),
    [
        (size, step)
        for size in SIZES
        for step in (1, 7, 1000, 20_000, 100_000)
        if size < step * 5000
    ],
)
def test_chunks_do_not_matter(role: Role, size: int, step: int) -> None:
    mask = b"\x01\x02\x03\x04" if role is SERVER else None
    text = ("é" * size)[: size // 2] + "x" * (size % 2)
    stream = b"".join(
        frame(TEXT, text, mask=mask)
        + frame(PING, b"ping", mask=mask)
        + frame(BINARY, text.encode(), fin=False, mask=mask)
        + frame(PING, b"within", mask=mask)
        + frame(CONTINUATION, b"end", mask=mask)
        for _ in range(2)
    )
    protocol = Protocol(role)
    events = []
    for start in range(0, len(stream), step):
        events += protocol.receive_data(stream[start : start + step])
    once = [text, Ping(b"ping"), Ping(b"within"), text.encode() + b"end"]
    assert events == once * 2
    assert not protocol.incomplete


def test_incomplete_says_that_more_must_come() -> None:
    protocol = Protocol(SERVER)
    stream = frame(TEXT, "one", fin=False) + frame(PING) + frame(CONTINUATION, "two")
    assert not protocol.incomplete
    for octet in stream[:-1]:
        protocol.receive_data(bytes([octet]))
        assert protocol.incomplete
    assert protocol.receive_data(stream[-1:]) == ["onetwo"]
    assert not protocol.incomplete
    protocol.receive_data(frame(PING)[:1])
    assert protocol.incomplete


def test_no_data_is_nothing() -> None:
    protocol = Protocol(SERVER)
    assert protocol.receive_data(b"") == []
    assert not protocol.incomplete


# Limits


@pytest.mark.parametrize("limit", [0, 1, 100, 125, 126, 1000, 65535, 65536, 100_000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("before", [b"", frame(PING)])
def test_the_limit_is_exact(role: Role, limit: int, opcode: int, before: bytes) -> None:
    mask = b"\x01\x02\x03\x04" if role is SERVER else None
    if role is CLIENT:
        before = b""
    protocol = Protocol(role, max_message_size=limit)
    *_, message = protocol.receive_data(before + frame(opcode, b"x" * limit, mask=mask))
    assert len(message) == limit
    above = frame(opcode, b"x" * (limit + 1), mask=mask)
    *_, event = protocol.receive_data(before + above)
    assert isinstance(event.error, MessageTooBig)
    assert event.error.close_code == 1009


def test_the_limit_counts_all_fragments(role: Role) -> None:
    mask = b"\x01\x02\x03\x04" if role is SERVER else None
    part = frame(TEXT, b"x" * 50, fin=False, mask=mask)
    more = frame(CONTINUATION, b"x" * 50, fin=False, mask=mask)
    protocol = Protocol(role, max_message_size=149)
    assert protocol.receive_data(part + more) == []
    # The header is enough.
    assert isinstance(failure(protocol, more[:2]), MessageTooBig)


def test_the_next_message_counts_anew() -> None:
    protocol = Protocol(SERVER, max_message_size=130)
    stream = frame(TEXT, b"x" * 100, fin=False) + frame(CONTINUATION, b"x" * 30)
    assert protocol.receive_data(stream * 3) == ["x" * 130] * 3


# Failing


@pytest.mark.parametrize("step", [1, 1000])
def test_messages_before_a_violation_are_not_lost(step: int) -> None:
    stream = frame(TEXT, "kept") + frame(BINARY, b"kept") + b"\xff\xff" + frame(TEXT, "lost")
    protocol = Protocol(SERVER)
    events = []
    for start in range(0, len(stream), step):
        events += protocol.receive_data(stream[start : start + step])
    assert events[:2] == ["kept", b"kept"]
    [failed] = events[2:]
    assert failed.error.close_code == 1002


def test_a_failure_holds_on_to_no_payload() -> None:
    for stream in (
        frame(TEXT, b"secret\xff"),
        frame(TEXT, b"secret\xff") * 2,
        frame(11, b"secret"),
    ):
        error = failure(Protocol(SERVER), stream)
        assert error.__traceback__ is None
        assert error.__context__ is None
        assert "secret" not in repr(error)


def test_nothing_is_read_after_a_failure() -> None:
    protocol = Protocol(SERVER)
    assert isinstance(failure(protocol, frame(TEXT, b"\xff")), InvalidPayload)
    for data in (frame(TEXT, "late"), frame(PING), b"\xff" * 200, b""):
        assert protocol.receive_data(data) == []
    assert not protocol.close_received


def test_connections_share_nothing() -> None:
    one, other = Protocol(SERVER), Protocol(SERVER)
    one.receive_data(frame(TEXT, "secret of one, ", fin=False))
    assert failure(other, frame(CONTINUATION, "tail")).close_code == 1002
    assert one.receive_data(frame(CONTINUATION, "its end")) == ["secret of one, its end"]


def test_events_of_different_kinds_differ() -> None:
    assert Ping(b"x") == Ping(b"x")
    assert Ping(b"x") != Pong(b"x")
