"""What the workers of a machine keep: one file, whatever happens to it and to them."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_uwsgi_websocket.exceptions import BackplaneUnavailable
from flask_uwsgi_websocket.rooms import retention
from flask_uwsgi_websocket.rooms.local import log as local_log
from flask_uwsgi_websocket.rooms.local import store as local_store
from flask_uwsgi_websocket.rooms.local.directory import STORE, Directory, open_directory
from flask_uwsgi_websocket.rooms.local.log import TABLES, Logs
from flask_uwsgi_websocket.rooms.local.store import Store
from flask_uwsgi_websocket.rooms.options import History
from flask_uwsgi_websocket.rooms.positions import Position
from flask_uwsgi_websocket.rooms.record import KeptRecord, Kind, Record

from .server import PATIENCE

A, B = "room:a", "room:b"


class Place:
    """A directory, and the stores that workers have opened in it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._opened: list[tuple[Store, Directory]] = []

    def open(self, timeout: float = PATIENCE) -> Store:
        directory = open_directory(self.path, ["instance"], "app")
        store = Store(directory, TABLES, timeout)
        self._opened.append((store, directory))
        return store

    def logs(self, limit: int = 256 << 20, timeout: float = PATIENCE) -> Logs:
        return Logs(self.open(timeout), limit)

    @property
    def file(self) -> Path:
        return Path(self.path, "instance", "app", STORE)

    def close(self) -> None:
        for store, directory in self._opened:
            store.close()
            directory.close()


@pytest.fixture
def place() -> Iterator[Place]:
    path = tempfile.mkdtemp(prefix="store")
    place = Place(path)
    yield place
    place.close()
    shutil.rmtree(path, ignore_errors=True)


def message(data: bytes, channel: str = A, **options: Any) -> KeptRecord:
    key = options.pop("key", "")
    return KeptRecord(
        Kind.MESSAGE, (channel,), data, True, ("x",), number=1, key=key, history=History(**options)
    )


async def append(logs: Logs, *records: KeptRecord) -> list[int]:
    """Append records, which must be new; return their offsets."""
    results = await logs.append(records)
    positions = [each.position for each in results if isinstance(each, KeptRecord)]
    assert len(positions) == len(records)
    return [position.offset for position in positions if position is not None]


async def texts(logs: Logs, channel: str = A, after: int = 0) -> list[bytes]:
    return [each.data for each in (await logs.read(channel, after, 10_000, 1 << 30)).entries]


def run(test: Coroutine[Any, Any, object]) -> None:
    asyncio.run(asyncio.wait_for(test, 2 * PATIENCE))


def test_messages_are_read_as_they_were_appended(place: Place) -> None:
    async def test() -> None:
        logs, other = place.logs(), place.logs()
        records = [message(b"\0%d" % number) for number in range(5)]
        assert await append(logs, records[0]) == [1]
        assert await append(other, *records[1:]) == [2, 3, 4, 5]
        log = await logs.read(A, 0, 10, 1 << 20)
        assert [each.position for each in log.entries] == [
            Position(log.epoch, n + 1) for n in range(5)
        ]
        assert log.top == 5
        for record, entry in zip(records, log.entries, strict=True):
            assert abs(entry.time - time.time()) < PATIENCE
            assert Record.encode(entry) == Record.encode(record)
        assert await other.touch(A, 300) == Position(log.epoch, 5)

    run(test())


