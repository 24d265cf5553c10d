"""permessage-deflate, RFC 7692."""

from __future__ import annotations

import itertools
import tracemalloc
import zlib

import pytest

from flask_uwsgi_websocket.codec import (
    CLIENT,
    SERVER,
    Deflate,
    DeflateSettings,
    Extension,
    Fail,
    Protocol,
    negotiate,
)
from flask_uwsgi_websocket.codec.deflate import accept, offer
from flask_uwsgi_websocket.codec.handshake import parse_extensions
from flask_uwsgi_websocket.exceptions import HandshakeError, InvalidPayload, MessageTooBig
from tests.conformance import DEFLATE, Deflater
from tests.rawclient import BINARY, CONTINUATION, TEXT, frame

DEFAULT = DeflateSettings()
EVERY = [
    DeflateSettings(server_bits, client_bits, server_alone, client_alone)
    for server_bits, client_bits in ((9, 15), (15, 9), (12, 12), (15, 15))
    for server_alone, client_alone in itertools.product((False, True), repeat=2)
]


def agreed(settings: DeflateSettings, server_settings: DeflateSettings) -> tuple[Deflate, Deflate]:
    """The extension of both sides, the server's first."""
    server, answer = negotiate(parse_extensions(offer(settings)), server_settings)
    assert server is not None
    assert answer is not None
    client = accept(parse_extensions(answer), settings)
    assert client is not None
    return server, client


# Negotiation


@pytest.mark.parametrize("client_settings", EVERY, ids=offer)
@pytest.mark.parametrize("server_settings", EVERY, ids=offer)
def test_both_sides_agree(
    client_settings: DeflateSettings, server_settings: DeflateSettings
) -> None:
    server, client = agreed(client_settings, server_settings)
    assert server.send_bits <= client.receive_bits
    assert server.receive_bits == client.send_bits
    assert server.send_takeover == client.receive_takeover
    assert server.receive_takeover >= client.send_takeover
    for settings in client_settings, server_settings:
        assert server.send_bits <= settings.server_max_window_bits
        assert client.send_bits <= settings.client_max_window_bits
        assert not (settings.server_no_context_takeover and server.send_takeover)
        assert not (settings.client_no_context_takeover and client.send_takeover)


@pytest.mark.parametrize(
    ("offers", "settings", "answer"),
    [
        ("", DEFAULT, None),
        ("other; x=1", DEFAULT, None),
        (DEFLATE, DeflateSettings(15, 15), DEFLATE),
        # Named only to a client that offered it: some know nothing of it, and refuse.
        (DEFLATE, DEFAULT, DEFLATE),
        (
            f"{DEFLATE}; server_max_window_bits=15",
            DEFAULT,
            f"{DEFLATE}; server_max_window_bits=12",
        ),
        (f"{DEFLATE}; client_max_window_bits", DeflateSettings(15, 15), DEFLATE),
        # Asked for, so it must be granted by name even where it is what it would be anyway.
        (
            f"{DEFLATE}; server_max_window_bits=15",
            DeflateSettings(15, 15),
            f"{DEFLATE}; server_max_window_bits=15",
        ),
        # The first that can be: zlib writes no window of 8 bits.
        (
            f"{DEFLATE}; server_max_window_bits=8, {DEFLATE}; server_max_window_bits=10, {DEFLATE}",
            DEFAULT,
            f"{DEFLATE}; server_max_window_bits=10",
        ),
        (
            f"{DEFLATE}; server_max_window_bits=8",
            DEFAULT,
            None,
        ),
        # Without client_max_window_bits in the offer it must not be in the answer.
        (DEFLATE, DeflateSettings(15, 9), DEFLATE),
        (
            f"{DEFLATE}; client_max_window_bits=8",
            DeflateSettings(15, 15),
            f"{DEFLATE}; client_max_window_bits=8",
        ),
        (
            DEFLATE,
            DeflateSettings(15, 15, True, True),
            f"{DEFLATE}; server_no_context_takeover; client_no_context_takeover",
        ),
    ],
)
def test_answers(offers: str, settings: DeflateSettings, answer: str | None) -> None:
    deflate, said = negotiate(parse_extensions(offers), settings)
    assert said == answer
    assert (deflate is None) == (answer is None)


def test_a_client_without_window_bits_may_use_them_all() -> None:
    deflate, _ = negotiate([Extension(DEFLATE)], DEFAULT)
    assert deflate is not None
    assert deflate.receive_bits == 15


def test_the_server_s_window_is_small_also_where_it_is_not_named() -> None:
    deflate, answer = negotiate([Extension(DEFLATE)], DeflateSettings(server_max_window_bits=9))
    assert (deflate and deflate.send_bits, answer) == (9, DEFLATE)


