"""Every figure of a route, summed over two workers, through a killed one and a reload."""

from __future__ import annotations

import os
import signal
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flask_uwsgi_websocket.metrics.snapshot import without_gauges
from tests.conftest import ENGINES
from tests.rawclient import BINARY, PING, PONG, frame
from tests.server import Server, eventually
from tests.test_counters import CONFIG, client_on
from tests.test_stats import by_number, settle, stats_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

#: A figure's place in the statistics, such as ``("/fail/<name>", "errors")``.
Made = Counter[tuple[str, ...]]

ECHO, FAIL, COMPRESSED = "/echo/<name>", "/fail/<name>", "/compressed"
AHEAD = "/ahead/<int:count>/<int:size>"


def act(server: Server) -> Made:
    """Do everything that is counted once; return what has to be added to the figures by it."""
    made: Made = Counter()
    for traffic in (echo, compress, fail, wait, read_too_slowly):
        made.update(traffic(server))
    server.refused("/origin", headers={"Origin": "https://evil.example"})
    server.refused("/guarded")
    made.update([("/origin", "refused", "origin"), ("/guarded", "refused", "app")])
    return made


def echo(server: Server) -> Made:
    with client_on(server, "/echo/x") as client:
        for _ in range(3):
            client.echo("x" * 200)
        ping = client.read()
        assert ping.opcode == PING
        client.send(frame(PONG, ping.payload))
        client.echo("the answer has been read")
        client.end()
    return Counter(
        {
            (ECHO, "accepted"): 1,
            (ECHO, "messages_received"): 4,
            (ECHO, "messages_sent"): 4,
            (ECHO, "bytes_received"): client.sent,
            (ECHO, "bytes_sent"): client.came,
            (ECHO, "closed", "client", "1000"): 1,
        }
    )


def compress(server: Server) -> Made:
    payload = b"again and again " * 500
    deflate = zlib.compressobj(9, zlib.DEFLATED, -9)
    deflated = (deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
    offer = {"Sec-WebSocket-Extensions": "permessage-deflate; client_no_context_takeover"}
    with client_on(server, COMPRESSED, headers=offer) as client:
        client.send(frame(BINARY, deflated, rsv=4))
        answer = client.read()
        while answer.opcode == PING:
            answer = client.read()
        client.end(4000)
    return Counter(
        {
            (COMPRESSED, "compression", "received", "bytes"): len(payload),
            (COMPRESSED, "compression", "received", "compressed"): len(deflated),
            (COMPRESSED, "compression", "sent", "bytes"): len(payload),
            (COMPRESSED, "compression", "sent", "compressed"): len(answer.payload),
            (COMPRESSED, "closed", "client", "4000-4999"): 1,
        }
    )


def fail(server: Server) -> Made:
    server.allow_log("Traceback")
    with client_on(server, "/fail/x") as client:
        client.text("x")
        assert client.read_close().code == 1011
    return Counter([(FAIL, "errors"), (FAIL, "closed", "server", "1011")])


def wait(server: Server) -> Made:
    with client_on(server, "/limited") as client:
        for _ in range(4):
            client.text("sooner than it may")
        for _ in range(4):
            client.message()
    return Counter([("/limited", "limited"), ("/limited", "closed", "lost", "1006")])


def read_too_slowly(server: Server) -> Made:
    slow = (AHEAD, "slow", "closed")
    before = found(stats_of(server), slow)
    with client_on(server, "/ahead/400/100000"):
        eventually(lambda: found(stats_of(server), slow) > before, "it to be closed")
    return Counter([slow, (AHEAD, "closed", "server", "1013")])


def found(stats: Any, place: tuple[str, ...]) -> int:
    value = stats["routes"]
    for key in place:
        value = value.get(key, {})
    return value or 0


class History:
    """What was done so far; the figures must say so, and none may ever fall."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._made: Made = Counter()

    def act(self) -> None:
        self._made.update(act(self._server))

    def check(self) -> Any:
        """Return the counters of all routes, once all that was done is in them."""
        stats: Any = {}

        def is_there() -> bool:
            stats.update(stats_of(self._server))
            return stats["complete"] and not stats["open"] and self._told(stats) == self._made

        try:
            eventually(is_there, "all that was done to be counted")
        except AssertionError:
            assert self._told(stats) == self._made
            raise
        routes = without_gauges(stats)["routes"]
        echoes = routes[ECHO]
        assert sum(echoes["duration"]["counts"]) == echoes["accepted"]
        assert sum(echoes["ping"]["counts"]) >= echoes["accepted"]
        return routes

    def _told(self, stats: Any) -> Made:
        return Counter({place: found(stats, place) for place in self._made})


@pytest.mark.parametrize("engine", [*ENGINES, "async"])
def test_each_figure_of_all_workers(
    serve: Callable[..., Server], engine: str, tmp_path: Path
) -> None:
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    server = serve(engine, app="counters", processes=2, config=CONFIG, env=environment)
    history = History(server)

    def both_have_served() -> bool:
        history._made.update(echo(server))
        return all(found(each, (ECHO, "accepted")) for each in stats_of(server)["workers"])

    eventually(both_have_served, "both workers to serve")
    history.act()
    before = history.check()

    killed = by_number(stats_of(server))[1]["pid"]
    server.allow_log(rf"pid: {killed}\) died, killed by signal 9")
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: by_number(stats_of(server))[1]["pid"] != killed, "another worker")
    assert history.check() == before
    history.act()
    before = history.check()

    settle(server, tmp_path, killed)
    pids = server.pids()
    server.signal(signal.SIGHUP)
    server.settle(*pids)
    assert history.check() == before
    history.act()
    history.check()
