"""Presence over the workers of a uWSGI: who is there, and what the app is told, whatever befalls.

Each test has rooms of its own in a server that all tests of an engine share.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.crowd import Crowd, Member, by_worker
from tests.redis_servers import RedisServer
from tests.server import Server, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

WORKERS = 3
GRACE = 2


class Bench:
    """A server with rooms that have presence, and what its app was told of them."""

    def __init__(self, server: Server, log: Path, room: str) -> None:
        self.server = server
        self._log = log
        self.room = room

    def told(self, room: str) -> list[tuple[str, str]]:
        """What happened in a room, in the order in which functions were called, and to whom."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        rows = [line.split(" ") for line in lines]
        return [(what, user) for _, what, where, user, _ in rows if where == room]

    def waits_for(self, room: str, **counts: int) -> None:
        """Wait until so many of each kind were told; then they are no more."""

        def found() -> Counter[str]:
            return Counter(what for what, _ in self.told(room))

        eventually(lambda: found() >= Counter(counts), f"{counts} in {room}")
        assert found() == Counter(counts)

    def who(self, room: str) -> dict[str, list[Any]]:
        """The members of a room, each with its info and the number of its connections."""
        found: dict[str, list[Any]] = self.ask(room)["members"]
        return found

    def count(self, room: str) -> list[Any]:
        found: list[Any] = self.ask(room)["count"]
        return found

    def ask(self, room: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.server.get(f"/who/{room}").body)
        return answer


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("told")


@pytest.fixture
def bench(shared_server: Callable[..., Server], engine: str, logs: Path, token: str) -> Bench:
    log = logs / engine
    place = logs / f"place-{engine}"
    place.mkdir(exist_ok=True)
    server = shared_server(
        engine,
        app="presence",
        cores=1200 if engine != "threads" else 300,  # one worker may get nearly all
        processes=WORKERS,
        options=["--listen", "1000", "--worker-reload-mercy", "10"],
        config={"TEST_LOG": str(log), "TEST_GRACE": GRACE},
        env={"XDG_RUNTIME_DIR": str(place)},
    )
    server.allow_log("DAMN")
    return Bench(server, log, token)


def join_on_all_workers(crowd: Crowd, path: str, number: int = 1) -> list[Member]:
    """Join until there are so many, and somebody on each worker."""
    members: list[Member] = []
    while len(by_worker(members)) < WORKERS or len(members) < number:
        members += crowd.join(1, path.format(n=len(members)))
    return members


def test_users_on_several_workers(bench: Bench) -> None:
    room, soon = f"long/{bench.room}", f"grace/{bench.room}"
    with Crowd(bench.server) as crowd:
        tabs = join_on_all_workers(crowd, f"/member/{room}?user=ann&info=A")
        crowd.join(1, f"/member/{room}?user=bob")
        assert bench.who(room) == {"ann": ["A", len(tabs)], "bob": [None, 1]}
        assert bench.count(room) == [len(tabs) + 1, 2, True]
        crowd.say(tabs[0], "typing")
        eventually(lambda: bench.who(room)["ann"][0] == "typing", "the info has changed")
        crowd.leave(tabs)
        eventually(lambda: bench.who(room).get("ann") == ["typing", 0], "ann is in grace")
        crowd.join(1, f"/member/{room}?user=ann&info=back")
        assert bench.who(room)["ann"] == ["back", 1]
        crowd.join(2, f"/member/{soon}?user=ann")
        bench.waits_for(room, join=2)
    bench.waits_for(soon, join=1, leave=1, empty=1)
    assert bench.who(soon) == {}
    bench.waits_for(room, join=2)  # who would have left by now without the grace


def test_each_edge_is_told_without_grace(bench: Bench) -> None:
    room = f"edge/{bench.room}"
    with Crowd(bench.server) as crowd:
        for number in range(5):
            [member] = crowd.join(1, f"/member/{room}?user=ann")
            began = time.monotonic()
            crowd.leave([member])
            bench.waits_for(room, join=number + 1, leave=number + 1, empty=number + 1)
            print(f"on_leave after {time.monotonic() - began:.3f} s")


def test_seats_are_counted_over_all_workers(bench: Bench) -> None:
    room = f"seats/{bench.room}"
    bench.server.allow_log("closed with 1013: their handlers ended with the room .* has 3 members")
    with Crowd(bench.server) as crowd:
        joining = [crowd.begin_join(1, f"/member/{room}?user=user{n}") for n in range(12)]
        refused = [future.exception() is not None for future in joining]
        assert refused.count(False) == 3
        seated = [f"user{n}" for n in range(12) if not refused[n]]
        crowd.join(2, f"/member/{room}?user={seated[0]}")
        assert {user: number for user, (_, number) in bench.who(room).items()} == dict(
            zip(seated, (3, 1, 1), strict=True)
        )
        bench.waits_for(room, join=3)


