"""What must hold for every stream: properties checked by hypothesis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_uwsgi_websocket.codec import (
    CLIENT,
    SERVER,
    Close,
    Deflate,
    Event,
    Ping,
    Pong,
    Protocol,
    Role,
)
from fuzz.codec import check_stream
from tests.conformance import DEFLATE, Deflater
from tests.rawclient import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame

LIMIT = 70_000

# Small messages mostly, and those on both sides of each length encoding and of unmasking by view.
SIZES = st.integers(0, 140) | st.sampled_from([4096, 16383, 16384, 20000, 65535, 65536, 69999])
TEXTS = st.builds(lambda text, size: (text * size)[:size], st.text(min_size=1), SIZES).filter(
    lambda text: len(text.encode()) <= LIMIT
)
DATAS = st.builds(lambda data, size: (data * size)[:size], st.binary(min_size=1), SIZES)
MESSAGES = TEXTS | DATAS
CONTROLS = st.builds(Ping, st.binary(max_size=125)) | st.builds(Pong, st.binary(max_size=125))
ROLES = st.sampled_from([SERVER, CLIENT])


class Stream:
    """Frames as a peer may send them, and the events that they are."""

    def __init__(self, draw: Callable[..., Any], role: Role, compressed: bool) -> None:
        self.data = b""
        self.events: list[Event] = []
        self._draw = draw
        self._role = role
        self._deflate = Deflater(DEFLATE) if compressed else None

    def frame(self, opcode: int, payload: bytes, fin: bool = True, rsv: int = 0) -> None:
        key = self._draw(st.binary(min_size=4, max_size=4)) if self._role is SERVER else None
        self.data += frame(opcode, payload, fin=fin, rsv=rsv, mask=key)

    def control(self, event: Ping | Pong) -> None:
        self.frame(PING if isinstance(event, Ping) else PONG, event.data)
        self.events.append(event)

    def message(self, message: str | bytes) -> None:
        data = message.encode() if isinstance(message, str) else message
        rsv = 0
        if self._deflate and self._draw(st.booleans()):
            data, rsv = self._deflate(data), 4
        cuts = self._draw(st.lists(st.integers(0, len(data)), max_size=4).map(sorted))
        ends = [*cuts, len(data)]
        for i, (begin, end) in enumerate(zip([0, *cuts], ends, strict=True)):
            opcode = CONTINUATION if i else TEXT if isinstance(message, str) else BINARY
            fin = i == len(cuts)
            self.frame(opcode, data[begin:end], fin, 0 if i else rsv)
            if not fin:
                for event in self._draw(st.lists(CONTROLS, max_size=2)):
                    self.control(event)
        self.events.append(message)


@st.composite
def streams(draw: Callable[..., Any], role: Role = SERVER, compressed: bool = False) -> Stream:
    stream = Stream(draw, role, compressed)
    for event in draw(st.lists(MESSAGES | CONTROLS, max_size=6)):
        if isinstance(event, (Ping, Pong)):
            stream.control(event)
        else:
            stream.message(event)
    return stream


@st.composite
def chunks_of(draw: Callable[..., Any], data: bytes) -> list[bytes]:
    """The data in pieces: few anywhere, or all of one size."""
    if draw(st.booleans()):
        cuts = draw(st.lists(st.integers(0, len(data)), max_size=10).map(sorted))
    else:
        cuts = list(range(0, len(data), draw(st.integers(max(1, len(data) // 500), 70_000))))
    return [data[i:j] for i, j in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def receive(protocol: Protocol, chunks: list[bytes]) -> list[Event]:
    return [event for chunk in chunks for event in protocol.receive_data(chunk)]


def protocol_for(role: Role, compressed: bool) -> Protocol:
    return Protocol(role, max_message_size=LIMIT, deflate=Deflate() if compressed else None)


@pytest.mark.slow
@given(st.data(), ROLES, st.booleans())
def test_any_chunking_gives_the_same_events(data: st.DataObject, role: Role, packed: bool) -> None:
    stream = data.draw(streams(role, packed))
    protocol = protocol_for(role, packed)
    events = receive(protocol, data.draw(chunks_of(stream.data)))
    assert events == stream.events
    assert not protocol.incomplete


@pytest.mark.slow
@given(st.lists(MESSAGES | CONTROLS, max_size=10), ROLES, st.booleans(), st.booleans(), st.data())
def test_encode_then_decode_is_the_identity(
    events: list[Event], role: Role, packed: bool, takeover: bool, data: st.DataObject
) -> None:
    other = CLIENT if role is SERVER else SERVER
    sender = Protocol(
        role, deflate=Deflate(send_bits=10, send_takeover=takeover) if packed else None
    )
    receiver = Protocol(
        other, deflate=Deflate(receive_bits=10, receive_takeover=takeover) if packed else None
    )
    stream = b""
    for event in events:
        if isinstance(event, str):
            stream += sender.text(event)
        elif isinstance(event, bytes):
            stream += sender.binary(event)
        elif isinstance(event, Ping):
            stream += sender.ping(event.data)
        elif isinstance(event, Pong):
            stream += sender.pong(event.data)
    stream += sender.close(4000, "that was all")
    received = receive(receiver, data.draw(chunks_of(stream)))
    assert received == [*events, Close(4000, "that was all")]


def check_anything(data: bytes, chunks: list[bytes], role: Role, packed: bool) -> None:
    check_stream(data, chunks, role, limit=LIMIT, compressed=packed)


@pytest.mark.slow
@given(st.data(), ROLES, st.booleans(), st.binary(max_size=300))
def test_random_bytes(data: st.DataObject, role: Role, packed: bool, stream: bytes) -> None:
    check_anything(stream, data.draw(chunks_of(stream)), role, packed)


@pytest.mark.slow
@given(st.data(), ROLES, st.booleans())
def test_frames_with_anything_in_them(data: st.DataObject, role: Role, packed: bool) -> None:
    frames = data.draw(
        st.lists(
            st.builds(
                frame,
                st.sampled_from([TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG, 3, 15]),
                st.binary(max_size=130),
                fin=st.booleans(),
                rsv=st.sampled_from([0, 0, 0, 4, 1, 2]),
                mask=st.just(b"\x01\x02\x03\x04") if role is SERVER else st.none(),
                length_size=st.sampled_from([None, None, None, 2, 8]),
            ),
            max_size=6,
        )
    )
    stream = b"".join(frames)
    check_anything(stream, data.draw(chunks_of(stream)), role, packed)


@pytest.mark.slow
@given(st.data(), ROLES, st.booleans())
@settings(max_examples=200)
def test_mutated_bytes(data: st.DataObject, role: Role, packed: bool) -> None:
    stream = bytearray(data.draw(streams(role, packed)).data)
    for _ in range(data.draw(st.integers(1, 5))):
        if not stream:
            break
        at = data.draw(st.integers(0, len(stream) - 1) | st.integers(0, min(20, len(stream) - 1)))
        match data.draw(st.sampled_from(["flip", "cut", "double", "insert"])):
            case "flip":
                stream[at] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del stream[at : at + data.draw(st.integers(1, 10))]
            case "double":
                stream[at:at] = stream[at : at + 20]
            case "insert":
                stream[at:at] = data.draw(st.binary(max_size=10))
    check_anything(bytes(stream), data.draw(chunks_of(bytes(stream))), role, packed)
