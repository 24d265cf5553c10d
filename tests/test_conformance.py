"""The conformance table (`tests/conformance.py`) over real uWSGI, on each engine."""

from __future__ import annotations

import time

import pytest

from tests.conformance import CASES, GOODBYE, HANDSHAKES, Case, Handshake, Peer
from tests.rawclient import RawClient, Refused
from tests.server import Server

CONFIG = {"UWSGI_WEBSOCKET_COMPRESSION": True}


@pytest.fixture
def compressing(engine: str, shared_server) -> Server:
    return shared_server(engine, config=CONFIG)


def feed_until_done(client: RawClient, peer: Peer) -> None:
    deadline = time.monotonic() + client.patience
    while not peer.done:
        assert time.monotonic() < deadline, f"nothing more came; {peer.problems()}"
        try:
            data = client.read_some()
        except (EOFError, ConnectionResetError):
            return
        peer.feed(data)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(compressing: Server, case: Case) -> None:
    headers = {"Sec-WebSocket-Extensions": case.offer}
    with compressing.raw("/echo", headers=headers) as client:
        assert client.answer is not None
        peer = Peer(case, client.answer.get("Sec-WebSocket-Extensions"))
        try:
            for chunk in case.chunks:
                client.send(chunk)
        except (BrokenPipeError, ConnectionResetError):
            # The server has seen enough: it need not read the rest of what it refuses.
            assert case.close is not None
        feed_until_done(client, peer)
        if case.close is None:
            client.send(GOODBYE)
            while peer.close is None:
                peer.feed(client.read_some())
        assert peer.problems() == []
        if peer.close is not None:
            assert client.ended()


@pytest.mark.parametrize("handshake", HANDSHAKES, ids=lambda handshake: handshake.name)
def test_handshake(compressing: Server, handshake: Handshake) -> None:
    with compressing.tcp() as client:
        try:
            answer = client.handshake("/echo", headers=handshake.fields, method=handshake.method)
        except Refused as refused:
            answer = refused.answer
        assert answer.status == handshake.status
        for name, value in (handshake.answer or {}).items():
            found = answer.get(name)
            assert (found and found.lower()) == (value and value.lower())