def test_a_killed_worker(bench: Bench) -> None:
    """Its users leave once, but for those who come back in time, and those who are elsewhere."""
    room, kept, edge = f"grace/{bench.room}", f"long/{bench.room}", f"edge/{bench.room}"
    with Crowd(bench.server) as crowd:
        members = join_on_all_workers(crowd, f"/member/{room}?user=user{{n}}", 12)
        coming_back = join_on_all_workers(crowd, f"/member/{kept}?user=user{{n}}", 12)
        strangers = crowd.join(20, f"/member/{edge}")  # nobody knows these
        victim, own = max(by_worker(members).items(), key=lambda item: len(item[1]))
        names = {member: f"user{number}" for number, member in enumerate(members)}
        both = own[0]  # who has another tab, elsewhere
        while all(m.pid == victim for m in crowd.join(1, f"/member/{room}?user={names[both]}")):
            pass
        lost = by_worker(strangers).get(victim, [])
        print(f"{len(own)} users and {len(lost)} strangers in the worker that is killed")
        bench.waits_for(room, join=len(members))
        bench.waits_for(kept, join=len(coming_back))
        bench.waits_for(edge, join=20)
        began = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        bench.waits_for(edge, join=20, leave=len(lost), empty=int(len(lost) == 20))
        print(f"noticed after {time.monotonic() - began:.2f} s")
        for number, member in enumerate(coming_back):
            if member.pid == victim:
                crowd.join(1, f"/member/{kept}?user=user{number}")
        bench.waits_for(room, join=len(members), leave=len(own) - 1)
        time.sleep(1.5)  # in which another worker might do it again
        bench.waits_for(room, join=len(members), leave=len(own) - 1)
        left = {user for what, user in bench.told(room) if what == "leave"}
        assert left == {names[member] for member in own if member is not both}
        assert names[both] in bench.who(room)
        bench.waits_for(kept, join=len(coming_back))
    bench.waits_for(room, join=len(members), leave=len(members), empty=1)
    bench.waits_for(edge, join=20, leave=20, empty=1)


def test_a_reload(bench: Bench) -> None:
    """Nobody leaves who comes back in time, as pages do; the others leave once."""
    room, soon = f"long/{bench.room}", f"grace/{bench.room}"
    with Crowd(bench.server) as crowd:
        old = crowd.join(10, f"/member/{room}?user=ann")
        old += crowd.join(1, f"/member/{soon}?user=bob")
        bench.waits_for(room, join=1)
        bench.waits_for(soon, join=1)
        bench.server.signal(signal.SIGHUP)
        eventually(lambda: all(m.code for m in old), "all are told")
        crowd.join(10, f"/member/{room}?user=ann&info=new")
        assert bench.who(room)["ann"] == ["new", 10]
        bench.waits_for(soon, join=1, leave=1, empty=1)
        bench.waits_for(room, join=1)
        assert {m.code for m in old} == {1012}


