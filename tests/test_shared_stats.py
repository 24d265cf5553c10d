"""The figures that a worker shares: what it writes, when, and what it does where it cannot."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flask_uwsgi_websocket.engines.base import Engine
from flask_uwsgi_websocket.metrics.worker import WorkerMetrics
from flask_uwsgi_websocket.monitoring.shared_stats import SharedStats
from flask_uwsgi_websocket.monitoring.stats import entries_of, entry_of, stats_of, stats_of_process
from flask_uwsgi_websocket.monitoring.stats_file import Reading, read_stats_file, read_stats_files
from flask_uwsgi_websocket.process.server_process import ServerProcess
from flask_uwsgi_websocket.rooms.metrics import RoomsMetrics
from flask_uwsgi_websocket.servers import uwsgi
from flask_uwsgi_websocket.servers.uwsgi import process as uwsgi_process
from tests.server import PATIENCE


class Process(ServerProcess):
    """The process of a worker."""

    def __init__(self, number: int) -> None:
        self.number = number

    def worker_id(self) -> int:
        return self.number


class Clock:
    """An engine that has nothing but a clock, which the test moves on."""

    name = "gevent"

    def __init__(self) -> None:
        self.due: list[Callable[[], object]] = []
        self.connections: dict[object, None] = {}
        self.ends = False
        self.at_end: list[Callable[[], object]] = []

    def worker(self) -> Clock:
        return self

    def call_later(self, delay: float, callback: Callable[[], object]) -> None:
        assert 1 <= delay <= 2
        self.due.append(callback)

    def call_at_end(self, callback: Callable[[], object]) -> None:
        self.at_end.append(callback)

    def ends_for_good(self) -> bool:
        return self.ends

    def tick(self) -> None:
        self.due.pop()()

    def end(self, for_good: bool) -> None:
        self.ends = for_good
        for callback in self.at_end * 2:  # it may be called twice
            callback()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def begun(number: int, *metrics: WorkerMetrics, prefix: str = "app") -> tuple[SharedStats, Clock]:
    shared, clock = SharedStats(prefix, Process(number)), Clock()
    for each in metrics:
        shared.include(each)
        shared.include(each)  # by another app of the same extension
    shared.begin(cast(Engine, clock))
    shared.begin(cast(Engine, clock))
    return shared, clock


def files(place: Path) -> list[Path]:
    return sorted(place.glob("*/*/*/*"))


def written(place: Path, number: int = 1) -> Any:
    [path] = place.glob(f"*/*/*/{number}.stats")
    return read_stats_file_at(path)["counted"]


def read_stats_file_at(path: Path) -> Any:
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        reading = read_stats_file(directory, path.name)
        assert reading is not None
        return reading.figures
    finally:
        os.close(directory)


def test_extensions_of_one_app_are_counted_together(place: Path) -> None:
    one, other = WorkerMetrics(), WorkerMetrics()
    one.route("/a").opened()
    other.route("/a").opened()
    other.refused("not_found")
    _shared, clock = begun(1, one, other)
    assert written(place)["routes"]["/a"]["accepted"] == written(place)["open"] == 2
    assert written(place)["refused"] == {"not_found": 1}
    clock.end(for_good=True)
    assert not files(place)


def test_a_pattern_may_be_of_an_enumeration(place: Path) -> None:
    class Rooms(str, Enum):
        CHAT = "chat/*"

    metrics = WorkerMetrics()
    rooms = RoomsMetrics(lambda room: Rooms.CHAT)
    rooms.of("room:chat/1").joins += 1
    metrics.sources["rooms"] = rooms.snapshot
    shared, clock = begun(1, metrics)
    assert shared.own().figures["counted"]["rooms"]["patterns"]["chat/*"]["joins"] == 1
    assert written(place)["rooms"]["patterns"]["chat/*"]["joins"] == 1
    clock.end(for_good=True)


def test_a_member_that_joined_uncounted_makes_no_file_unreadable(place: Path) -> None:
    """As where something interrupts the thread of its handler in between."""
    metrics, rooms = WorkerMetrics(), RoomsMetrics()
    rooms.of("room:a").leaves += 1
    rooms.rooms -= 1
    metrics.sources["rooms"] = rooms.snapshot
    shared, clock = begun(1, metrics)
    counted = shared.read()[1].figures["counted"]["rooms"]
    assert counted["rooms"] == counted["members"] == 0
    clock.end(for_good=True)


def test_who_comes_next_counts_on(place: Path) -> None:
    before, after = WorkerMetrics(), WorkerMetrics()
    before.route("/a").opened()
    shared, clock = begun(1, before)
    before.route("/a").opened()
    clock.end(for_good=False)
    shared._close(for_good=False)  # as the end of its process does
    after.route("/a").opened()
    shared, clock = begun(1, after)
    route = written(place)["routes"]["/a"]
    assert (route["accepted"], route["open"]) == (3, 1)
    assert route["closed"]["lost"] == {"1006": 2}
    clock.tick()
    assert written(place)["routes"]["/a"] == route
    clock.end(for_good=True)
    assert not files(place)


def test_apps_are_apart(place: Path) -> None:
    metrics = [WorkerMetrics(), WorkerMetrics()]
    metrics[0].route("/a").opened()
    all_shared = [begun(1, each, prefix=f"app {n}") for n, each in enumerate(metrics)]
    counted = [shared.read()[1].figures["counted"]["open"] for shared, _ in all_shared]
    assert counted == [1, 0]
    for _, clock in all_shared:
        clock.end(for_good=True)
    assert not files(place)


def test_a_directory_that_is_removed_comes_back(place: Path) -> None:
    metrics = WorkerMetrics()
    metrics.route("/a").opened()
    _shared, clock = begun(1, metrics)
    for path in place.iterdir():
        shutil.rmtree(path)
    clock.tick()
    assert written(place)["open"] == 1
    clock.end(for_good=True)


def test_where_nothing_can_be_written_it_is_said_once(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (place / f"flask-uwsgi-websocket-{os.geteuid()}").write_text("no directory")
    metrics = WorkerMetrics()
    metrics.route("/a").opened()
    with caplog.at_level(logging.WARNING):
        shared, clock = begun(1, metrics)
        clock.tick()
    assert len(caplog.records) == 1
    assert "is without the other workers" in caplog.text
    assert "in XDG_RUNTIME_DIR" in caplog.text  # no backplane's place helps
    assert shared.is_broken
    assert shared.own().figures["counted"]["open"] == 1
    (place / f"flask-uwsgi-websocket-{os.geteuid()}").unlink()
    clock.tick()
    assert not shared.is_broken
    clock.end(for_good=True)


def test_the_place_that_is_full_is_named(
    place: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = WorkerMetrics()
    shared, clock = begun(1, metrics)
    [written] = place.glob("*/*/*/1.stats")
    metrics.route("/a").opened()

    def write(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(os, "write", write)
        clock.tick()
    assert f"{written.parent} cannot be used: {os.strerror(errno.ENOSPC)}" in caplog.text
    assert shared.read()[1].figures["counted"]["open"] == 0
    clock.tick()
    assert shared.read()[1].figures["counted"]["open"] == 1
    clock.end(for_good=True)


def test_what_one_source_does_wrong_ends_nothing(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = WorkerMetrics()
    metrics.sources["wrong"] = lambda: {"what": object()}
    _shared, clock = begun(1, metrics)
    clock.tick()
    assert len(caplog.records) == 1
    del metrics.sources["wrong"]
    clock.tick()
    assert written(place)["open"] == 0
    clock.end(for_good=True)


def test_where_the_clock_stands_still_ends_are_written_and_floods_are_not(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Clock, "name", "suspend")
    now = [100.0]
    metrics, real = WorkerMetrics(), time.monotonic
    _shared, clock = begun(1, metrics, WorkerMetrics(observers=metrics.observers))
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    writes: list[float] = []

    def write(*args: Any) -> None:
        writes.append(now[0])
        now[0] += 1.0

    [idle] = [each for each in metrics.observers if type(each).__name__ == "_WhileIdle"]
    monkeypatch.setattr(idle, "_write", write)
    for _ in range(100):
        idle.refused({}, cast(Any, None))
        now[0] += 0.25
    assert writes == [100.0, 111.0, 122.0]
    clock.connections[object()] = None
    now[0] += 100
    idle.refused({}, cast(Any, None))
    idle.closed(None, cast(Any, None))
    assert len(writes) == 3  # the clock runs
    clock.connections.clear()
    idle.closed(None, cast(Any, None))
    idle.closed(None, cast(Any, None))
    assert len(writes) == 5
    monkeypatch.setattr(time, "monotonic", real)
    clock.end(for_good=True)


def test_listeners_get_each_sample(place: Path) -> None:
    heard: list[tuple[str, Any]] = []
    metrics = WorkerMetrics()
    shared, clock = begun(1, metrics)
    shared.listeners.append(lambda prefix, counted: heard.append((prefix, counted["open"])))
    metrics.route("/a").opened()
    clock.tick()
    assert heard == [("app", 1)]
    clock.end(for_good=True)


def test_who_has_ended_is_known_by_the_kernel(place: Path) -> None:
    all_shared = [begun(number, WorkerMetrics()) for number in (1, 2)]
    reader = all_shared[0][0]
    assert all(found.is_writer_alive for found in reader.read().values())
    child = os.fork()
    if not child:
        os._exit(0)  # what it has of its parent's ends with it, and nothing else does
    os.waitpid(child, 0)
    assert all(found.is_writer_alive for found in reader.read().values())
    all_shared[1][0]._close(for_good=False)
    owned = {number: found.is_writer_alive for number, found in reader.read().items()}
    assert owned == {1: True, 2: False}
    all_shared[0][1].end(for_good=True)


@pytest.mark.parametrize(
    ("rooms", "is_read"),
    [
        ({"rooms": 1, "patterns": {"*": {"joins": 2}}}, True),  # another release's, perhaps
        ({"rooms": 1, "patterns": {"*": {}}, "backplane": {}}, True),
        ({}, True),
        (5, False),
        ({"patterns": 5}, False),
        ({"patterns": {"*": 5}}, False),
        ({"patterns": {"*": {"joins": {"a": 1}}}}, False),
        ({"patterns": {"*": {"lag": 3}}}, False),
        ({"backplane": {"publish": 3}}, False),
    ],
)
def test_what_rooms_have_counted_is_whole_or_missing(
    place: Path, rooms: Any, is_read: bool
) -> None:
    counted = {**WorkerMetrics().snapshot(), "rooms": rooms}
    figures = {"pid": 1, "started": 1.0, "engine": "gevent", "counted": counted}
    (place / "1.stats").write_text(json.dumps(figures))
    directory = os.open(place, os.O_RDONLY)
    found = read_stats_files(directory)
    os.close(directory)
    assert list(found) == [1] * is_read
    for each in found.values():
        entry = entry_of(1, each)
        assert entry["state"] == "ended"
        assert entry["rooms"]["backplane"]["gaps"] == 0
        for pattern in entry["rooms"]["patterns"].values():
            assert pattern["leaves"] == pattern["joins"]


@pytest.mark.parametrize(
    ("backplane", "up"), [({"up": 1}, 1), ({"up": 0}, 0), ({}, 1)], ids=["up", "down", "not said"]
)
def test_a_backplane_is_read_as_it_was_written(
    place: Path, backplane: dict[str, int], up: int
) -> None:
    rooms = {**RoomsMetrics().snapshot(), "backplane": backplane}
    counted = {**WorkerMetrics().snapshot(), "rooms": rooms}
    figures = {"pid": 1, "started": 1.0, "engine": "gevent", "counted": counted}
    (place / "1.stats").write_text(json.dumps(figures))
    read = read_stats_file_at(place / "1.stats")["counted"]
    assert read["rooms"]["backplane"]["up"] == up


def test_workers_that_nobody_wants_are_retired() -> None:
    counted = WorkerMetrics().snapshot()

    def reading(is_writer_alive: bool, **more: Any) -> Reading:
        figures = {"pid": 1, "started": 1.0, "engine": "gevent", "counted": counted}
        known = {"workers": 2, "dismissed": False}
        return Reading({**figures, **known, **more}, 0.0, is_writer_alive)

    found = {
        1: reading(True),
        2: reading(False),
        3: reading(False, workers=3),  # from before a reload, which wants two
        4: reading(True),  # it has yet to end
    }
    states = {number: entry["state"] for number, entry in entries_of(found).items()}
    assert states == {1: "live", 2: "ended", 3: "retired", 4: "live"}
    found = {1: reading(True), 2: reading(False, dismissed=True)}
    states = {number: entry["state"] for number, entry in entries_of(found).items()}
    assert states == {1: "live", 2: "retired"}
    found = {number: reading(False, workers=0) for number in (1, 2)}  # of another release
    assert {entry["state"] for entry in entries_of(found).values()} == {"ended"}


#: No float is as large.
HUGE = pytest.param(f'["/a", {{"open": 1{"0" * 400}}}]', id="huge")


@pytest.mark.parametrize(
    "line", ['[1, {"open": 1}]', '["/a", 1]', "{}", "[[1], {}]", "[", "1", HUGE]
)
def test_routes_that_are_none_make_a_file_that_is_none(place: Path, line: str) -> None:
    figures = {"pid": 1, "started": 1.0, "engine": "x", "counted": WorkerMetrics().snapshot()}
    path = place / "1.stats"
    for lines, is_read in (['["/a", {"open": 1}]'], True), ([line], False):
        path.write_text("\n".join([json.dumps(figures), *lines]))
        directory = os.open(place, os.O_RDONLY)
        assert (read_stats_file(directory, path.name) is not None) is is_read
        os.close(directory)


def test_a_reader_sees_the_old_or_the_new(place: Path) -> None:
    metrics = WorkerMetrics()
    for number in range(50):
        metrics.route(f"/{number}")
    _shared, clock = begun(1, metrics)
    [path] = place.glob("*/*/*/1.stats")
    directory = os.open(path.parent, os.O_RDONLY)
    child = os.fork()
    if not child:
        try:  # as another process reads
            seen, end = -1, time.monotonic() + PATIENCE
            while seen < 200 and time.monotonic() < end:
                found = read_stats_files(directory)[1]
                opened = found.figures["counted"]["routes"]["/7"]["open"]
                assert opened >= seen
                assert found.is_writer_alive
                seen = opened
            os._exit(seen < 200)
        finally:
            os._exit(1)
    for _ in range(200):
        metrics.route("/7").opened()
        clock.tick()
    assert os.waitpid(child, 0)[1] == 0
    os.close(directory)
    clock.end(for_good=True)


def test_a_worker_is_one_before_its_master_knows_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would write the file of number 0 for ever, and count as blocked."""
    monkeypatch.setattr(uwsgi_process, "worker_id", lambda: 3)
    process = object.__new__(uwsgi_process.UWSGIProcess)

    def number(pid: int) -> int:
        monkeypatch.setattr(uwsgi_process, "worker_state", lambda: {"pid": pid})
        return process.worker_id()

    assert (number(0), number(os.getpid()), number(os.getppid())) == (3, 3, 0)


