"""Rooms over the workers of one uWSGI: who gets what, and what faults cost."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.crowd import Crowd, Member, by_worker, have
from tests.server import PATIENCE, Server, eventually, uwsgi_binary
from tests.test_mesh import Process

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

WORKERS = 4

#: Where engines make no other difference than whose loop the backplane is on: that of a thread of
#: its own, or the worker's.
of_both_loops = pytest.mark.parametrize("engine", ["threads", "asyncio"])


@pytest.fixture
def serve_rooms(serve: Callable[..., Server], engine: str, tmp_path: Path) -> Callable[..., Server]:
    """Starts a server with rooms, whose directory is in the test's own place."""

    def serve_rooms(*options: str, processes: int = WORKERS, **kwargs: Any) -> Server:
        return serve(
            engine,
            app="rooms_workers",
            cores=400,
            processes=processes,
            options=["--listen", "1000", *options],
            env={"XDG_RUNTIME_DIR": str(tmp_path)},
            **kwargs,
        )

    return serve_rooms


def publish(server: Server, tag: str, count: int = 1, size: int = 200) -> dict[str, Any]:
    answer = server.get(f"/publish/a?tag={tag}&count={count}&size={size}")
    assert answer.status == 200, answer.body
    done: dict[str, Any] = json.loads(answer.body)
    return done


def directories(tmp_path: Path) -> list[Path]:
    return list(tmp_path.glob("flask-uwsgi-websocket-*/*"))


@contextmanager
def outside(tmp_path: Path, timeout: float = 2.0) -> Iterator[Process]:
    """A process without uWSGI that publishes to the only instance there is."""
    [path] = directories(tmp_path)
    options = {"prefix": "rooms_workers", "timeout": timeout}
    process = Process(f"local://{path}", {}, options=options)
    try:
        process.origin = process.do("start")
        yield process
        process.do("stop")
    finally:
        process.kill()


def is_whole(numbers: list[int]) -> bool:
    """Whether they are in a row: none missing, none twice."""
    return numbers == list(range(numbers[0], numbers[-1] + 1)) if numbers else True


@pytest.mark.parametrize(
    "options",
    [(), ("--lazy-apps",), ("--cheaper", "2", "--cheaper-initial", "3")],
    ids=["master", "lazy", "cheaper"],
)
def test_everybody_gets_all_once_and_in_order(
    serve_rooms: Callable[..., Server], options: tuple[str, ...]
) -> None:
    server = serve_rooms(*options)
    with Crowd(server) as crowd, ThreadPoolExecutor(6) as pool:
        members = crowd.join(200 if options else 1000, "/member/a")
        print("members by worker:", sorted(Counter(m.pid for m in members).values()))
        assert len(by_worker(members)) >= 2
        began = time.monotonic()
        views = [pool.submit(publish, server, f"v{n}", 15) for n in range(6)]
        for number in range(3):
            crowd.say(members[number], f"15 h{number}")
        pids = {view.result(PATIENCE)["pid"] for view in views}
        have(members, 9 * 15)
        print(f"{9 * 15} messages to {len(members)} in {time.monotonic() - began:.2f} s")
        tags = [f"v{n}" for n in range(6)] + [f"h{n}" for n in range(3)]
        for member in members:
            assert len(member.messages) == 9 * 15
            for tag in tags:
                assert member.numbers(tag) == list(range(15))
        assert pids
        counted = {"connections": len(members), "complete": True}
        eventually(lambda: json.loads(server.get("/count/a").body) == counted, "all are counted")


def has(member: Member, begin: str) -> bool:
    return any(message.startswith(begin) for message in list(member.messages))


def test_what_is_published_after_a_join_arrives(serve_rooms: Callable[..., Server]) -> None:
    server = serve_rooms()
    with Crowd(server) as crowd:
        for number in range(30):
            [member] = crowd.join(1, "/member/a")
            publish(server, f"t{number}")
            # Maybe not first: its worker may have yet to read those that were published before.
            eventually(partial(has, member, f"t{number} 0 "), "what was published after the join")
        assert all(is_whole([int(m.split()[0][1:]) for m in x.messages]) for x in crowd.members)