def test_a_thousand(bench: Bench) -> None:
    number = 1000 if bench.server.engine != "threads" else 120
    room = f"grace/{bench.room}"
    with Crowd(bench.server) as crowd:
        began = time.monotonic()
        for each in range(0, number, 100):
            joining = [
                crowd.begin_join(2, f"/member/{room}?user=user{n}")
                for n in range(each // 2, min(each + 100, number) // 2)
            ]
            for future in joining:
                future.result()
        joined = time.monotonic() - began
        began = time.monotonic()
        found = bench.who(room)
        print(f"{number} joined in {joined:.1f} s, listed in {time.monotonic() - began:.3f} s")
        assert len(found) == number // 2
        assert {connections for _, connections in found.values()} == {2}
        bench.waits_for(room, join=number // 2)
    bench.waits_for(room, join=number // 2, leave=number // 2, empty=1)
    assert bench.who(room) == {}


def test_a_killed_instance(serve: Callable[..., Server], tmp_path: Path) -> None:
    """Nothing of it is left for the next one; nobody leaves what is gone."""
    log = tmp_path / "told"
    options: dict[str, Any] = {
        "app": "presence",
        "processes": 2,
        "config": {"TEST_LOG": str(log), "TEST_GRACE": 1},
        "env": {"XDG_RUNTIME_DIR": str(tmp_path)},
    }
    first = serve("gevent", **options)
    bench = Bench(first, log, "a")
    with Crowd(first) as crowd:
        crowd.join(10, "/member/grace/a?user=ann")
        bench.waits_for("grace/a", join=1)
        os.killpg(first._pid, signal.SIGKILL)
        first.wait_ended()
    second = serve("gevent", **options)
    bench = Bench(second, log, "a")
    assert bench.who("grace/a") == {}
    with Crowd(second) as crowd:
        crowd.join(1, "/member/grace/a?user=ann")
        bench.waits_for("grace/a", join=2)
    bench.waits_for("grace/a", join=2, leave=1, empty=1)


@pytest.mark.parametrize("engine", ["gevent", "asyncio"])
def test_a_file_that_is_removed(serve: Callable[..., Server], engine: str, tmp_path: Path) -> None:
    """Who is connected is there again within a second or two, and leaves as usual."""
    log = tmp_path / "told"
    server = serve(
        engine,
        app="presence",
        processes=2,
        config={"TEST_LOG": str(log), "TEST_GRACE": 1},
        env={"XDG_RUNTIME_DIR": str(tmp_path)},
    )
    bench = Bench(server, log, "a")
    with Crowd(server) as crowd:
        members = [crowd.join(1, f"/member/grace/a?user=user{n}&info={n}")[0] for n in range(20)]
        bench.waits_for("grace/a", join=20)
        before = bench.who("grace/a")
        for path in tmp_path.rglob("rooms.db*"):
            if path.suffix != ".lock":
                path.unlink()
        eventually(lambda: bench.who("grace/a") == before, "all are there again")
        crowd.leave(members[:10])
        bench.waits_for("grace/a", join=20, leave=10)
        crowd.join(1, "/member/grace/a?user=new")
        bench.waits_for("grace/a", join=21, leave=10)
    bench.waits_for("grace/a", join=21, leave=21, empty=1)


def test_what_is_told_outside(serve: Callable[..., Server], tmp_path: Path) -> None:
    """To a publisher, and in a terminal."""
    server = serve(
        "threads",
        app="presence",
        config={"TEST_LOG": str(tmp_path / "told")},
        env={"XDG_RUNTIME_DIR": str(tmp_path)},
    )
    with Crowd(server) as crowd:
        crowd.join(2, "/member/grace/a?user=ann&info=%1B[2J")
        crowd.join(1, "/member/grace/a?user=bob")
        [place] = tmp_path.glob("flask-uwsgi-websocket-*/*")
        command = [sys.executable, "-m", "flask_uwsgi_websocket", "who"]
        command += ["--backplane", f"local://{place}", "--prefix", "presence", "grace/a"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True)
        assert [line.split()[:2] for line in shown.stdout.splitlines()[-2:]] == [
            ["ann", "2"],
            ["bob", "1"],
        ]
        assert "\x1b" not in shown.stdout
        as_json = subprocess.run([*command, "--json"], stdout=-1, check=True)
        told = json.loads(as_json.stdout)
        assert told["complete"]
        assert [(m["user"], m["info"], m["connections"]) for m in told["members"]] == [
            ("ann", "\x1b[2J", 2),
            ("bob", None, 1),
        ]
        nobody = subprocess.run(
            [*command[:-1], "edge/b"], capture_output=True, text=True, check=True
        )
        assert nobody.stdout == "Nobody is there, or it has no presence.\n"


def test_two_machines(
    serve: Callable[..., Server], start_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    """Redis loses all that it knew, and one of two instances is killed: users leave once."""
    redis, log, room = start_redis(), tmp_path / "told", "grace/a"
    config = {"TEST_LOG": str(log), "TEST_GRACE": 1, "TEST_HASTE": True}
    config["UWSGI_WEBSOCKET_BACKPLANE"] = redis.url
    first, second = (serve("gevent", app="presence", processes=2, config=config) for _ in range(2))
    bench = Bench(second, log, "a")
    with Crowd(second) as there, Crowd(first) as here:
        for number in range(10):
            there.join(1, f"/member/{room}?user=there{number}&info={number}")
            here.join(1, f"/member/{room}?user=here{number}")
            here.join(1, f"/member/{room}?user=there{number}&info={number}")
        bench.waits_for(room, join=20)
        before = bench.who(room)
        assert bench.count(room) == [30, 20, True]
        redis.kill()
        eventually(lambda: not bench.ask(room)["complete"], "it says that some may be missing")
        redis.start()
        eventually(lambda: bench.ask(room)["complete"], "all are known again")
        assert bench.who(room) == before
        here.leave(here.members[:4:2])  # two of them, of whom nobody else is there
        bench.waits_for(room, join=20, leave=2)
        os.killpg(first._pid, signal.SIGKILL)
        first.wait_ended()
        bench.waits_for(room, join=20, leave=10)
        assert {user[:5] for user in bench.who(room)} == {"there"}
        assert bench.count(room) == [10, 10, True]
    bench.waits_for(room, join=20, leave=20, empty=1)
