"""What websocket.stats() reports of all workers, through what happens to them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_uwsgi_websocket import WebSocket
from flask_uwsgi_websocket.monitoring.stats_file import MAX_SIZE
from tests.server import Server, eventually
from tests.watching import run_command

Stats = dict[str, Any]


def prefix_on(engine: str) -> str:
    """The name of the app: there are servers of other tests beside these."""
    return f"stats on {engine}"


def stats_of(server: Server, path: str = "/stats") -> Stats:
    answer = server.get(path)
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


def settle(server: Server, place: Path, *gone: int) -> None:
    """Wait until all workers take signals, and write: those of threads once they were asked.

    :param gone: see `Server.settle`.
    """
    server.settle(*gone)

    def write() -> bool:
        stats_of(server)
        heads = [each.read_text().partition("\n")[0] for each in files_of(place)]
        return server.pids() == {json.loads(head)["pid"] for head in heads}

    eventually(write, "all workers to write")


def files_of(place: Path) -> list[Path]:
    """The files of all workers, of all instances that have theirs in a place."""
    found = place.glob("flask-uwsgi-websocket-*/*/*/[0-9]*.stats")
    return [path for path in found if not path.parent.name.startswith("other")]


def by_number(stats: Stats) -> dict[int, Stats]:
    return {worker["worker"]: worker for worker in stats["workers"]}


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Path:
    """Where the workers of the server that tests share have their files."""
    place = tmp_path_factory.getbasetemp() / f"stats-{engine}"
    place.mkdir(exist_ok=True)
    return place


@pytest.fixture
def counting(shared_server: Callable[..., Server], engine: str, place: Path) -> Server:
    """A server with two workers, which import the app before they are forked."""
    return shared_server(
        engine,
        app="stats",
        processes=2,
        config={"UWSGI_WEBSOCKET_PREFIX": prefix_on(engine)},
        env={"XDG_RUNTIME_DIR": str(place)},
    )


def test_each_worker_reports_all(counting: Server) -> None:
    before = stats_of(counting)
    with ExitStack() as stack:
        clients = []
        while len({pid for _, pid in clients}) < 2 or len(clients) < 6:
            client = stack.enter_context(counting.connect())
            clients.append((client, int(client.recv())))
            client.send("x")
            client.recv()
        sent = total(before, "messages_sent") + 2 * len(clients)
        stats = until(counting, lambda s: total(s, "messages_sent") == sent, "all to be counted")
        assert stats["complete"]
        assert stats["open"] == len(clients)
        workers = by_number(stats)
        assert set(workers) == {1, 2}
        for worker in workers.values():
            assert worker["open"] == sum(pid == worker["pid"] for _, pid in clients)
            assert worker["state"] == "live"
    counting.refused("/nothing")
    refused = before["refused"].get("not_found", 0) + 1
    stats = until(
        counting,
        lambda s: not s["open"] and s["refused"].get("not_found") == refused,
        "all to be over",
    )
    assert total(stats, "accepted") == total(before, "accepted") + len(clients)
    assert ended(stats) == {"client": total(stats, "accepted")}


def test_apps_of_one_extension_count_by_themselves(counting: Server) -> None:
    pattern = "/echo/<name>"

    def open_in_other() -> Stats | None:
        stats = stats_of(counting, "/other/stats")
        return stats if total(stats, "open", pattern) else None

    with counting.connect("/other/echo/a") as client:
        client.recv()
        other = eventually(open_in_other, "it to be counted for its app") or {}
        one = stats_of(counting)
    assert (other["app"], total(other, "accepted", pattern)) == ("other", 1)
    assert (one["app"], total(one, "accepted", pattern)) == (prefix_on(counting.engine), 0)


def test_a_child_is_no_worker(counting: Server, place: Path) -> None:
    stats = json.loads(counting.get("/child").body)
    assert set(by_number(stats)) == {1, 2}
    settle(counting, place)


def test_a_blocked_worker_is_reported(counting: Server) -> None:
    """The other one answers, and does not wait for it."""
    stopped = by_number(stats_of(counting))[1]["pid"]
    os.kill(stopped, signal.SIGSTOP)
    try:
        # What the kernel has given to the one that stands still waits.
        stats = eventually(lambda: blocked_one(counting), "a worker to be reported as blocked")
        assert stats["workers"][0]["age"] >= 3  # rounded
        assert not stats["complete"]
        assert stats["workers"][1]["state"] == "live"
    finally:
        os.kill(stopped, signal.SIGCONT)
    until(counting, lambda s: s["complete"], "both to be live")


def blocked_one(server: Server) -> Stats | None:
    with suppress(OSError):
        answer = server.get("/stats", timeout=1)
        stats: Stats = json.loads(answer.body)
        return stats if stats["workers"][0]["state"] == "blocked" else None
    return None


def test_a_busy_loop_is_reported_as_blocked(counting: Server, engine: str, tmp_path: Path) -> None:
    if engine == "threads":
        return  # it has its clock beside what its threads do
    end = tmp_path / "end"
    with counting.connect("/block") as client:
        client.send(str(end))
        assert not stats_from_outside_until(counting, "blocked")["complete"]
        end.touch()
        assert client.recv() == "done"
    stats_from_outside_until(counting, "live")


def stats_from_outside_until(server: Server, state: str) -> Stats:
    """The first stats from outside in which a worker is in a state; for "live", all are."""

    def look() -> Stats | None:
        stats = from_outside(server)
        states = {worker["state"] for worker in stats["workers"]}
        return stats if (states == {state} if state == "live" else state in states) else None

    return eventually(look, f"a worker to be {state}") or {}


def from_outside(server: Server) -> Stats:
    """What the command prints."""
    done = run_command(server, "stats", "--json", "--prefix", prefix_on(server.engine))
    assert done.returncode == 0, done.stderr
    stats: Stats = json.loads(done.stdout)
    return stats


@pytest.fixture
def own_server(serve: Callable[..., Server], engine: str, tmp_path: Path) -> Server:
    """A server of the test's own, whose workers each import the app."""
    return serve(
        engine,
        app="stats",
        processes=2,
        options=["--lazy-apps", "--touch-chain-reload", str(tmp_path / "touched")],
        env={"XDG_RUNTIME_DIR": str(tmp_path)},
    )