@pytest.mark.parametrize(
    ("processes", "master"), [(1, True), (2, True), (1, False)], ids=["one", "two", "masterless"]
)
def test_nothing_is_left_of_a_server(
    serve_rooms: Callable[..., Server], tmp_path: Path, processes: int, master: bool
) -> None:
    server = serve_rooms(processes=processes, master=master)
    with Crowd(server) as crowd:
        members = crowd.join(10, "/member/a")
        publish(server, "t", 3)
        have(members, 3)
        assert len(directories(tmp_path)) == 1
        os.killpg(server._pid, signal.SIGINT)  # as Ctrl-C does
        server.stopping = True
        eventually(lambda: all(member.code for member in members), "all are told")
        assert {member.code for member in members} == {1001}
    eventually(lambda: not list(tmp_path.glob("flask-uwsgi-websocket-*")), "nothing is left")
    assert "may be missing" not in server.log()


def test_workers_of_a_user_without_rights(
    serve: Callable[..., Server], engine: str, tmp_path: Path
) -> None:
    """The way of most deployments: neither $XDG_RUNTIME_DIR nor /run is there for them."""
    uid = 200_000 + os.getpid() % 100_000  # of nobody else
    as_user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    # It may read what is ours, so that it finds Python, and write nowhere.
    as_user += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    as_user += ["--securebits=+no_setuid_fixup"]  # for access()
    place = tmp_path / "0"  # where the server starts
    place.mkdir()
    os.chown(place, uid, uid)
    server = serve(
        engine,
        app="rooms_workers",
        processes=2,
        launcher=[*as_user, uwsgi_binary()],
        env={"XDG_RUNTIME_DIR": "/run/user/0", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    base = Path(tempfile.gettempdir(), f"flask-uwsgi-websocket-{uid}")
    with Crowd(server) as crowd:
        while len(by_worker(crowd.members)) < 2:
            crowd.join(1, "/member/a")
        publish(server, "t", 3)
        for member in crowd.members:
            eventually(lambda m=member: m.numbers("t") == [0, 1, 2], "all of it")
        assert base.stat().st_uid == uid
        assert base.stat().st_mode & 0o777 == 0o700
        os.killpg(server._pid, signal.SIGINT)
        server.stopping = True
        eventually(lambda: not base.exists(), "nothing is left")


@of_both_loops
def test_workers_that_share_no_rooms_say_so(serve_rooms: Callable[..., Server]) -> None:
    server = serve_rooms(processes=2, config={"UWSGI_WEBSOCKET_BACKPLANE": "memory://"})
    with Crowd(server) as crowd:
        crowd.join(1, "/member/a")
        text = (
            "one worker only, of several that serve the app: set UWSGI_WEBSOCKET_BACKPLANE to local"
        )
        eventually(lambda: text in server.log(), "the log says so")


@of_both_loops
def test_leftovers_of_a_killed_server_are_swept(
    serve_rooms: Callable[..., Server], tmp_path: Path
) -> None:
    server = serve_rooms()
    with Crowd(server) as crowd:
        crowd.join(20, "/member/a")
        [left] = directories(tmp_path)
        os.killpg(server._pid, signal.SIGKILL)
        server.wait_ended()
    assert left.exists()
    again = serve_rooms()
    with Crowd(again) as crowd:
        crowd.join(1, "/member/a")
        [new] = directories(tmp_path)
        assert new != left


def test_children_of_workers(serve_rooms: Callable[..., Server], tmp_path: Path) -> None:
    server = serve_rooms(processes=2)
    server.allow_log("DAMN")
    with Crowd(server) as crowd:
        while len(by_worker(crowd.members)) < 2:
            crowd.join(1, "/member/a")
        forked = json.loads(server.get("/fork/a").body)
        try:
            for member in crowd.members:
                eventually(lambda m=member: m.numbers("child") == [0, 1], "what the child sends")
            with outside(tmp_path, PATIENCE) as publisher:
                assert publisher.do("publish", count=20)["refused"] == []
                have(crowd.members, 22)
                os.kill(forked["pid"], signal.SIGKILL)  # nobody may take the child for it
                done = publisher.do("publish", count=20, size=100_000)
                assert done["longest"] < PATIENCE / 2  # nobody has been waited for
            have([member for member in crowd.members if member.pid != forked["pid"]], 42)
        finally:
            os.kill(forked["child"], signal.SIGKILL)


def test_a_killed_worker(serve_rooms: Callable[..., Server], tmp_path: Path) -> None:
    server = serve_rooms()
    server.allow_log("DAMN")
    with Crowd(server) as crowd:
        members = crowd.join(200, "/member/a")
        workers = by_worker(members)
        with outside(tmp_path) as publisher:
            flood = publisher.begin("publish", count=900, pause=0.003)
            have(members, 100)
            victim = min(workers, key=lambda pid: len(workers[pid]))
            inside = [m for pid in workers if pid != victim for m in workers[pid]]
            crowd.say(workers[victim][0], "400 v")  # it is in mid-broadcast itself
            have(inside[:1], 150)
            os.kill(victim, signal.SIGKILL)
            eventually(lambda: all(m.code for m in workers[victim]), "its clients are cut")
            new = crowd.join(len(workers[victim]), "/member/a")
            assert publisher.end(flood)["refused"] == []
            publisher.do("publish")  # which the new ones get in any case
        for member in (*inside, *new):
            eventually(lambda m=member: publisher_numbers(m)[-1:] == [901], "the last one")
        for member in inside:
            assert publisher_numbers(member) == list(range(1, 902))
            assert is_whole(member.numbers("v"))
        print("got of the victim's:", Counter(len(m.numbers("v")) for m in inside))
        for member in new:
            assert is_whole(publisher_numbers(member))
        assert victim not in {member.pid for member in new}
        publish(server, "after", 5)
        for member in (*inside, *new):
            eventually(lambda m=member: m.numbers("after") == [0, 1, 2, 3, 4], "what follows")


def publisher_numbers(member: Member) -> list[int]:
    """The numbers of the process outside, in the order in which they came."""
    return [int(m.split()[1]) for m in list(member.messages) if m.startswith("t=")]


@of_both_loops
def test_a_stopped_worker(serve_rooms: Callable[..., Server], tmp_path: Path) -> None:
    server = serve_rooms()
    with Crowd(server) as crowd:
        members = crowd.join(200, "/member/a")
        workers = by_worker(members)
        sleeper = min(workers, key=lambda pid: len(workers[pid]))
        others = [m for pid in workers if pid != sleeper for m in workers[pid]]
        with outside(tmp_path, PATIENCE) as publisher:
            publisher.do("publish")
            os.kill(sleeper, signal.SIGSTOP)
            try:
                began = time.monotonic()
                done = publisher.do("publish", count=600, pause=0.003)
                have(others, 601)
                assert done["refused"] == []
                assert done["longest"] < PATIENCE / 2  # nobody has been waited for
                time.sleep(max(0.0, began + 4 - time.monotonic()))
            finally:
                os.kill(sleeper, signal.SIGCONT)
            have(members, 601)
        for member in members:
            assert publisher_numbers(member) == list(range(1, 602))


@of_both_loops
def test_what_a_stopped_worker_misses_is_counted(
    serve_rooms: Callable[..., Server], tmp_path: Path
) -> None:
    server = serve_rooms(processes=2)
    with Crowd(server) as crowd:
        while len(workers := by_worker(crowd.members)) < 2:
            crowd.join(1, "/member/a")
        sleeper = min(workers)
        with outside(tmp_path) as publisher:
            publisher.do("publish")
            os.kill(sleeper, signal.SIGSTOP)
            try:  # for nobody, since clients that get so much at once would be called too slow
                done = publisher.do("publish", count=400, size=40_000, channel="room:b")
                assert done["refused"] == []
                assert done["longest"] > 1.5
                assert done["seconds"] < 60, "it is waited for once, and not by each of hundreds"
            finally:
                os.kill(sleeper, signal.SIGCONT)
            lost: dict[int, int] = {}
            while lost.get(sleeper, 0) < done["dropped"]:
                found = json.loads(server.get("/figures").body)
                lost[found["pid"]] = found["backplane"]["lost"]
            publisher.do("publish")
        print(f"{done['dropped']} of 400 records dropped for the worker that was stopped")
        have(crowd.members, 2)
        assert {tuple(publisher_numbers(member)) for member in crowd.members} == {(1, 402)}
        assert 0 < done["dropped"] < 250
        assert lost[sleeper] == done["dropped"]
        assert not any(number for pid, number in lost.items() if pid != sleeper)


def test_workers_that_are_recycled(serve_rooms: Callable[..., Server], tmp_path: Path) -> None:
    server = serve_rooms("--max-requests", "40", "--min-worker-lifetime", "1", processes=2)
    with Crowd(server) as crowd:
        members = crowd.join(30, "/member/a")
        first = {member.pid for member in members}
        with outside(tmp_path) as publisher:
            flood = publisher.begin("publish", count=2000, pause=0.003)
            while any(member.code is None for member in members[:30]):
                server.get("/ready")
                time.sleep(0.01)
            again: list[Member] = []
            while len(again) < 30:
                with suppress(ConnectionError):  # this one is recycled, too
                    again += crowd.join(1, "/member/a")
            assert publisher.end(flood)["refused"] == []
            assert not first & {member.pid for member in again}
            published = count(2001)

            def get_the_last() -> bool:
                """Publish once more: whoever stays gets it, and somebody does."""
                with suppress(ConnectionError):
                    crowd.join(1, "/member/a")  # those that are there may be recycled by now
                last = next(published)
                publisher.do("publish")
                for member in crowd.members:
                    eventually(
                        lambda m=member: m.code is not None or publisher_numbers(m)[-1:] == [last],
                        "the last one",
                    )
                return any(member.code is None for member in crowd.members)

            eventually(get_the_last, "somebody to stay")
        for member in crowd.members:
            assert is_whole(publisher_numbers(member))
    server.wait_idle()
    markers = {int(path.name.partition(".")[0]) for path in tmp_path.rglob("*.worker")}
    assert markers <= {worker["pid"] for worker in server.stats()["workers"]}


def test_a_reload_while_somebody_publishes(
    serve_rooms: Callable[..., Server], tmp_path: Path
) -> None:
    server = serve_rooms()
    with Crowd(server) as crowd:
        old = crowd.join(100, "/member/a")
        with outside(tmp_path) as publisher:
            flood = publisher.begin("publish", count=1500, pause=0.003)
            have(old, 50)
            server.signal(signal.SIGHUP)
            eventually(lambda: all(m.code for m in old), "all are told")
            new = crowd.join(100, "/member/a")
            assert publisher.end(flood)["refused"] == []
            publisher.do("publish")  # which these get in any case
        for member in new:
            eventually(lambda m=member: publisher_numbers(m)[-1:] == [1501], "the last one")
        for member in (*old, *new):
            numbers = publisher_numbers(member)
            assert is_whole(numbers)
        print("codes:", Counter(m.code for m in old))
        assert {member.code for member in old} == {1012}
        assert not {m.pid for m in old} & {m.pid for m in new}
        assert len(directories(tmp_path)) == 1
        [place] = directories(tmp_path)
        gone = {str(m.pid) for m in old}
        left = {path.name.partition(".")[0] for path in place.rglob("*.worker")}
        assert not gone & left