def test_who_asks_is_shown_what_is_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a counter could fall, when the next worker counts on from the file."""
    monkeypatch.setattr(uwsgi, "running_workers", dict)
    metrics = WorkerMetrics()
    shared, clock = begun(1, metrics)
    heard: list[int] = []
    shared.listeners.append(lambda prefix, counted: heard.append(counted["open"]))

    def write(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    metrics.route("/a").opened()
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        clock.tick()
        own = shared.own()
        assert own.figures["counted"]["open"] == 0
        assert heard == [0]
        stats = stats_of(shared)
        assert (stats["open"], stats["complete"]) == (0, True)
        shared._reported_at -= 5
        stats = stats_of(shared)
        assert (stats["open"], stats["complete"]) == (0, False)
        assert stats["workers"][0]["state"] == "live"
    stats = stats_of(shared)
    assert (stats["open"], stats["complete"]) == (1, True)
    stats["routes"]["/a"]["open"] = stats["workers"][0]["routes"]["/a"]["open"] = 7
    assert stats_of(shared)["routes"]["/a"]["open"] == 1
    clock.end(for_good=True)


def test_what_was_reported_is_not_overwritten_by_older_figures(place: Path) -> None:
    metrics = WorkerMetrics()
    shared, clock = begun(1, metrics)
    counting, go_on = threading.Event(), threading.Event()

    def hold() -> dict[str, Any]:
        if threading.current_thread() is sampling:
            counting.set()
            assert go_on.wait(PATIENCE)
        return {}

    sampling = threading.Thread(target=clock.tick)
    metrics.sources["held"] = hold
    sampling.start()
    assert counting.wait(PATIENCE)
    metrics.route("/a").opened()
    asking = threading.Thread(target=shared.own)
    asking.start()
    asking.join(0.2)  # it would be through by now if it did not wait
    go_on.set()
    sampling.join()
    asking.join()
    assert written(place)["open"] == 1
    clock.end(for_good=True)


def test_who_asks_in_another_process_hears_of_uwsgi(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As in ``flask shell``, where zeros could be taken for those of the server."""
    _shared, clock = begun(1, WorkerMetrics(), prefix="heard of")
    for prefix in ("another", "heard of", "heard of"):
        assert stats_of_process([WorkerMetrics()], "gevent", prefix)["open"] == 0
    assert caplog.text.count("is about this process alone") == 1
    assert "run: flask websocket stats --json" in caplog.text
    clock.end(for_good=True)


