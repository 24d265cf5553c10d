"""The conformance table (`tests/conformance.py`) over real uWSGI.

A case of each kind on each engine, and all others on threads, where the handler itself reads: the
codec is one, and what is an engine's own, how octets come in and go out and how a connection ends,
does not depend on which octets they are. `tests/codec` has the whole again.
"""

from __future__ import annotations

import time

import pytest

from tests.conformance import GOODBYE, HANDSHAKES, REST, SAMPLE, Case, Handshake, Peer
from tests.rawclient import RawClient, Refused
from tests.server import Server

#: Some clients never answer the server's Close, and 5 s for each would be two minutes.
CONFIG = {"UWSGI_WEBSOCKET_COMPRESSION": True, "TEST_TIMEOUT": 0.5}


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


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["threads"])
@pytest.mark.parametrize("case", REST, ids=lambda case: case.name)
def test_all_other_cases(compressing: Server, case: Case) -> None:
    converse(compressing, case)


@pytest.mark.parametrize("case", SAMPLE, ids=lambda case: case.name)
def test_a_case_of_each_kind(compressing: Server, case: Case) -> None:
    converse(compressing, case)


def converse(server: Server, case: Case) -> None:
    """Play a case's client, and find nothing wrong with what the server says."""
    headers = {"Sec-WebSocket-Extensions": case.offer}
    with server.raw("/echo", headers=headers) as client:
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
