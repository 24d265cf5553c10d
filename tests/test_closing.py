"""How a connection ends: the code on the wire, what the handler sees, and its core given back."""

from __future__ import annotations

import json
import socket
import struct
import threading

import pytest
from websockets.exceptions import ConnectionClosed

from tests.rawclient import BINARY, CLOSE, PING, TEXT, close_frame, frame
from tests.server import PATIENCE, Server, eventually

#: Seconds that tell an end that was noticed from one that a heartbeat found out (45 s).
SOON = PATIENCE


@pytest.fixture
def hasty(engine: str, shared_server) -> Server:
    """A server that waits half a second for what ends a connection."""
    return shared_server(engine, config={"TEST_TIMEOUT": 0.5})


# The peer closes


REGISTERED = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014)


@pytest.mark.parametrize("code", [*REGISTERED, 3000, 3999, 4000, 4999])
def test_a_close_is_answered_with_its_own_code(server: Server, token: str, code: int) -> None:
    with server.raw(f"/collect/{token}") as client:
        client.text("last words")
        assert client.leave(code, "tschüß").code == code
    assert server.record(token, SOON) == {
        "messages": ["last words"],
        "connected": False,
        "code": code,
        "reason": "tschüß",
        "again": None,
    }


def test_a_close_without_a_code(server: Server, token: str) -> None:
    with server.raw(f"/collect/{token}") as client:
        assert client.leave(None).code in (None, 1000)
    assert server.record(token, SOON)["code"] == 1005


def test_the_longest_reason(server: Server, token: str) -> None:
    with server.raw(f"/collect/{token}") as client:
        assert client.leave(1000, "r" * 123).code == 1000
    assert server.record(token, SOON)["reason"] == "r" * 123


@pytest.mark.parametrize(
    "payload",
    [struct.pack(">H", code) for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999)]
    + [struct.pack(">H", 5000), b"\xff\xff", b"\x03", struct.pack(">H", 1000) + b"r" * 124],
    ids=lambda payload: payload[:6].hex(),
)
def test_a_close_that_is_wrong_is_answered_with_1002(server: Server, payload: bytes) -> None:
    with server.raw() as client:
        client.send(frame(CLOSE, payload))
        assert client.read_close().code == 1002
        assert client.ended()


def test_a_reason_that_is_not_utf8(server: Server) -> None:
    with server.raw() as client:
        client.send(close_frame(1000, b"\xff\xff"))
        assert client.read_close().code == 1007


def test_what_comes_after_the_close_is_not_read(server: Server, token: str) -> None:
    with server.raw(f"/collect/{token}") as client:
        client.send(frame(TEXT, "before") + close_frame(1000) + frame(TEXT, "after"))
        client.send(frame(PING, "after"))
        answer = client.read()
        assert answer.opcode == CLOSE
        assert client.ended()
    assert server.record(token, SOON)["messages"] == ["before"]


def test_the_websockets_client_closes_cleanly(server: Server, token: str) -> None:
    with server.connect(f"/collect/{token}") as client:
        client.send("x")
        client.close(4321, "mine")
        assert client.close_code == 4321
    assert server.record(token, SOON)["code"] == 4321


def test_the_server_closes_first(server: Server) -> None:
    # RFC 6455 7.1.1: "the server MUST close the underlying TCP connection immediately".
    with server.raw() as client:
        client.send(close_frame(1000))
        client.read_close()
        assert client.ended(SOON)


# The peer vanishes


@pytest.mark.parametrize("way", ["abort", "close", "half_close"])
def test_receive_gives_none_soon_after_the_peer_vanished(
    server: Server, token: str, way: str
) -> None:
    with server.raw(f"/collect/{token}") as client:
        client.text("x")
        server_side = eventually(server.busy, "the connection to be there")
        assert server_side == 1
        getattr(client, way)()
        seen = server.record(token, SOON)
    assert seen["connected"] is False
    assert seen["code"] == 1006
    assert seen["again"] is None
    if way != "abort":
        assert seen["messages"] == ["x"]


@pytest.mark.parametrize("part", [frame(TEXT, "x", fin=False), frame(TEXT, "cut")[:-1], b"\x81"])
def test_a_peer_that_vanishes_in_the_middle_of_a_message(
    server: Server, token: str, part: bytes
) -> None:
    with server.raw(f"/collect/{token}") as client:
        client.send(part)
    seen = server.record(token, SOON)
    assert seen["messages"] == []
    assert seen["code"] == 1006