@pytest.mark.parametrize(
    ("answer", "settings"),
    [
        ("other", DEFAULT),
        (DEFLATE, None),
        (f"{DEFLATE}; server_max_window_bits=12, {DEFLATE}; server_max_window_bits=12", DEFAULT),
        (DEFLATE, DEFAULT),  # server_max_window_bits=12 was asked for
        (f"{DEFLATE}; server_max_window_bits=13", DEFAULT),
        (f"{DEFLATE}; unknown", DeflateSettings(15)),
        (f"{DEFLATE}; client_max_window_bits", DeflateSettings(15)),
        (f"{DEFLATE}; client_max_window_bits=8", DeflateSettings(15)),
        (f"{DEFLATE}; client_no_context_takeover=1", DeflateSettings(15)),
        (DEFLATE, DeflateSettings(15, server_no_context_takeover=True)),
    ],
)
def test_answers_that_were_not_offered(answer: str, settings: DeflateSettings | None) -> None:
    with pytest.raises(HandshakeError):
        accept(parse_extensions(answer), settings)


def test_a_server_may_refuse_and_may_ask() -> None:
    assert accept([], DEFAULT) is None
    answer = f"{DEFLATE}; server_max_window_bits=8; client_no_context_takeover"
    deflate = accept(parse_extensions(answer), DEFAULT)
    assert deflate is not None
    assert deflate.receive_bits == 9  # zlib has none of 8, and a larger one reads it as well
    assert not deflate.send_takeover


@pytest.mark.parametrize(
    "wrong",
    [
        {"server_max_window_bits": 8},
        {"server_max_window_bits": 16},
        {"client_max_window_bits": 8},
        {"level": -1},
        {"level": 10},
        {"mem_level": 0},
        {"mem_level": 10},
    ],
)
def test_settings_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DeflateSettings(**wrong)


# Compression


@pytest.mark.parametrize("settings", EVERY, ids=offer)
@pytest.mark.parametrize("size", [64, 1000, 20_000, 100_000])
def test_messages_go_both_ways(settings: DeflateSettings, size: int) -> None:
    server_deflate, client_deflate = agreed(settings, settings)
    server = Protocol(SERVER, deflate=server_deflate)
    client = Protocol(CLIENT, deflate=client_deflate)
    for i in range(3):
        text = f"message {i}, "
        text = (text * size)[:size]
        for sender, receiver in ((server, client), (client, server)):
            sent = sender.text(text)
            assert len(sent) < size
            assert receiver.receive_data(sent) == [text]
            assert receiver.receive_data(sender.binary(text.encode())) == [text.encode()]


def test_short_messages_are_not_worth_it() -> None:
    deflate, _ = negotiate([Extension(DEFLATE)], DeflateSettings(threshold=10))
    protocol = Protocol(SERVER, deflate=deflate)
    assert protocol.text("x" * 9) == frame(TEXT, "x" * 9, mask=None)
    assert protocol.text("x" * 10)[0] == 0xC1
    assert protocol.binary(b"x" * 9) == frame(BINARY, b"x" * 9, mask=None)
    assert protocol.binary(b"x" * 10)[0] == 0xC2


def test_empty_messages_can_be_compressed() -> None:
    settings = DeflateSettings(threshold=0)
    server_deflate, client_deflate = agreed(settings, settings)
    server = Protocol(SERVER, deflate=server_deflate)
    client = Protocol(CLIENT, deflate=client_deflate)
    for _ in range(3):
        assert server.text("") == b"\xc1\x01\x00"
        assert client.receive_data(server.text("") + server.text("x")) == ["", "x"]


def test_takeover_shares_the_window_and_no_takeover_does_not() -> None:
    text = "".join(chr(33 + i * i * i % 90) + str(i) for i in range(300))
    shared, alone = Deflate(), Deflate(send_takeover=False)
    first, second = shared.compress(text.encode()), shared.compress(text.encode())
    assert len(second) < len(first) / 10
    assert alone.compress(text.encode()) == alone.compress(text.encode()) == first


def test_connections_share_no_window() -> None:
    one, other = Deflate(), Deflate()
    expected = Deflate().compress(b"secret")
    one.compress(b"secret")
    assert other.compress(b"secret") == expected


def test_a_message_that_refers_to_the_one_before_fails_without_takeover() -> None:
    text, deflate = "hello, hello, hello", Deflater(DEFLATE)
    first, second = frame(TEXT, deflate(text), rsv=4), frame(TEXT, deflate(text), rsv=4)
    assert Protocol(SERVER, deflate=Deflate()).receive_data(first + second) == [text, text]
    alone = Protocol(SERVER, deflate=Deflate(receive_takeover=False))
    assert alone.receive_data(first) == [text]
    [event] = alone.receive_data(second)
    assert isinstance(event, Fail)
    assert isinstance(event.error, InvalidPayload)