def test_no_counter_falls(own_server: Server, tmp_path: Path) -> None:
    server = own_server
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
        settle(server, tmp_path)
    stats = until(server, lambda s: not s["open"], "all to be over")
    for reload in (lambda: (tmp_path / "touched").touch(), lambda: server.signal(signal.SIGHUP)):
        pids = {worker["pid"] for worker in stats["workers"]}
        reload()
        stats = until(
            server,
            lambda s, pids=pids: s["complete"] and pids.isdisjoint(w["pid"] for w in s["workers"]),
            "all workers to be others",
        )
        settle(server, tmp_path)
        assert total(stats, "accepted") == total(stats, "messages_sent") == 6
        assert sum(ended(stats).values()) == 6
    server.stop()
    assert not list(tmp_path.glob("flask-uwsgi-websocket-*"))


@pytest.mark.gevent
def test_workers_that_cheaper_ends_are_retired(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    cheaper = ["--cheaper", "1", "--cheaper-initial", "2", "--cheaper-algo", "manual"]
    options = [*cheaper, "--master-fifo", str(fifo)]
    env = {"XDG_RUNTIME_DIR": str(tmp_path)}
    server = serve("gevent", app="stats", processes=2, options=options, env=env)
    with server.connect() as client:
        client.recv()
    until(server, lambda s: ended(s) == {"client": 1} and s["complete"], "it to be counted")
    settle(server, tmp_path)

    def states_after(command: str, *states: str) -> None:
        fifo.write_text(command)
        stats = until(
            server, lambda s: sorted(w["state"] for w in s["workers"]) == [*states], command
        )
        assert (total(stats, "accepted"), stats["complete"]) == (1, True)

    states_after("-", "live", "retired")
    text = run_command(server, "stats", "--prefix", "stats").stdout
    assert "1 worker (" in text
    assert "retired" not in text
    states_after("+", "live", "live")


HOSTILE = {
    "truncated": b'{"pid": 1, "started": 1.0, "eng',
    "empty": b"",
    "other": b'["pid", "started"]',
    "deep": b'{"pid":' + b"[" * 100_000,
    "infinite": b'{"pid": 1, "started": 1e999, "engine": "x", "counted": {"routes": {}}}',
    "no figures": b'{"pid": 1, "started": 1, "engine": "x", "counted": {"open": "many"}}',
    "huge": b" " * (MAX_SIZE + 1),
}


def test_what_is_no_file_of_a_worker_harms_nobody(counting: Server, place: Path) -> None:
    settle(counting, place)
    directory = files_of(place)[0].parent
    os.mkfifo(directory / "70.stats")
    (directory / "71.stats").symlink_to("/dev/zero")
    (directory / "72.stats").symlink_to("1.stats")
    (directory / "73.stats").mkdir()
    for number, content in enumerate(HOSTILE.values(), 80):
        (directory / f"{number}.stats").write_bytes(content)
    try:
        assert set(by_number(stats_of(counting))) == {1, 2}
        assert set(by_number(from_outside(counting))) == {1, 2}
    finally:
        (directory / "73.stats").rmdir()
        for path in directory.glob("[78]?.stats"):
            path.unlink()


def test_a_worker_mends_what_is_in_the_place_of_its_file(counting: Server, place: Path) -> None:
    settle(counting, place)
    path = files_of(place)[0]
    accepted = total(stats_of(counting), "accepted")
    path.unlink()
    os.mkfifo(path.with_name(f".{path.name}"))
    settle(counting, place)
    assert total(stats_of(counting), "accepted") == accepted


def test_the_files_are_of_this_user_alone(counting: Server, place: Path) -> None:
    settle(counting, place)
    for path in files_of(place):
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700


def test_nothing_new_is_not_written(counting: Server, place: Path) -> None:
    until(counting, lambda s: not s["open"] and s["complete"], "all to be over")
    settle(counting, place)
    before = {path: path.stat() for path in files_of(place)}
    eventually(
        lambda: all(path.stat().st_mtime > found.st_mtime for path, found in before.items()),
        "all workers to say that they live",
    )
    assert all(path.stat().st_ino == found.st_ino for path, found in before.items())


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


@pytest.mark.suspend
def test_workers_of_uwsgi_s_async_mode_are_reported_before_they_serve(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    """Their threads run once there is a request."""
    config = {"UWSGI_WEBSOCKET_PREFIX": prefix_on("async")}
    env = {"XDG_RUNTIME_DIR": str(tmp_path)}
    server = serve("async", app="stats", processes=2, config=config, env=env)
    before = {worker["pid"] for worker in stats_from_outside_until(server, "live")["workers"]}
    server.allow_log(r"died, killed by signal 9")
    for pid in before:
        os.kill(pid, signal.SIGKILL)

    def replaced() -> bool:
        stats = stats_from_outside_until(server, "live")
        pids = {worker["pid"] for worker in stats["workers"]}
        return len(pids) == 2 and not pids & before

    eventually(replaced, "others to be live")