def test_send_raises_once_the_peer_is_gone(server: Server, token: str) -> None:
    server.raw(f"/send-after-close/{token}").abort()
    assert server.record(token, SOON) == {"code": 1006, "connection_error": True}


def test_send_after_a_clean_close_tells_its_code(server: Server, token: str) -> None:
    with server.raw(f"/send-after-close/{token}") as client:
        client.leave(4002)
    assert server.record(token, SOON) == {"code": 4002, "connection_error": True}


@pytest.mark.parametrize("way", ["abort", "close"])
def test_a_handler_that_only_sends_notices(server: Server, token: str, way: str) -> None:
    client = server.raw(f"/send-until-closed/{token}")
    assert client.message() == "x" * 1000
    getattr(client, way)()
    seen = server.record(token, SOON)
    assert seen["connected"] is False
    assert seen["code"] == 1006


def test_a_handler_that_only_sends_notices_a_close(server: Server, token: str) -> None:
    with server.raw(f"/send-until-closed/{token}") as client:
        client.message()
        client.send(close_frame(4003))
        assert client.read_close().code == 4003
        assert client.ended()
    assert server.record(token, SOON)["code"] == 4003


@pytest.mark.parametrize("way", ["abort", "close", "leave"])
def test_the_old_quick_start_ends_quietly(server: Server, way: str) -> None:
    client = server.raw("/quickstart")
    client.echo("hello")
    getattr(client, way)()
    server.wait_idle(SOON)
    # Nothing spins: an idle worker uses next to no CPU.
    assert server.cpu_share(0.5) < 0.5
    assert "Traceback" not in server.new_log()


# The handler ends


def test_a_handler_that_returns_closes_with_1000(server: Server) -> None:
    with server.raw("/return") as client:
        assert client.message() == "bye"
        assert client.read_close().code == 1000
        client.send(close_frame(1000))
        assert client.ended()


def test_the_websockets_client_sees_the_handler_return(server: Server) -> None:
    with server.connect("/return") as client:
        assert client.recv(30) == "bye"
        with pytest.raises(ConnectionClosed):
            client.recv(30)
        assert client.close_code == 1000


def test_a_handler_that_raises_closes_with_1011(server: Server) -> None:
    with server.raw("/raise") as client:
        client.text("now")
        assert client.read_close().code == 1011
        client.send(close_frame(1011))
        assert client.ended()
    server.wait_idle()
    log = server.new_log()
    assert log.count("ValueError: raised on purpose") == 1
    assert "Traceback" in log
    server.allow_log("Traceback")


def test_a_handler_that_exits_does_not_take_the_worker_with_it(server: Server) -> None:
    pid = server.worker_pid
    with server.raw() as other, server.raw("/exit") as client:
        client.text("now")
        assert client.read_close().code == 1011
        other.echo("still here")
    server.wait_idle()
    assert server.worker_pid == pid
    server.allow_log("Traceback")


@pytest.mark.parametrize(
    ("query", "code", "reason"),
    [("", 1000, ""), ("&code=4000&reason=enough", 4000, "enough"), ("&code=1001", 1001, "")],
)
def test_a_handler_that_closes(
    server: Server, token: str, query: str, code: int, reason: str
) -> None:
    with server.raw(f"/close?token={token}{query}") as client:
        client.text("close, please")
        close = client.read()
        assert (close.opcode, close.code, close.reason) == (CLOSE, code, reason)
        client.send(close_frame(code))
        assert client.ended()
    seen = server.record(token, SOON)
    assert seen["connected"] is False
    assert seen["receive"] is None
    assert seen["code"] == code


@pytest.mark.slow
def test_close_waits_no_longer_than_the_timeout(hasty: Server, token: str) -> None:
    with hasty.raw(f"/close?token={token}&code=4000") as client:
        client.text("close, please")
        assert client.read().code == 4000
        # No Close of ours: the server gives up waiting.
        hasty.record(token, SOON)
        assert client.ended(SOON)
        hasty.wait_idle(SOON)


# The library ends it


def wait_noticed(server: Server, path: str) -> None:
    noticed = {"connected": False, "code": 1006}
    eventually(lambda: json.loads(server.get(path).body) == noticed, f"{noticed}")