def test_only_routes_that_have_changed_are_summed_anew(place: Path) -> None:
    metrics, other = WorkerMetrics(), WorkerMetrics()
    for pattern in ("/a", "/b"):
        metrics.route(pattern).opened()
        other.route(pattern).opened()
    shared, clock = begun(1, metrics, other)
    before = shared._reported
    metrics.route("/b").opened()
    metrics.route('/"\n\u20ac').opened()
    clock.tick()
    after = shared._reported
    assert before is not None
    assert after is not None
    assert after["counted"]["routes"]["/a"] is before["counted"]["routes"]["/a"]
    assert written(place) == after["counted"]
    found = {pattern: route["open"] for pattern, route in written(place)["routes"].items()}
    assert found == {"/a": 2, "/b": 3, '/"\n\u20ac': 1}
    clock.end(for_good=True)


def test_without_a_master_an_instance_is_known_by_its_first_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Several that a script starts may have one process group."""
    pids = [0, 7]
    found = SimpleNamespace(masterpid=lambda: 0, workers=lambda: [{"pid": pids[0]}, {"pid": 9}])
    monkeypatch.setattr(uwsgi_process, "uwsgi", found)
    process = object.__new__(uwsgi_process.UWSGIProcess)
    assert process.parent_of_workers() == os.getpid()  # which imports the app
    pids.reverse()
    assert process.parent_of_workers() == 7
