"""UTF-8 in messages, RFC 6455 sections 5.6 and 8.1: against Python's own decoder, cut anywhere."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import pytest

from flask_uwsgi_websocket.codec import SERVER, Fail, Protocol
from flask_uwsgi_websocket.codec.messages import BinaryMessage, TextMessage
from tests.conformance import INVALID_TEXTS, VALID_TEXTS
from tests.rawclient import CONTINUATION, TEXT, frame

# The octets at which the rules of RFC 3629 change.
EDGES = bytes.fromhex("00417f808f909fa0bfc0c1c2dfe0e1ecedeeeff0f1f3f4f5ff")


def first_wrong_octet(data: bytes) -> int | None:
    """After how many octets nothing can make the text right; ``None``: it still can."""
    continuations = [bytes([0x80] * n) for n in range(4)]
    continuations += [bytes([0xBF] * n) for n in range(1, 4)] + [b"\xa0\x80", b"\x90\x80\x80"]
    for size in range(1, len(data) + 1):
        for more in continuations:
            try:
                (data[:size] + more).decode()
            except UnicodeDecodeError:
                continue
            break
        else:
            return size
    return None


def test_every_sequence_fails_at_its_first_wrong_octet() -> None:
    for octets in itertools.product(EDGES, repeat=3):
        message, data = TextMessage(), bytes(octets)
        expected = first_wrong_octet(data)
        failed = None
        for i in range(3):
            try:
                message.add(data[i : i + 1])
            except UnicodeDecodeError:
                failed = i + 1
                break
        assert failed == expected, data.hex()


@pytest.mark.parametrize("text", VALID_TEXTS)
def test_characters_cut_by_frames_and_chunks(text: str) -> None:
    data = text.encode()
    for cut in range(len(data) + 1):
        stream = frame(TEXT, data[:cut], fin=False) + frame(CONTINUATION, data[cut:])
        for chunk in range(len(stream)):
            protocol = Protocol(SERVER)
            events = protocol.receive_data(stream[:chunk]) + protocol.receive_data(stream[chunk:])
            assert events == [text]


@pytest.mark.parametrize(("data", "wrong_after"), INVALID_TEXTS)
def test_fails_at_the_wrong_octet_within_a_frame(data: bytes, wrong_after: int) -> None:
    protocol = Protocol(SERVER)
    start = frame(TEXT, data + b"x" * 100)[: 6 + wrong_after - 1]
    assert protocol.receive_data(start) == []
    wrong = frame(TEXT, data + b"x" * 100)[6 + wrong_after - 1 : 6 + wrong_after]
    [event] = protocol.receive_data(wrong)
    assert isinstance(event, Fail)
    assert event.error.close_code == 1007


def test_messages_in_pieces() -> None:
    text, binary = TextMessage(), BinaryMessage()
    for piece in ("é".encode()[:1], "é".encode()[1:], b"", b"x"):
        text.add(piece)
        binary.add(piece)
    assert text.finish(b"!") == "éx!"
    assert binary.finish(b"!") == "éx!".encode()
    assert TextMessage().finish(b"at once") == "at once"
    assert BinaryMessage().finish(b"at once") == b"at once"


@pytest.mark.parametrize(
    "pieces",
    [
        [b"a", b"b" * 5000, b"c", "é".encode() * 5000, b"d" * 4095, b"e"],
        [b"b" * 5000, "é".encode()[:1], "é".encode()[1:] + b"c" * 5000],
        [b"b" * 5000, b""],
        [b"a", "é".encode()] * 40_000,
    ],
    ids=["mixed", "large", "empty last", "small"],
)
def test_messages_in_pieces_of_all_sizes(pieces: list[bytes]) -> None:
    text, binary = TextMessage(), BinaryMessage()
    for piece in pieces[:-1]:
        text.add(piece)
        binary.add(piece)
    assert text.finish(pieces[-1]) == b"".join(pieces).decode()
    assert binary.finish(pieces[-1]) == b"".join(pieces)


@pytest.mark.parametrize("make", [TextMessage, BinaryMessage])
@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 100, 4095, 4096, 65536])
def test_a_message_in_the_making_costs_little_more_than_it_weighs(make: Any, size: int) -> None:
    weight = 4 << 20 if size > 1 else 1 << 18
    # One such character makes the whole of a str four times as large.
    piece = ("\U0001f642".encode() + b"x" * size)[:size] if size > 4 else b"x"
    message = make()
    tracemalloc.start()
    try:
        for _ in range(weight // size):
            message.add(bytes(bytearray(piece)))  # each another object
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.02 * weight + (1 << 19)