def test_what_another_release_has_written_is_a_hole(place: Place) -> None:
    async def test() -> None:
        logs = place.logs()
        await append(logs, *[message(b"%d" % number) for number in range(4)])

        def change(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE entry SET body = ? WHERE position = 2", (b"\xff",))

        await logs._store.write(change)
        assert await texts(logs) == [b"2", b"3"]
        assert await texts(logs, after=2) == [b"2", b"3"]
        assert (await logs.read(A, 0, 2, 1 << 20)).entries == ()

    run(test())


def test_reading_is_limited(place: Place) -> None:
    async def test() -> None:
        logs = place.logs()
        await append(logs, *[message(bytes([number]) * 100) for number in range(10)])
        log = await logs.read(A, 3, 4, 1 << 20)
        assert [each.data[0] for each in log.entries] == [3, 4, 5, 6]
        assert log.top == 10
        assert [len((await logs.read(A, 0, 10, size)).entries) for size in (0, 100, 350)] == [
            1,
            1,
            3,
        ]
        assert (await logs.read(A, 10, 10, 1 << 20)).entries == ()
        assert (await logs.read(A, 99, 10, 1 << 20)).entries == ()

    run(test())


def test_a_room_without_a_log_has_none_until_it_is_asked_for(place: Place) -> None:
    async def test() -> None:
        logs = place.logs()
        assert await logs.read(A, 0, 10, 1 << 20) == ("", 0, ())
        first = await logs.touch(A, 300)
        assert first.offset == 0
        assert await logs.read(A, 0, 10, 1 << 20) == (first.epoch, 0, ())
        assert await logs.touch(A, 300) == first
        assert await append(logs, message(b"1")) == [1]
        assert await logs.touch(A, 300) == Position(first.epoch, 1)

    run(test())


def test_more_than_the_count_goes(place: Place) -> None:
    async def test() -> None:
        logs = place.logs()
        for number in range(12):
            await append(logs, message(b"%d" % number, count=5), message(b"x", B))
        assert await texts(logs) == [b"7", b"8", b"9", b"10", b"11"]
        assert len(await texts(logs, B)) == 12

    run(test())


def test_what_is_too_old_goes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(local_log, "_now", lambda: now)

    async def test() -> None:
        nonlocal now
        logs = place.logs()
        await append(logs, message(b"1", seconds=10))
        now += 6
        await append(logs, message(b"2", seconds=10))
        now += 6
        assert await texts(logs) == [b"2"]
        assert (await logs.read(A, 0, 10, 1 << 20)).top == 2
        now -= 3600  # a clock that is put back makes no holes
        await append(logs, message(b"3", seconds=10))
        now += 3600
        assert await texts(logs) == [b"2", b"3"]
        now += 100
        assert await texts(logs) == []
        await append(logs, message(b"4", seconds=10))
        assert await texts(logs) == [b"4"]

    run(test())


def test_an_epoch_outlives_its_messages(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(local_log, "_now", lambda: now)

    async def test() -> None:
        nonlocal now
        logs = place.logs()
        await append(logs, message(b"1", seconds=10), message(b"1", B, seconds=10))
        first = await logs.touch(A, 10)
        now += 3599
        assert await logs.touch(A, 10) == first == Position(first.epoch, 1)
        now += 3599  # which was used a moment ago
        assert await logs.touch(A, 10) == first
        assert (await logs.touch(B, 10)).offset == 0
        now += 3601
        assert (await logs.read(A, 0, 10, 1 << 20)).epoch == ""
        await append(logs, message(b"2", seconds=1000))
        second = await logs.touch(A, 1000)
        assert second.offset == 1
        assert second.epoch != first.epoch
        now += 9999
        assert await logs.touch(A, 1000) == second

    run(test())


@pytest.mark.timeout(30)
def test_a_pipe_in_the_place_of_a_file_holds_up_nobody(place: Place) -> None:
    directory = open_directory(place.path, ["instance"], "app")
    os.mkfifo(directory.address("rooms.db.json"))
    os.close(directory.open("rooms.db.json", os.O_RDONLY))
    with pytest.raises(OSError, match="No such device"):
        directory.open("rooms.db.json", os.O_CREAT | os.O_WRONLY)
    directory.close()


def test_a_room_has_a_limit_of_bytes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "MAX_KEPT", 10_000)

    async def test() -> None:
        logs = place.logs()
        for number in range(8):
            await append(logs, message(b"%d" % number * 3000))
        assert [data[:1] for data in await texts(logs)] == [b"5", b"6", b"7"]

    run(test())


def test_all_rooms_together_have_one(place: Place) -> None:
    async def test() -> None:
        logs = place.logs(limit=100_000)
        first = await logs.touch("room:0", 300)
        for number in range(30):
            await append(logs, *[message(bytes(1000), f"room:{number}") for _ in range(10)])
            await append(logs, message(b"always in use"))
        assert (await logs.read("room:0", 0, 10, 1 << 20)).epoch == ""
        assert (await logs.touch("room:0", 300)).epoch != first.epoch
        for room in ("room:29", "room:25", A):
            assert await texts(logs, room)
        size = await logs._store.read(lambda c: c.execute("SELECT bytes FROM size").fetchone()[0])
        real = await logs._store.read(
            lambda c: c.execute(
                "SELECT sum(length(body) + 100) + 500 * (SELECT count(*) FROM log) FROM entry "
                "WHERE log IN (SELECT id FROM log)"
            ).fetchone()[0]
        )
        assert 50_000 < size == real <= 100_000
        for _ in range(100):
            await append(logs, message(b"collects what is left of those"))
        orphans = "SELECT count(*) FROM entry WHERE log NOT IN (SELECT id FROM log)"
        assert await logs._store.read(lambda c: c.execute(orphans).fetchone()[0]) == 0

    run(test())


async def number_of_logs(logs: Logs) -> int:
    found = await logs._store.read(lambda c: c.execute("SELECT count(*) FROM log").fetchone())
    return int(found[0])


def test_rooms_without_messages_count_as_well(place: Place) -> None:
    """Clients may choose the names of rooms, as many as they like."""

    async def test() -> None:
        logs = place.logs(limit=100_000)
        for number in range(500):
            await logs.touch(f"room:{number}", 300)
        assert 100 < await number_of_logs(logs) <= 1 + 100_000 // 500
        kept = (await logs.touch("room:499", 300)).epoch
        await append(logs, message(b"1"))
        assert (await logs.touch("room:499", 300)).epoch == kept

    run(test())


def test_many_rooms_that_nobody_uses_do_not_go_in_one_go(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others, and the loop, wait meanwhile."""
    now = time.time()
    monkeypatch.setattr(local_log, "_now", lambda: now)
    monkeypatch.setattr(local_log, "_SLICE", 40)

    async def test() -> None:
        nonlocal now
        logs = place.logs()
        first = await logs.touch("room:99", 300)
        for number in range(100):
            await logs.touch(f"room:{number}", 300)
        now += retention.life(300) + 1
        assert (await logs.touch("room:99", 300)).epoch != first.epoch
        assert 60 <= await number_of_logs(logs) <= 61
        await logs.touch("room:100", 300)
        await logs.touch("room:101", 300)
        assert await number_of_logs(logs) == 3

    run(test())


def test_a_key_makes_it_safe_to_send_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(local_log, "_now", lambda: now)

    async def test() -> None:
        nonlocal now
        logs, other = place.logs(), place.logs()
        await append(logs, message(b"1"), message(b"2", key="order"), message(b"3"))
        first = Position((await logs.touch(A, 300)).epoch, 2)
        assert await other.append([message(b"2", key="order")]) == [first]
        again = [message(b"4", key="new"), message(b"4", key="new"), message(b"5", B, key="order")]
        results = await logs.append(again)
        assert isinstance(results[0], KeptRecord)
        assert results[0].position == results[1] == Position(first.epoch, 4)
        assert isinstance(results[2], KeptRecord)
        assert await texts(logs) == [b"1", b"2", b"3", b"4"]
        now += retention.KEY_TIME + 1
        assert isinstance((await logs.append([message(b"2", key="order")]))[0], KeptRecord)

    run(test())


def test_forgetting_begins_another_epoch(place: Place) -> None:
    async def test() -> None:
        logs = place.logs()
        await append(logs, message(b"1"), message(b"2", B), message(b"3", key="order"))
        before = await logs.touch(A, 300)
        after = await logs.forget(A)
        assert after.offset == 0
        assert after.epoch != before.epoch
        assert await logs.read(A, 0, 10, 1 << 20) == (after.epoch, 0, ())
        assert await texts(logs, B) == [b"2"]
        assert await append(logs, message(b"3", key="order")) == [1]
        assert (await logs.forget("room:never used")).offset == 0

    run(test())


def test_what_fails_leaves_nothing(place: Place) -> None:
    async def test() -> None:
        store = place.open()
        logs = Logs(store, 1 << 20)
        await append(logs, message(b"1"))

        def fail(connection: Any) -> None:
            connection.execute("DELETE FROM entry")
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await store.write(fail)
        assert await texts(logs) == [b"1"]
        assert await append(logs, message(b"2")) == [2]

    run(test())


@pytest.mark.parametrize(
    "names", [[STORE], [STORE, f"{STORE}-wal", f"{STORE}-shm"], [f"{STORE}-wal"]]
)
def test_a_file_that_is_removed_is_made_anew(place: Place, names: list[str]) -> None:
    async def test() -> None:
        logs, other = place.logs(), place.logs()
        await append(logs, message(b"1"))
        assert await texts(other) == [b"1"]
        before = await other.touch(A, 300)
        for name in names:
            place.file.with_name(name).unlink()
        assert await append(other, message(b"2"), message(b"3"))
        assert await texts(logs) == await texts(other)
        after = await logs.touch(A, 300)
        assert after == await other.touch(A, 300)
        assert after.epoch != before.epoch

    run(test())


def test_a_broken_file_is_made_anew(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        first = place.open()
        await append(Logs(first, 1 << 20), message(b"1"))
        first.close()
        for content in (b"no database at all" * 1000, place.file.read_bytes()[:100] + bytes(9000)):
            place.file.write_bytes(content)
            logs = place.logs()
            assert await append(logs, message(b"2")) == [1]
            assert await texts(logs) == [b"2"]
            logs._store.close()

    run(test())
    assert "what rooms have kept is lost" in caplog.text


def change_version(place: Place, version: int) -> None:
    connection = sqlite3.connect(place.file)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()


def test_what_an_earlier_release_has_kept_is_begun_anew(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        old = place.logs()
        await append(old, message(b"of old"))
        old._store.close()
        change_version(place, local_store.VERSION - 1)
        logs, other = place.logs(), place.logs()
        assert await append(logs, message(b"of now")) == [1]
        assert await texts(other) == [b"of now"]

    run(test())
    assert len([1 for each in caplog.records if "an earlier release's" in each.message]) == 1


def test_what_a_later_release_keeps_is_left_alone(place: Place) -> None:
    async def test() -> None:
        logs = place.logs()
        await append(logs, message(b"of the future"))
        logs._store.close()
        change_version(place, local_store.VERSION + 1)
        with pytest.raises(BackplaneUnavailable, match="a later release's: restart the workers"):
            await append(logs, message(b"of now"))
        change_version(place, local_store.VERSION)
        assert await texts(logs) == [b"of the future"]

    run(test())


def test_a_place_that_cannot_be_written_to_is_named(place: Place) -> None:
    async def test() -> None:
        store = place.open()
        place.file.mkdir()  # what no permission can be needed for
        with pytest.raises(BackplaneUnavailable, match=r"rooms.db cannot be used: .*; name a"):
            await Logs(store, 1 << 20).touch(A, 300)
        place.file.rmdir()
        assert (await Logs(store, 1 << 20).touch(A, 300)).offset == 0

    run(test())


def test_a_full_disk_is_named_and_nothing_is_lost(place: Place) -> None:
    async def test() -> None:
        logs = place.logs()
        await append(logs, message(b"1"))

        def limit(pages: int) -> Callable[[Any], None]:
            return lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").close()

        await logs._store.read(limit(40))
        with pytest.raises(BackplaneUnavailable, match=r"full; make room there, or set UWSGI"):
            await append(logs, *[message(bytes(3000)) for _ in range(100)])
        assert await texts(logs) == [b"1"]
        assert await append(logs, message(b"2")) == [2]

    run(test())


CHILD = """
import asyncio, sys, time
from tests.test_store import A, Place, append, message
from flask_uwsgi_websocket.rooms.local.log import Logs

async def main():
    logs = Place(sys.argv[1]).logs()
    for number in range(int(sys.argv[2])):
        await append(logs, message(b"%s %d" % (sys.argv[3].encode(), number), count=10000))
    if sys.argv[4:]:
        def stop(connection):
            connection.execute("DELETE FROM entry")
            print("in the midst of it", flush=True)
            time.sleep(1000)
        await logs._store.write(stop)

asyncio.run(main())
"""


def child(place: Place, count: int, name: str, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, place.path, str(count), name, *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_several_processes_append_in_one_order(place: Place) -> None:
    place.open()
    children = [child(place, 300, str(number)) for number in range(4)]
    for each in children:
        with each:
            assert each.wait(2 * PATIENCE) == 0

    async def test() -> None:
        logs = place.logs()
        found = [text.split() for text in await texts(logs)]
        assert (await logs.touch(A, 300)).offset == len(found) == 1200
        for number in range(4):
            own = [int(count) for name, count in found if int(name) == number]
            assert own == list(range(300))

    run(test())


@pytest.mark.slow
def test_one_that_is_killed_in_the_midst_of_it_leaves_nothing(place: Place) -> None:
    patient, hurried = place.logs(), place.logs(timeout=0.2)
    run(texts(hurried))
    killed = child(place, 3, "killed", "stop")
    assert killed.stdout is not None
    try:
        assert killed.stdout.readline() == "in the midst of it\n"

        async def meanwhile() -> None:
            assert len(await texts(hurried)) == 3  # reading waits for nobody
            with pytest.raises(BackplaneUnavailable, match=r"has had the lock on it for 0\.2 s"):
                await append(hurried, message(b"4"))
            waiting = asyncio.ensure_future(append(patient, message(b"4")))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            os.kill(killed.pid, signal.SIGKILL)
            assert await waiting == [4]
            assert await texts(hurried, after=3) == [b"4"]

        run(meanwhile())
    finally:
        with killed:
            killed.kill()


def test_an_old_sqlite_and_none_are_named(monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    import sqlite3

    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 9))
    with pytest.raises(BackplaneUnavailable, match=r"SQLite here is .*, older than 3\.35"):
        place.open()

    def fail(name: str) -> None:
        raise ImportError("No module named '_sqlite3'")

    monkeypatch.setattr(local_store, "import_module", fail)
    with pytest.raises(BackplaneUnavailable, match=r"no sqlite3 .*history or presence need it"):
        place.open()


def test_a_child_leaves_the_store_to_its_parent(place: Place) -> None:
    async def test() -> None:
        logs = place.logs()
        await append(logs, message(b"1"))
        pid = os.fork()
        if not pid:
            logs._store.leave_to_parent()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert await append(logs, message(b"2")) == [2]
        assert await texts(place.logs()) == [b"1", b"2"]

    run(test())


def test_the_last_one_out_keeps_what_others_come_back_for(place: Place) -> None:
    async def test() -> None:
        first = open_directory(place.path, ["instance"], "app")
        other = open_directory(place.path, ["instance"], "app without a store")
        store = Store(first, TABLES, PATIENCE)
        await append(Logs(store, 1 << 20), message(b"1"))
        store.close()
        first.close(for_good=False)
        other.close(for_good=False)
        logs = place.logs()
        assert await texts(logs) == [b"1"]
        logs._store.close()

    run(test())
    place.close()
    place._opened.clear()
    assert not os.path.exists(place.path)  # and removes it when all is over


PLAIN = """
import sys
from flask import Flask
from flask_uwsgi_websocket import Publisher, WebSocket

app = Flask("plain")
app.config["UWSGI_WEBSOCKET_BACKPLANE"] = "local://" + sys.argv[1]
websocket = WebSocket(app)

@websocket.route("/<room>")
def chat(ws, room):
    ws.join(room)
    for text in ws:
        websocket.to(room).send(text)

url = app.config["UWSGI_WEBSOCKET_BACKPLANE"]
with websocket.test_client().connect("/a") as a, Publisher(url, prefix="plain") as publisher:
    a.send("hi")
    assert a.receive() == "hi"
    publisher.to("a").send("from outside")
    assert a.receive() == "from outside"
    assert "sqlite3" not in sys.modules
"""


def test_plain_rooms_never_touch_sqlite(place: Place) -> None:
    command = [sys.executable, "-c", PLAIN, f"{place.path}/rooms"]
    subprocess.run(command, check=True, timeout=2 * PATIENCE)
    assert not list(Path(place.path).rglob(f"{STORE}*"))
