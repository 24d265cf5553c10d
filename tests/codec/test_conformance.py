"""The conformance table against the codec alone: an echo without a network."""

from __future__ import annotations

import pytest

from flask_uwsgi_websocket.codec import (
    SERVER,
    Close,
    DeflateSettings,
    Fail,
    Ping,
    Pong,
    Protocol,
    negotiate,
    response_headers,
    validate_request,
)
from flask_uwsgi_websocket.codec.handshake import parse_extensions
from flask_uwsgi_websocket.exceptions import HandshakeError
from tests.conformance import (
    CASES,
    GOODBYE,
    HANDSHAKES,
    MAX_MESSAGE_SIZE,
    SAMPLE_KEY,
    Case,
    Handshake,
    Peer,
)


def echo(protocol: Protocol, data: bytes) -> bytes:
    """What an echo server sends for what it received."""
    replies = []
    for event in protocol.receive_data(data):
        match event:
            case str():
                replies.append(protocol.text(event))
            case bytes():
                replies.append(protocol.binary(event))
            case Ping():
                replies.append(protocol.pong(event.data))
            case Close():
                replies.append(protocol.close(event.code, event.reason))
            case Fail():
                replies.append(protocol.close(event.error.close_code, event.error.reason))
            case Pong():
                pass
    return b"".join(replies)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Case) -> None:
    deflate, answer = negotiate(parse_extensions(case.offer or ""), DeflateSettings())
    protocol = Protocol(SERVER, max_message_size=MAX_MESSAGE_SIZE, deflate=deflate)
    peer = Peer(case, answer)
    for chunk in case.chunks:
        peer.feed(echo(protocol, chunk))
    assert peer.done
    if case.close is None:
        assert not protocol.incomplete
        peer.feed(echo(protocol, GOODBYE))
        assert peer.reason == "goodbye"
    assert peer.problems() == []
    # Nothing but the network comes between this server and its peer, so nothing may be missing.
    assert peer.messages == list(case.messages)
    assert peer.pongs == list(case.pongs)
    assert echo(protocol, b"\x81\x80\0\0\0\0") == b""


def test_names_are_unique() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("handshake", HANDSHAKES, ids=lambda handshake: handshake.name)
def test_handshake(handshake: Handshake) -> None:
    fields = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": SAMPLE_KEY,
        "Sec-WebSocket-Version": "13",
        **handshake.fields,
    }
    headers = {name: value for name, value in fields.items() if value is not None}
    try:
        request = validate_request(handshake.method, headers)
    except HandshakeError as error:
        status, answer = error.status, dict(error.headers)
    else:
        _, extensions = negotiate(request.extensions, DeflateSettings())
        status, answer = 101, dict(response_headers(request.key, None, extensions))
    assert status == handshake.status
    for name, value in (handshake.answer or {}).items():
        assert answer.get(name) == value
