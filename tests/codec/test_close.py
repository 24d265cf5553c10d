"""Closing, RFC 6455 sections 5.5.1 and 7: codes and states."""

from __future__ import annotations

import pytest

from flask_uwsgi_websocket.codec import CLIENT, SERVER, Close, Fail, Ping, Protocol
from flask_uwsgi_websocket.codec.frames import close_code_may_travel
from flask_uwsgi_websocket.exceptions import LocalProtocolError
from tests.conformance import BAD_CODES, GOOD_CODES
from tests.rawclient import BINARY, CLOSE, PING, TEXT, close_frame, frame

BAD_TO_SEND = [code for code in BAD_CODES if code != 1005]


def is_closed(protocol: Protocol) -> bool:
    """Whether not even control frames may be sent any more."""
    try:
        protocol.ping()
    except LocalProtocolError:
        return True
    return False


@pytest.mark.parametrize("code", GOOD_CODES)
def test_codes_that_may_be_sent(code: int) -> None:
    server, client = Protocol(SERVER), Protocol(CLIENT)
    assert client.receive_data(server.close(code, "why")) == [Close(code, "why")]
    assert server.receive_data(client.close(code)) == [Close(code, "")]


@pytest.mark.parametrize("code", [*BAD_TO_SEND, -1, 65536])
def test_codes_that_may_not_be_sent(code: int) -> None:
    protocol = Protocol(SERVER)
    with pytest.raises(LocalProtocolError, match=str(code)):
        protocol.close(code)
    assert not protocol.close_sent


def test_each_defined_code_that_is_never_sent() -> None:
    never = {code for code in range(1000, 1016) if not close_code_may_travel(code)}
    assert never == {1004, 1005, 1006, 1015}


def test_1005_is_a_close_without_a_code() -> None:
    server, client = Protocol(SERVER), Protocol(CLIENT)
    assert server.close(1005) == b"\x88\x00"
    assert client.receive_data(b"\x88\x00") == [Close(1005, "")]
    with pytest.raises(LocalProtocolError, match="needs a close code"):
        client.close(1005, "why")


def test_a_reason_of_123_octets_and_no_more() -> None:
    server, client = Protocol(SERVER), Protocol(CLIENT)
    with pytest.raises(LocalProtocolError, match="123 bytes at most, in UTF-8, not 124"):
        server.close(1000, "é" * 62)
    assert client.receive_data(server.close(1000, "é" * 61 + "x")) == [Close(1000, "é" * 61 + "x")]


def test_we_close_first() -> None:
    server = Protocol(SERVER)
    assert (server.close_sent, server.close_received) == (False, False)
    assert not is_closed(server)
    server.close()
    assert (server.close_sent, server.close_received) == (True, False)
    assert not is_closed(server)
    # The peer may still send until it has read our Close.
    assert server.receive_data(frame(TEXT, "late")) == ["late"]
    assert server.receive_data(close_frame(1000)) == [Close(1000, "")]
    assert is_closed(server)


def test_the_peer_closes_first() -> None:
    server = Protocol(SERVER)
    server.receive_data(close_frame(1001))
    assert (server.close_sent, server.close_received) == (False, True)
    assert not is_closed(server)
    # "An endpoint MAY delay sending a Close frame until its current message is sent" (5.5.1).
    server.text("the end of what was begun")
    server.close(1001)
    assert is_closed(server)


def test_a_failure_counts_as_the_peers_close() -> None:
    server = Protocol(SERVER)
    [failed] = server.receive_data(b"\xff\xff")
    assert isinstance(failed, Fail)
    assert server.receive_data(frame(TEXT, "read no more")) == []
    assert not is_closed(server)
    assert server.close(failed.error.close_code, failed.error.reason)[2:4] == b"\x03\xea"
    assert is_closed(server)


@pytest.mark.parametrize("role", [SERVER, CLIENT])
@pytest.mark.parametrize("size", [0, 125, 126, 100_000])
def test_no_data_after_our_close(role, size: int) -> None:
    protocol = Protocol(role)
    protocol.close()
    for send, message in ((protocol.text, "x" * size), (protocol.binary, b"x" * size)):
        with pytest.raises(LocalProtocolError, match="Close"):
            send(message)


def test_one_close_each_way() -> None:
    protocol = Protocol(SERVER)
    protocol.close()
    with pytest.raises(LocalProtocolError, match="already"):
        protocol.close()
    assert len(protocol.receive_data(close_frame(1000) + close_frame(1000))) == 1
    assert protocol.receive_data(close_frame(1000)) == []


def test_pings_are_answered_until_both_have_closed() -> None:
    protocol = Protocol(SERVER)
    protocol.close()
    assert protocol.receive_data(frame(9, b"still there?")) == [Ping(b"still there?")]
    assert protocol.pong(b"still there?") == frame(10, b"still there?", mask=None)
    protocol.receive_data(close_frame(1000))
    for send in (protocol.ping, protocol.pong):
        with pytest.raises(LocalProtocolError, match="closed"):
            send()


def test_a_close_within_a_message_drops_it() -> None:
    protocol = Protocol(SERVER)
    protocol.receive_data(frame(TEXT, "begun", fin=False))
    assert protocol.incomplete
    assert protocol.receive_data(close_frame(1000)) == [Close(1000, "")]
    assert not protocol.incomplete


@pytest.mark.parametrize("cut", [1, 7, 100])
def test_the_peer_s_close_is_found_behind_what_is_not_read(cut: int) -> None:
    server = Protocol(SERVER, max_message_size=200)
    behind = b"".join(
        [
            frame(BINARY, bytes(300)),
            frame(TEXT, b"\x88\x80" * 40),
            frame(PING, b""),
            frame(BINARY, bytes(70_000)),
        ]
    )
    data = behind + frame(CLOSE, b"\x03\xf1")
    for begin in range(0, len(data), cut):
        assert not server.close_received
        server.receive_data(data[begin : begin + cut])
    assert server.close_received
    assert not server.is_sending