@pytest.mark.slow
def test_a_handler_busy_elsewhere_gives_its_core_back(
    hasty: Server, engine: str, token: str
) -> None:
    for way in ("abort", "close"):
        client = hasty.raw(f"/blocked/{token}-{way}")
        assert client.message() == "blocked"
        getattr(client, way)()
        # Nobody receives: somebody else must notice.
        wait_noticed(hasty, f"/blocked/{token}-{way}")
        if engine == "threads":
            # A thread cannot be interrupted: it ends when it comes back by itself.
            hasty.http("POST", f"/gates/{token}-{way}")
        seen = hasty.record(f"{token}-{way}", SOON)
        assert seen["code"] == 1006
        expected = {"threads": None, "gevent": "ConnectionClosed"}
        assert seen["error"] == expected.get(engine, "CancelledError")
        hasty.wait_idle(SOON)
    eventually(lambda: hasty.close_wait() == 0, "no connection in CLOSE_WAIT")


@pytest.mark.slow
def test_a_handler_busy_elsewhere_when_the_client_says_goodbye(
    hasty: Server, engine: str, token: str
) -> None:
    with hasty.connect(f"/blocked/{token}", close_timeout=0.5) as client:
        assert client.recv(30) == "blocked"
        client.close(4004)
    if engine == "threads":
        hasty.http("POST", f"/gates/{token}")
    hasty.record(token, SOON)
    hasty.wait_idle(SOON)


@pytest.mark.slow
def test_a_busy_handler_with_a_living_client_is_left_alone(hasty: Server, token: str) -> None:
    with hasty.raw(f"/blocked/{token}") as client:
        assert client.message() == "blocked"
        assert client.silent(1.5)
        hasty.http("POST", f"/gates/{token}")
        assert hasty.record(token, SOON)["error"] is None
        assert client.read_close().code == 1000


# Closing lingers


def test_everything_sent_arrives_though_the_client_s_own_lies_unread(server: Server) -> None:
    # A bare close() with unread data in the kernel resets the connection: the client got 65,536
    # of 3,000,304 bytes and no Close.
    with server.raw("/linger") as client:
        client.text("go")
        unread = threading.Thread(
            target=lambda: client.send(frame(BINARY, bytes(262_144)) * 4), daemon=True
        )
        unread.start()
        assert client.message() == b"y" * 3_000_000
        close = client.read()
        assert (close.opcode, close.code, close.reason) == (CLOSE, 4000, "read all of it")
        unread.join(30)
        assert not unread.is_alive()
        client.send(close_frame(4000))
        assert client.ended()


def test_everything_sent_arrives_at_a_client_that_reads_slowly(server: Server) -> None:
    with server.tcp() as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        client.handshake("/linger")
        client.text("go")
        client.send(close_frame(4000))
        total = len(client.message())
        assert total == 3_000_000


# Races. Each must leave nothing behind; that is checked after every test.

ROUNDS = 100


def test_race_both_sides_close_at_once(server: Server, token: str) -> None:
    for index in range(ROUNDS):
        with server.raw(f"/close?code=4000&token={token}-{index}") as client:
            client.send(frame(TEXT, "close, please") + close_frame(4001))
            assert client.read_close().code in (4000, 4001)
            assert client.ended()


def test_race_close_from_another_thread(server: Server, token: str) -> None:
    for index in range(ROUNDS):
        with server.raw(f"/close-from-elsewhere/{token}") as client:
            client.send(frame(TEXT, "x") * (index % 5))
            assert client.read_close().code == 4001
            if index % 2:
                client.send(close_frame(4001))
                assert client.ended()
    eventually(lambda: len(server.records(token)) == ROUNDS, "each handler to end")
    assert {seen["code"] for seen in server.records(token)} <= {4001, 1006}


@pytest.mark.slow
@pytest.mark.parametrize("way", ["abort", "close", "leave"])
def test_race_close_during_a_blocked_send(hasty: Server, token: str, way: str) -> None:
    for index in range(10):
        client = hasty.raw(f"/flood/{token}-{index}")
        client.read()
        getattr(client, way)()
        client.close()
        hasty.record(f"{token}-{index}", SOON)
    hasty.wait_idle(SOON)


def test_race_abort_right_after_the_handshake(server: Server) -> None:
    for index in range(ROUNDS):
        client = server.raw(("/echo", "/return", "/quickstart", "/kinds")[index % 4])
        client.abort()


def test_race_close_right_after_the_handshake(server: Server) -> None:
    for index in range(ROUNDS):
        client = server.raw(("/echo", "/return", "/quickstart", "/kinds")[index % 4])
        client.send(close_frame(1000))
        client.close()