# The limit, kept while inflating


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """200 KB that inflate to 200 MiB."""
    return Deflater(DEFLATE, 9)(bytes(200 << 20))


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [100, 10_000_000])
@pytest.mark.parametrize("parts", [1, 10])
def test_a_bomb_costs_the_limit_at_most(bomb: bytes, chunk: int, parts: int) -> None:
    limit = 1 << 20
    size = len(bomb) // parts + 1
    stream = frame(BINARY, bomb[:size], fin=parts == 1, rsv=4)
    for start in range(size, len(bomb), size):
        stream += frame(CONTINUATION, bomb[start : start + size], fin=start + size >= len(bomb))
    protocol = Protocol(SERVER, max_message_size=limit, deflate=Deflate())
    events = []
    tracemalloc.start()
    try:
        for start in range(0, len(stream), chunk):
            events += protocol.receive_data(stream[start : start + chunk])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    [event] = events
    assert isinstance(event.error, MessageTooBig)
    # What came, its unmasked copy, and what inflated: twice while a buffer grows.
    assert peak < 2 * min(chunk, len(stream)) + 3 * limit


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 1002, 5000])
@pytest.mark.parametrize("parts", [1, 2, 7])
def test_the_limit_is_exact(size: int, parts: int) -> None:
    packed = Deflater(DEFLATE)(b"x" * size)
    step = len(packed) // parts + 1
    pieces = [packed[i : i + step] for i in range(0, len(packed), step)]
    stream = b"".join(
        frame(0 if i else BINARY, piece, fin=i == len(pieces) - 1, rsv=0 if i else 4)
        for i, piece in enumerate(pieces)
    )
    [event] = Protocol(SERVER, max_message_size=1000, deflate=Deflate()).receive_data(stream)
    if size <= 1000:
        assert event == b"x" * size
    else:
        assert isinstance(event, Fail)
        assert isinstance(event.error, MessageTooBig)


def test_blocks_that_hold_nothing_are_limited_too() -> None:
    protocol = Protocol(SERVER, max_message_size=1000, deflate=Deflate())
    empty = b"\x00\x00\x00\xff\xff" * 100
    events = protocol.receive_data(frame(TEXT, empty, fin=False, rsv=4))
    while not events:
        events = protocol.receive_data(frame(CONTINUATION, empty, fin=False))
    assert isinstance(events[0].error, MessageTooBig)


def test_what_deflate_makes_longer_may_still_reach_the_limit() -> None:
    data = bytes(i * i * 7 % 251 for i in range(1000))
    stored = Deflater(DEFLATE, 0)(data)
    assert len(stored) > 1000
    protocol = Protocol(SERVER, max_message_size=1000, deflate=Deflate())
    assert protocol.receive_data(frame(BINARY, stored, rsv=4)) == [data]


# Streams that end within a message


def finished(data: bytes) -> bytes:
    """A stream whose last block says so (BFINAL, RFC 7692 7.2.3.4)."""
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush(zlib.Z_FINISH)


@pytest.mark.parametrize("end", [b"", b"\x00"])
@pytest.mark.parametrize("chunk", [1, 1000])
def test_a_final_block_ends_a_stream_and_not_the_message(end: bytes, chunk: int) -> None:
    stream = frame(TEXT, finished(b"one ") + finished(b"two") + end, rsv=4)
    stream += frame(TEXT, finished(b"three") + end, rsv=4)
    stream += frame(TEXT, Deflater(DEFLATE)("four"), rsv=4)
    protocol = Protocol(SERVER, deflate=Deflate())
    events = []
    for start in range(0, len(stream), chunk):
        events += protocol.receive_data(stream[start : start + chunk])
    assert events == ["one two", "three", "four"]


def test_a_stream_may_end_before_the_last_fragment() -> None:
    stream = frame(TEXT, finished(b"one"), fin=False, rsv=4) + frame(CONTINUATION, b"")
    stream += frame(TEXT, Deflater(DEFLATE)("two"), rsv=4)
    assert Protocol(SERVER, deflate=Deflate()).receive_data(stream) == ["one", "two"]


@pytest.mark.parametrize("chunk", [1, 1000])
def test_streams_of_a_message_are_counted(chunk: int) -> None:
    def receive(streams: int, times: int) -> list:
        protocol = Protocol(SERVER, deflate=Deflate())
        data = frame(TEXT, finished(b"") * streams, rsv=4) * times
        return [
            event
            for start in range(0, len(data), chunk)
            for event in protocol.receive_data(data[start : start + chunk])
        ]

    assert receive(16, 10) == [""] * 10
    [event] = receive(17, 1)
    assert isinstance(event.error, InvalidPayload)
    assert "streams" in event.error.reason


def test_the_limit_holds_over_streams() -> None:
    stream = frame(BINARY, finished(b"x" * 600) + finished(b"x" * 600), rsv=4)
    [event] = Protocol(SERVER, max_message_size=1000, deflate=Deflate()).receive_data(stream)
    assert isinstance(event.error, MessageTooBig)
    [event] = Protocol(SERVER, max_message_size=1200, deflate=Deflate()).receive_data(stream)
    assert event == b"x" * 1200


def test_what_does_not_inflate_is_the_peers_mistake() -> None:
    [event] = Protocol(SERVER, deflate=Deflate()).receive_data(frame(TEXT, b"\xff", rsv=4))
    assert isinstance(event, Fail)
    assert event.error.close_code == 1007
    assert event.error.__context__ is None or event.error.__suppress_context__
