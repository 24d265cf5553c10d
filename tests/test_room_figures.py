"""What is counted of rooms, against what happened in them."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flask_uwsgi_websocket.metrics.snapshot import add, without_gauges
from flask_uwsgi_websocket.rooms import clock, record
from flask_uwsgi_websocket.rooms.metrics import RoomsMetrics
from flask_uwsgi_websocket.rooms.options import RoomPatterns
from flask_uwsgi_websocket.rooms.record import Kind, Record, decode
from tests.crowd import Crowd, Member, by_worker, have
from tests.server import Server, eventually
from tests.test_kept_workers import join
from tests.test_stats import settle, stats_of


def test_any_number_of_rooms_has_the_labels_of_the_patterns() -> None:
    patterns = RoomPatterns()
    for pattern in ("chat/*", '"><script>*', "bounds"):
        patterns.add(pattern)
    figures = RoomsMetrics(patterns.pattern_of)
    for number in range(20_000):
        figures.of(f"room:chat/{number}").joins += 1
        figures.of(f"room:{number}").joins += 1
        figures.of(f"user:{number}").published += 1
    figures.of("room:bounds").joins += 0
    figures.of('room:"><script>alert(1)').joins += 1
    snapshot = json.loads(json.dumps(figures.snapshot()))
    found = {pattern: each["joins"] for pattern, each in snapshot["patterns"].items()}
    assert found == {"chat/*": 20_000, "*": 20_000, '"><script>*': 1, "bounds": 0}
    assert snapshot["patterns"]["*"]["published"] == 20_000
    assert snapshot["members"] == 40_001
    both = add(snapshot, snapshot)
    assert both["members"] == 80_002
    assert both["patterns"]['"><script>*']["joins"] == 2
    assert without_gauges(both)["members"] == 0


def test_a_store_that_workers_share_counts_once() -> None:
    one, other = (
        RoomsMetrics().snapshot(kept=10, pending=1),
        RoomsMetrics().snapshot(kept=12, pending=2),
    )
    backplane = add(one, other)["backplane"]
    assert (backplane["log_bytes"], backplane["pending_bytes"]) == (12, 3)


@pytest.mark.parametrize("ended", [True, False])
def test_a_backplane_works_if_it_does_for_all_who_are_there(ended: bool) -> None:
    """Of several extensions, and of workers; who has ended away from it takes nothing along."""
    well, away = RoomsMetrics().snapshot(), RoomsMetrics().snapshot(is_up=False)
    away = without_gauges(away) if ended else away
    for parts in ((well, away), (away, well), (add(well, well), away)):
        assert add(*parts)["backplane"]["up"] == ended


def test_a_record_is_as_old_as_its_own_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = Record(Kind.MESSAGE, ("room:a",), b"x", sent=time.monotonic())
    data = sent.encode()
    assert decode(data).sent == sent.sent
    monkeypatch.setattr(record, "CLOCK", b"else")
    assert decode(data).sent == 0
    assert decode(data) == sent


@pytest.mark.parametrize("lacking", ["boot_id", "time"])
def test_a_system_that_tells_less_of_its_clock(lacking: str, monkeypatch: Any) -> None:
    def refuse(*args: Any) -> Any:
        raise FileNotFoundError

    if lacking == "boot_id":
        monkeypatch.setattr("builtins.open", refuse)
        assert clock._name() != clock._name()
    else:
        known = clock._name()
        monkeypatch.setattr(clock.os, "readlink", refuse)
        assert clock._name() == clock._name() != known


@pytest.fixture
def server(serve: Callable[..., Server], engine: str, tmp_path: Path) -> Server:
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    return serve(engine, app="room_figures", processes=2, env=environment)


class Told:
    """What both workers say now, summed by pattern."""

    def __init__(self, server: Server) -> None:
        workers: dict[int, Any] = {}

        def ask() -> bool:
            told = json.loads(server.get("/figures").body)
            workers[told["pid"]] = told
            return len(workers) == 2

        eventually(ask, "both workers to answer")
        self.workers = list(workers.values())
        self.backplane = [each["backplane"] for each in self.workers]

    def sum(self, pattern: str, key: str, inner: str | None = None) -> int:
        found = [each["patterns"][pattern] for each in self.workers if pattern in each["patterns"]]
        return sum(each[key] if inner is None else each[key][inner] for each in found)

    def lags(self, pattern: str) -> int:
        found = [each["patterns"].get(pattern) for each in self.workers]
        return sum(sum(each["lag"]["counts"]) for each in found if each)


def counted(server: Server, **expected: int) -> Callable[[], bool]:
    """Return whether rooms and members are as many as expected."""

    def are_so() -> bool:
        told = Told(server).workers
        return all(sum(each[key] for each in told) == number for key, number in expected.items())

    return are_so


def publish(server: Server, count: int, room: str) -> None:
    assert server.http("POST", f"/publish/{count}/{room}").status == 204


def test_figures_of_two_workers_are_what_happened(server: Server) -> None:
    with Crowd(server) as crowd:
        chats = [member for number in range(3) for member in join(crowd, 4, f"/join/chat/{number}")]
        others = join(crowd, 2, "/join/%3Cb%3Eother")
        here = join(crowd, 1, "/join/here/a")
        for number in range(3):
            publish(server, 10, f"chat/{number}")
        publish(server, 5, "%3Cb%3Eother")
        publish(server, 3, "nobody")
        assert server.http("POST", "/to-all").status == 204
        have(chats, 1 + 10 + 1)
        have(others, 1 + 5 + 1)
        have(here, 2)
        told = Told(server)
        assert {key for each in told.workers for key in each["patterns"]} == {
            *("chat/*", "here/*", "*")
        }
        assert told.sum("chat/*", "joins") == 12
        assert told.sum("chat/*", "leaves") == 0
        assert told.sum("chat/*", "published") == 30
        assert told.sum("chat/*", "delivered") == 30 * 4
        assert 0 < sum(each["writes"] for each in told.workers) <= 30 * 4 + 5 * 2 + 15
        assert 0 < told.lags("chat/*") <= 30 * 2
        assert told.sum("*", "published") == 5 + 3 + 1
        assert told.sum("*", "delivered") == 5 * 2 + 15
        assert counted(server, members=15, rooms=rooms_here(crowd.members))()
        for backplane in told.backplane:
            assert backplane["up"] == 1
            assert backplane["pending_bytes"] == backplane["lost"] == backplane["gaps"] == 0
        assert sum(sum(each["publish"]["counts"]) for each in told.backplane) > 0
        stats = json.loads(server.get("/stats").body)  # as read from the files of the workers
        assert [each["rooms"]["backplane"]["up"] for each in stats["workers"]] == [1, 1]
        for member in (*chats, *here):
            member.leave()
        eventually(counted(server, members=2), "their leaving to be counted")
        told = Told(server)
        assert told.sum("chat/*", "leaves") == 12
        eventually(
            lambda: sum(each["presence_swept"] for each in Told(server).backplane) == 1,
            "who was there to be taken out",
        )


def rooms_here(members: list[Member]) -> int:
    """How many rooms there are, counted by each worker that has members of them."""
    texts = Counter(path for _, own in by_worker(members).items() for path in {*map(room_of, own)})
    return sum(texts.values())


def room_of(member: Member) -> bytes:
    return member._hello.partition(b"/join/")[2].partition(b" ")[0]


def test_those_who_come_back_are_counted(server: Server) -> None:
    with Crowd(server) as crowd:
        [first] = join(crowd, 1, "/join/kept/a")
        position = first.messages[0].split(" ")[1]
        publish(server, 3, "kept/a")
        have([first], 4)
        [back] = join(crowd, 1, f"/join/kept/a?since={position}")
        have([back], 4)
        publish(server, 10, "kept/a")  # more than are kept
        have([first], 14)
        join(crowd, 1, f"/join/kept/a?since={position}")
        told = Told(server)
        assert told.sum("kept/*", "resumes", "recovered") == 1
        assert told.sum("kept/*", "resumes", "resync") == 1
        assert told.sum("kept/*", "replayed") == 3
        assert told.sum("kept/*", "published") == 13
        assert told.sum("kept/*", "delivered") == 13 + 10 + 3
        assert max(each["log_bytes"] for each in told.backplane) > 1000


def test_through_a_killed_worker_and_a_reload(server: Server, tmp_path: Path) -> None:
    def until(what: str, **expected: int) -> None:
        def are_so() -> bool:
            rooms = stats_of(server)["rooms"]
            figures = rooms["patterns"].get("chat/*", {})
            found = {key: figures.get(key, rooms.get(key)) for key in expected}
            return found == expected

        eventually(are_so, what)

    with Crowd(server) as crowd:
        members = join(crowd, 8, "/join/chat/a")
        publish(server, 5, "chat/a")
        have(members, 6)
        until("all to be counted", members=8, joins=8, leaves=0, published=5, delivered=40)
        killed = members[0].pid
        left = sum(member.pid != killed for member in members)
        server.allow_log(rf"pid: {killed}\) died, killed by signal 9")
        os.kill(killed, signal.SIGKILL)
        until("the others", members=left, joins=8, leaves=8 - left, published=5, delivered=40)
        settle(server, tmp_path, killed)
        workers = server.pids()
        server.signal(signal.SIGHUP)
        server.settle(*workers)
    until("all to have left", members=0, joins=8, leaves=8, published=5, delivered=40)
