"""A message for many connections: encoded once, and right for each."""

from __future__ import annotations

import pytest

from flask_uwsgi_websocket.codec import (
    CLIENT,
    SERVER,
    Deflate,
    DeflateSettings,
    Frames,
    Protocol,
    encode_message,
)
from flask_uwsgi_websocket.exceptions import LocalProtocolError
from tests.rawclient import BINARY, TEXT, frame

TEXTS = [f"tick {i}: " + "price volume " * 20 + str(i * i) for i in range(5)]


def ends(takeover: bool = True, **options: int) -> tuple[Protocol, Protocol]:
    """The two ends of a connection that compresses."""
    server = Deflate(send_takeover=takeover, settings=DeflateSettings(), **options)
    client = Deflate(receive_takeover=takeover)
    return Protocol(SERVER, deflate=server), Protocol(CLIENT, deflate=client)


@pytest.mark.parametrize("size", [0, 125, 126, 65536])
def test_plain(size: int) -> None:
    data, server = b"x" * size, Protocol(SERVER)
    assert encode_message("x" * size).for_(server) == frame(TEXT, data, mask=None)
    for message in (data, bytearray(data), memoryview(data)):
        assert encode_message(message).for_(server) == frame(BINARY, data, mask=None)


def test_short_messages_are_not_compressed() -> None:
    server, _ = ends()
    assert encode_message("short").for_(server) == frame(TEXT, "short", mask=None)


@pytest.mark.parametrize("takeover", [True, False])
def test_between_messages_of_one_s_own(takeover: bool) -> None:
    pairs = [ends(takeover) for _ in range(3)]
    for text in TEXTS:
        frames = encode_message(text)
        for server, client in pairs:
            for sent in (server.text(text), frames.for_(server), server.binary(text.encode())):
                [received] = client.receive_data(sent)
                assert received in (text, text.encode())
                assert len(sent) < len(text)


def test_alike_connections_share_a_frame() -> None:
    frames = encode_message(TEXTS[0])
    (first, _), (second, _), (alone, _) = ends(), ends(), ends(takeover=False)
    assert frames.for_(first) is frames.for_(second) is frames.for_(alone)
    small, client = ends(send_bits=9)
    assert frames.for_(small) is not frames.for_(first)
    assert client.receive_data(frames.for_(small)) == [TEXTS[0]]


@pytest.mark.parametrize("takeover", [True, False])
def test_several_messages_that_go_out_together(takeover: bool) -> None:
    messages = [*TEXTS, "short", b"", TEXTS[0].encode()]
    payloads = [one.encode() if isinstance(one, str) else one for one in messages]
    opcodes = [TEXT if isinstance(one, str) else BINARY for one in messages]
    pairs = [ends(takeover), ends(not takeover), ends(takeover)]
    pairs.append((Protocol(SERVER), Protocol(CLIENT)))
    for _ in range(3):
        frames = Frames(*zip(opcodes, payloads, strict=True))
        for server, client in pairs:
            assert frames.is_plain_for(server) == (server.deflate is None)
            assert client.receive_data(frames.for_(server)) == messages
            assert client.receive_data(server.text(TEXTS[1])) == [TEXTS[1]]
        assert frames.for_(pairs[0][0]) is frames.for_(pairs[2][0])
    assert frames.plain == b"".join(
        frame(opcode, payload, mask=None) for opcode, payload in zip(opcodes, payloads, strict=True)
    )


def test_text_that_utf_8_cannot_say() -> None:
    with pytest.raises(LocalProtocolError, match="surrogates"):
        encode_message("\ud800")
