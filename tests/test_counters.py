"""The figures of routes on real uWSGI, against a client that counts what it sends and reads."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.rawclient import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Answer,
    RawClient,
    close_frame,
    frame,
)
from tests.server import PATIENCE, Server, eventually

#: Pings are a part of the traffic, and none is awaited here.
CONFIG = {
    "UWSGI_WEBSOCKET_PING_INTERVAL": 0.3,
    "UWSGI_WEBSOCKET_SEND_QUEUE_SIZE": 1 << 20,
    "UWSGI_WEBSOCKET_SEND_BUFFER": 16384,
}


class Counting(RawClient):
    """A client that knows how many bytes came and went after the handshake, and messages."""

    sent = came = messages = 0

    def send(self, data: bytes) -> None:
        super().send(data)
        self.sent += len(data)

    def _pong(self, payload: bytes) -> None:
        self.send(frame(PONG, payload))

    def _more(self, deadline: float) -> None:
        before = len(self._buffer)
        super()._more(deadline)
        self.came += len(self._buffer) - before

    def message(self, patience: float | None = None) -> str | bytes:
        message = super().message(patience)
        self.messages += 1
        return message

    def handshake(self, path: str = "/echo", *, then: bytes = b"", **kwargs: Any) -> Answer:
        answer = super().handshake(path, then=then, **kwargs)
        self.sent, self.came = len(then), len(self._buffer)
        return answer

    def end(self, code: int | None = 1000) -> None:
        """Close, and read all that still comes."""
        self.send(close_frame(code))
        self.read_close()
        while True:
            try:
                self.read_some()
            except (EOFError, ConnectionResetError):
                break
        self.close()


@pytest.fixture
def server(shared_server: Callable[..., Server], engine: str) -> Server:
    return shared_server(engine, app="counters", config=CONFIG)


class Figures:
    """The figures of a route since this was made."""

    def __init__(self, server: Server, pattern: str) -> None:
        self._server = server
        self._pattern = pattern
        self._before = self._all()

    def _all(self) -> Any:
        return json.loads(self._server.get("/figures").body)["routes"][self._pattern]

    def now(self) -> Any:
        return difference(self._all(), self._before)

    def when(self, **values: Any) -> Any:
        """Wait until some figures are as given; return all."""

        def look() -> Any:
            found = self.now()
            return found if all(found[name] == value for name, value in values.items()) else None

        return eventually(look, f"{values} of {self._pattern}: {self.now()}")


def difference(now: Any, before: Any) -> Any:
    if isinstance(now, dict):
        return {key: difference(value, before.get(key, _zero(value))) for key, value in now.items()}
    if isinstance(now, list):  # of a histogram
        return [a - b for a, b in zip(now, before, strict=True)]
    return now - before


def _zero(value: Any) -> Any:
    return {} if isinstance(value, dict) else 0


def client_on(server: Server, path: str, **kwargs: Any) -> Counting:
    client = Counting((server.host, server.port), PATIENCE)
    client.handshake(path, **kwargs)
    return client


def closes(found: Any) -> dict[str, dict[str, int]]:
    """Who closed with which codes, without what has not changed."""
    return {
        by: {code: count for code, count in codes.items() if count}
        for by, codes in found["closed"].items()
        if any(codes.values())
    }


def test_all_that_goes_over_a_connection(server: Server) -> None:
    figures = Figures(server, "/echo/<name>")
    early = frame(TEXT, "before the answer")
    received = 1
    with client_on(server, "/echo/traffic", then=early) as client:
        assert client.message() == "before the answer"
        for size in (0, 1, 125, 126, 5000, 65535, 65536, 300_000):
            client.text("t" * size)
            assert client.message() == "t" * size
            client.binary(b"b" * size)
            assert client.message() == b"b" * size
            received += 2
        # In pieces, with a ping between; and many at once.
        client.send(frame(TEXT, "one ", fin=False))
        client.send(frame(PING, "between") + frame(CONTINUATION, "two"))
        assert client.message() == "one two"
        pipelined = [frame(BINARY, bytes(10)) for _ in range(100)]
        client.send(b"".join(pipelined))
        for _ in range(100):
            assert client.message() == bytes(10)
        received += 101
        found = figures.now()
        assert (found["open"], found["accepted"]) == (1, 1)
        assert (found["messages_received"], found["messages_sent"]) == (received, received)
        client.end(3001)
        assert client.messages == received
        found = figures.when(open=0)
    assert (found["bytes_received"], found["bytes_sent"]) == (client.sent, client.came)
    assert (found["messages_received"], found["messages_sent"]) == (received, received)
    assert (found["accepted"], found["errors"], found["queued_bytes"]) == (1, 0, 0)
    assert closes(found) == {"client": {"3000-3999": 1}}
    assert sum(found["duration"]["counts"]) == 1
    assert found["compression"]["sent"]["bytes"] == 0


def test_what_waits_for_a_peer_that_does_not_read(server: Server) -> None:
    """A message counts when it is sent, its bytes when the kernel takes them."""
    figures = Figures(server, "/ahead/<int:count>/<int:size>")
    count, size = 60, 10_000
    total = count * (size + 4)
    with client_on(server, f"/ahead/{count}/{size}") as client:
        found = figures.when(messages_sent=count)
        assert found["queued_bytes"] > 0
        assert found["bytes_sent"] + found["queued_bytes"] >= total  # and pings
        for number in range(count):
            assert client.message() == f"{number:09}" + "x" * (size - 9)
        client.end()
        found = figures.when(open=0)
    assert (found["bytes_sent"], found["messages_sent"]) == (client.came, count)
    assert found["queued_bytes"] == 0


def test_a_peer_that_reads_too_slowly(server: Server) -> None:
    figures = Figures(server, "/ahead/<int:count>/<int:size>")
    with client_on(server, "/ahead/400/100000"):
        found = figures.when(open=0, accepted=1)
    assert closes(found) == {"server": {"1013": 1}}
    assert found["slow"] == {"closed": 1, "dropped": 0, "conflated": 0}
    assert 10 < found["messages_sent"] < 400
    assert found["errors"] == 0


def test_messages_to_many(server: Server) -> None:
    """Of a room, several in one write; and to all."""
    figures = Figures(server, "/room/<name>")
    clients = [client_on(server, "/room/many") for _ in range(5)]
    for client in clients:
        assert client.message() == "joined"
    server.http("POST", "/room/many/200")
    for client in clients:
        for number in range(200):
            assert client.message() == f"number {number:03}"
    with client_on(server, "/all") as speaker:
        speaker.text("to all")
        for client in clients:
            assert client.message() == "to all"
        speaker.end()
    for client in clients:
        client.end()
    found = figures.when(open=0)
    assert found["messages_sent"] == sum(client.messages for client in clients) == 5 * 202
    assert found["bytes_sent"] == sum(client.came for client in clients)
    assert found["bytes_received"] == sum(client.sent for client in clients)
    assert closes(found) == {"client": {"1000": 5}}


def test_compression(server: Server) -> None:
    figures = Figures(server, "/compressed")
    offer = {"Sec-WebSocket-Extensions": "permessage-deflate; client_no_context_takeover"}
    payload = b"again and again " * 500
    deflate = zlib.compressobj(9, zlib.DEFLATED, -9)
    deflated = (deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
    with client_on(server, "/compressed", headers=offer) as client:
        client.send(frame(BINARY, deflated, rsv=4))
        answer = client.read()
        while answer.opcode == PING:
            answer = client.read()
        assert answer.rsv == 4
        client.text("too short to be worth it")
        assert client.message() == "too short to be worth it"
        client.end()
        found = figures.when(open=0)
    assert found["compression"] == {
        "received": {"bytes": len(payload), "compressed": len(deflated)},
        "sent": {"bytes": len(payload), "compressed": len(answer.payload)},
    }
    assert (found["bytes_received"], found["bytes_sent"]) == (client.sent, client.came)
    assert (found["messages_received"], found["messages_sent"]) == (2, 2)


def test_pings(server: Server, token: str) -> None:
    """Whatever the handler does, their answers are measured."""
    figures = Figures(server, "/held/<name>")
    began = time.monotonic()
    with client_on(server, f"/held/{token}") as client:
        for _ in range(2):
            ping = client.read()
            assert ping.opcode == PING
            client.send(frame(PONG, ping.payload))
        found = eventually(
            lambda: now if sum((now := figures.now())["ping"]["counts"]) >= 2 else None,
            "two round trips",
        )
        assert 0 < found["ping"]["sum"] < 2 * (time.monotonic() - began)
        server.http("POST", f"/gates/{token}")
        client.echo("still here")
        client.end()
        figures.when(open=0)


def test_how_connections_end(server: Server) -> None:
    figures = Figures(server, "/echo/<name>")
    for code in (1000, 1001, 3000, 3999, 4000, 4999, None):
        with client_on(server, "/echo/end") as client:
            client.echo("x")
            client.end(code)
    for _ in range(2):
        with client_on(server, "/echo/end") as client:
            client.echo("x")  # and a FIN
    with client_on(server, "/echo/end") as client:
        client.send(frame(TEXT, "not masked", mask=None))
        assert client.read_close().code == 1002
    found = figures.when(open=0, accepted=10)
    assert closes(found) == {
        "client": {"1000": 1, "1001": 1, "3000-3999": 2, "4000-4999": 2, "1005": 1},
        "server": {"1002": 1},
        "lost": {"1006": 2},
    }
    figures = Figures(server, "/close/<int:code>")
    for code in (1000, 4321, 3210):
        with client_on(server, f"/close/{code}") as client:
            assert client.read_close().code == code
            client.send(close_frame(code))
            assert client.ended()
    assert closes(figures.when(open=0, accepted=3)) == {"server": {"1000": 1, "4321": 1, "3210": 1}}


def test_handlers_that_fail(server: Server) -> None:
    server.allow_log("Traceback")
    figures = Figures(server, "/fail/<name>")
    for _ in range(3):
        with client_on(server, "/fail/x") as client:
            client.text("x")
            assert client.read_close().code == 1011
    found = figures.when(open=0)
    assert found["errors"] == 3
    assert closes(found) == {"server": {"1011": 3}}


#: By path: the pattern of its route, header fields, the status, and what it is counted as.
REFUSALS: list[tuple[str, str | None, dict[str, str | None], int, str]] = [
    ("/origin", "/origin", {"Origin": "https://evil.example"}, 403, "origin"),
    ("/spoken", "/spoken", {}, 400, "subprotocol"),
    ("/guarded", "/guarded", {}, 401, "app"),
    ("/lazy", "/lazy", {}, 403, "app"),
    ("/echo/x", "/echo/<name>", {"Sec-WebSocket-Version": "8"}, 426, "version"),
    ("/echo/x", "/echo/<name>", {"Sec-WebSocket-Key": "short"}, 400, "handshake"),
    ("/nowhere", None, {}, 404, "not_found"),
    ("/page", None, {}, 400, "not_found"),
]


@pytest.mark.parametrize(
    ("path", "pattern", "headers", "status", "reason"),
    REFUSALS,
    ids=[f"{path[1:]}-{reason}" for path, *_, reason in REFUSALS],
)
def test_refusals(
    server: Server,
    path: str,
    pattern: str | None,
    headers: dict[str, str | None],
    status: int,
    reason: str,
) -> None:
    def counts() -> Any:
        figures = json.loads(server.get("/figures").body)
        return (figures if pattern is None else figures["routes"][pattern])["refused"]

    before, told = counts(), told_of(server, path)
    assert server.refused(path, headers=headers).status == status
    assert {key: n for key, n in difference(counts(), before).items() if n} == {reason: 1}
    last = eventually(lambda: told_of(server, path)[len(told) :], "the observer to be told")
    [(what, refusal)] = last
    assert what == "refused"
    assert refusal.pop("detail")
    assert refusal == {"status": status, "reason": reason, "route": pattern}


def told_of(server: Server, path: str) -> Any:
    return json.loads(server.get(f"/told{path}").body)


def test_an_observer(server: Server, token: str) -> None:
    server.allow_log("Traceback")
    path = f"/fail/{token}"
    with client_on(server, path) as client:
        # After the 101, which the client may have read before.
        eventually(lambda: told_of(server, path) == [["opened"]], "the observer to be told")
        client.text("x")
        client.read_close()
    end = eventually(lambda: told_of(server, path)[1:], "the observer to be told")[0][1]
    assert end.pop("seconds") >= 0
    assert end == {
        "code": 1011,
        "reason": "",
        "by": "server",
        "error": "LookupError",
        "messages_received": 1,
        "messages_sent": 0,
        "route": "/fail/<name>",
        "bytes_received": client.sent,
        "bytes_sent": client.came,
    }


def test_many_at_a_time(server: Server) -> None:
    """Where each has a thread of its own, too, no count is lost."""
    figures = Figures(server, "/echo/<name>")

    def come_and_go(number: int) -> tuple[int, int]:
        with client_on(server, "/echo/many") as client:
            for _ in range(20):
                client.echo("x" * number)
            client.end()
            return client.sent, client.came

    with ThreadPoolExecutor(8) as pool:
        traffic = list(pool.map(come_and_go, range(60)))
    found = figures.when(open=0, accepted=60)
    assert (found["messages_received"], found["messages_sent"]) == (1200, 1200)
    assert found["bytes_received"] == sum(sent for sent, _ in traffic)
    assert found["bytes_sent"] == sum(came for _, came in traffic)
    assert closes(found) == {"client": {"1000": 60}}
    assert sum(found["duration"]["counts"]) == 60


def test_workers_count_for_themselves(serve: Callable[..., Server], engine: str) -> None:
    """The app was imported before they were forked."""
    server = serve(engine, app="counters", processes=2, config=CONFIG)

    def figures() -> dict[int, Any]:
        found: dict[int, Any] = {}

        def look() -> bool:
            each = json.loads(server.get("/figures").body)
            found[each["pid"]] = each
            return len(found) == 2

        eventually(look, "figures of both workers", interval=0)
        return found

    with client_on(server, "/echo/one") as client:
        client.echo("x")
        found = sorted(each["open"] for each in figures().values())
        assert found == [0, 1]
        sent = sorted(
            each["routes"]["/echo/<name>"]["messages_sent"] for each in figures().values()
        )
        assert sent == [0, 1]
        client.end()
    eventually(lambda: not any(each["open"] for each in figures().values()), "its end")
