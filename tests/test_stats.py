"""What websocket.stats() tells of all workers, through what happens to them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_uwsgi_websocket import WebSocket
from tests.server import Server, eventually

Stats = dict[str, Any]


def stats_of(server: Server) -> Stats:
    answer = server.get("/stats")
    assert answer.status == 200, answer.body
    stats: Stats = json.loads(answer.body)
    return stats


def total(stats: Stats, figure: str, pattern: str = "/echo") -> Any:
    return stats["routes"].get(pattern, {}).get(figure, 0)


def ended(stats: Stats, pattern: str = "/echo") -> dict[str, int]:
    """How many connections ended, by who ended them."""
    closed = total(stats, "closed", pattern) or {}
    return {by: sum(counts.values()) for by, counts in closed.items() if counts}


def until(server: Server, is_so: Callable[[Stats], object], what: str) -> Stats:
    """The first stats that are so, whichever workers answer."""

    def look() -> Stats | None:
        stats = stats_of(server)
        return stats if is_so(stats) else None

    return eventually(look, what) or {}


def settle(server: Server, place: Path) -> None:
    """Wait until all workers write and serve, and have all their threads: one that is stopped
    before that may hang, and one that is reloaded does as the master would."""
    asked: set[int] = set()

    def serve() -> bool:
        asked.add(stats_of(server)["asked"])
        pids = {worker["pid"] for worker in server.stats()["workers"]}
        return pids == {json.loads(path.read_text())["pid"] for path in files_of(place)} <= asked

    eventually(serve, "all workers to serve")
    if server.engine == "threads":
        eventually(server._all_threads_run, "all threads to run")


def files_of(place: Path) -> list[Path]:
    """The files of all workers, of all instances that have theirs in a place."""
    return list(place.glob("flask-uwsgi-websocket-*/*/*/[0-9]*.stats"))


def by_number(stats: Stats) -> dict[int, Stats]:
    return {worker["worker"]: worker for worker in stats["workers"]}


@pytest.fixture
def serve_stats(serve: Callable[..., Server], engine: str, tmp_path: Path) -> Callable[..., Server]:
    """Starts a server with two workers, whose files are in the test's own place."""

    def serve_stats(*options: str, **kwargs: Any) -> Server:
        return serve(
            engine,
            app="stats",
            processes=2,
            options=options,
            env={"XDG_RUNTIME_DIR": str(tmp_path)},
            **kwargs,
        )

    return serve_stats


def test_each_worker_tells_of_all(serve_stats: Callable[..., Server]) -> None:
    server = serve_stats()
    with ExitStack() as stack:
        clients = []
        while len({pid for _, pid in clients}) < 2 or len(clients) < 6:
            client = stack.enter_context(server.connect())
            clients.append((client, int(client.recv())))
        stats = until(server, lambda s: s["open"] == len(clients), "all to be counted")
        assert stats["complete"]
        workers = by_number(stats)
        assert set(workers) == {1, 2}
        for worker in workers.values():
            assert worker["open"] == sum(pid == worker["pid"] for _, pid in clients)
            assert worker["state"] == "live"
    server.refused("/nothing")
    stats = until(server, lambda s: not s["open"] and s["refused"], "all to be over")
    assert total(stats, "accepted") == len(clients)
    assert ended(stats) == {"client": len(clients)}
    assert stats["refused"] == {"not_found": 1}


def test_no_counter_falls(serve_stats: Callable[..., Server], tmp_path: Path) -> None:
    server = serve_stats()
    with ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(server.connect()).recv()
        stats = until(server, lambda s: s["open"] == 6, "all to be counted")
        killed = max(stats["workers"], key=lambda worker: worker["open"])
        server.allow_log(rf"pid: {killed['pid']}\) died, killed by signal 9")
        os.kill(killed["pid"], signal.SIGKILL)
        stats = until(
            server,
            lambda s: by_number(s)[killed["worker"]]["pid"] != killed["pid"] and s["complete"],
            "another worker in the place of the one that was killed",
        )
        assert total(stats, "accepted") == 6
        assert stats["open"] == 6 - killed["open"]
        assert ended(stats) == {"lost": killed["open"]}
    server.allow_log(rf"pid: {killed['pid']}\) died, killed by signal 9")
    stats = until(server, lambda s: not s["open"], "all to be over")
    assert total(stats, "accepted") == 6
    pids = {worker["pid"] for worker in stats["workers"]}
    server.signal(signal.SIGHUP)
    stats = until(
        server,
        lambda s: s["complete"] and pids.isdisjoint(w["pid"] for w in s["workers"]),
        "all workers to be others",
    )
    assert total(stats, "accepted") == 6
    assert sum(ended(stats).values()) == 6
    settle(server, tmp_path)
    server.stop()
    assert not list(tmp_path.glob("flask-uwsgi-websocket-*"))


def test_without_uwsgi_it_is_this_process() -> None:
    app = Flask("alone")
    websocket = WebSocket(app)

    @websocket.route("/echo")
    def echo(ws: Any) -> None:
        for message in ws:
            ws.send(message)

    client = websocket.test_client()
    with client.connect("/echo"):
        stats = websocket.stats()
        assert stats["open"] == total(stats, "open") == 1
    stats = websocket.stats()
    json.dumps(stats, allow_nan=False)
    assert stats["complete"]
    [worker] = stats["workers"]
    assert (worker["worker"], worker["pid"], worker["state"]) == (0, os.getpid(), "live")
    assert total(stats, "accepted") == 1
