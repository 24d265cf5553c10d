"""The mesh of AF_UNIX sockets, between plain processes: what it promises, and what disturbs it."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_uwsgi_websocket.exceptions import BackplaneUnavailable
from flask_uwsgi_websocket.process.server_process import started_at
from flask_uwsgi_websocket.rooms.backplane import BackplaneOptions
from flask_uwsgi_websocket.rooms.local import directory, instances, mesh, wire
from flask_uwsgi_websocket.rooms.local.mesh import LocalBackplane
from flask_uwsgi_websocket.rooms.record import Kind, Record
from tests.mesh_member import Box
from tests.server import PATIENCE, ROOT, eventually

pytestmark = pytest.mark.slow

#: Somebody else, who owns nothing here.
STRANGER = 65534


class Process:
    """One that takes part, of tests/mesh_member.py."""

    def __init__(self, url: str, environment: dict[str, str], **setting: Any) -> None:
        setting = {"url": url, "options": {"prefix": "app"}, **setting}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.mesh_member", json.dumps(setting)],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        self._answers: dict[int, tuple[Any, str | None]] = {}
        self._number = 0
        self.log = ""

    def begin(self, name: str, *arguments: Any, **named: Any) -> int:
        """Have it do something meanwhile."""
        self._number += 1
        command = [self._number, name, named or list(arguments)]
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._number

    def end(self, number: int) -> Any:
        """What came of it."""
        assert self._process.stdout is not None
        while number not in self._answers:
            line = self._process.stdout.readline()
            if not line:
                raise AssertionError(f"the process has ended:\n{self.quit()}")
            which, answer, error = json.loads(line)
            self._answers[which] = (answer, error)
        answer, error = self._answers.pop(number)
        if error is not None:
            raise RuntimeError(error)
        return answer

    def do(self, name: str, *arguments: Any, **named: Any) -> Any:
        return self.end(self.begin(name, *arguments, **named))

    def take_part(self, *channels: str) -> Process:
        """Start, and subscribe as a worker does."""
        self.origin = self.do("start")
        self.do("subscribe", "all", "room:a", *channels)
        return self

    def got(self, *publishers: Process, count: int) -> list[list[int]]:
        """The numbers of the records that came of each, once there are so many in all."""
        found = self.do("got", count)
        return [found.get(publisher.origin, []) for publisher in publishers]

    def signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def quit(self) -> str:
        """End it as it likes to; its log."""
        if not self.log:
            _, self.log = self._process.communicate(timeout=PATIENCE)
            self.log = self.log or "-"
        return self.log

    def kill(self) -> None:
        self._process.kill()
        self.quit()


Start = Callable[..., Process]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may enter, and only we may write to."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def start(place: Path) -> Iterator[Start]:
    """Starts a process; `url` is that of a place in common unless given."""
    processes = []

    def start(url: str = f"local://{place}/rooms", **setting: Any) -> Process:
        environment = {"XDG_RUNTIME_DIR": str(place)} | setting.pop("environment", {})
        processes.append(Process(url, environment, **setting))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()


def instance() -> dict[str, Any]:
    """The options of a worker whose parent is this process."""
    return {"prefix": "app", "instance": [os.getpid(), started_at(os.getpid())]}


def sockets(place: Path) -> list[str]:
    """What is in there and no directory, hidden or not."""
    return [str(path) for path in place.rglob("*") if not path.is_dir()]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_everybody_gets_all_once_and_in_order(start: Start, place: Path, loop: str) -> None:
    members = [start(uvloop=loop == "uvloop") for _ in range(4)]
    for member in members:
        member.take_part()
    floods = [member.begin("publish", count=3000, batch=1 + n) for n, member in enumerate(members)]
    for member, flood in zip(members, floods, strict=True):
        assert member.end(flood)["refused"] == []
    for member in members:
        assert member.got(*members, count=12000) == [list(range(1, 3001))] * 4
        assert member.do("told")["gaps"] == []
        assert member.do("workers") == 4
    for member in members:
        assert member.quit() == "-"
    assert not sockets(place)


def test_what_is_published_after_a_subscription_arrives(start: Start) -> None:
    publisher = start().take_part()
    for _ in range(5):
        flood = publisher.begin("publish", count=600, pause=0.0005)
        late = start().take_part()
        after = publisher.do("publish")  # the numbers of both are counted in one row
        assert after["refused"] == publisher.end(flood)["refused"] == []
        [numbers] = late.got(publisher, count=1)
        last = publisher.got(publisher, count=601)[0][-1]
        deadline = time.monotonic() + PATIENCE
        while numbers[-1] != last and time.monotonic() < deadline:
            [numbers] = late.got(publisher, count=1)
        assert numbers == list(range(numbers[0], last + 1))
        assert late.do("told")["gaps"] == []


def test_a_killed_worker_costs_the_others_nothing(start: Start, place: Path) -> None:
    members = [start().take_part() for _ in range(4)]
    *survivors, victim = members
    floods = [member.begin("publish", count=1500, pause=0.001) for member in survivors]
    flood = victim.begin("publish", count=100000)
    time.sleep(0.3)
    victim.signal(signal.SIGKILL)
    for member, number in zip(survivors, floods, strict=True):
        assert member.end(number)["refused"] == []
    assert flood
    for member in survivors:
        numbers = member.got(*survivors, count=4500)
        assert numbers == [list(range(1, 1501))] * 3
        [of_victim] = member.got(victim, count=0)
        assert of_victim == list(range(1, len(of_victim) + 1))
        assert member.do("told")["gaps"] == [0]  # it was cut, so nobody knows how many
        assert member.do("workers") == 3
    assert len(sockets(place)) == 6


def test_a_stopped_worker_gets_all_later(start: Start) -> None:
    publisher = start(options={"prefix": "app", "timeout": PATIENCE}).take_part()
    other, sleeper = (start().take_part() for _ in range(2))
    publisher.do("publish")
    sleeper.signal(signal.SIGSTOP)
    began = time.monotonic()
    done = publisher.do("publish", count=2000, pause=0.0005)
    assert done["refused"] == []
    assert done["longest"] < PATIENCE / 2  # nobody has been waited for
    other.got(publisher, count=2001)
    time.sleep(max(0.0, began + 4 - time.monotonic()))
    sleeper.signal(signal.SIGCONT)
    for member in (other, sleeper):
        assert member.got(publisher, count=2001) == [list(range(1, 2002))]
        assert member.do("told")["gaps"] == []


def test_what_exceeds_the_queue_of_a_stopped_worker_is_counted(start: Start) -> None:
    publisher, other, sleeper = (start().take_part() for _ in range(3))
    publisher.do("publish")
    sleeper.signal(signal.SIGSTOP)
    done = publisher.do("publish", count=400, size=50_000)
    assert done["refused"] == []
    assert done["longest"] > 1.5
    assert done["seconds"] < 60, "it is waited for once, and not by each of hundreds"
    assert 0 < done["dropped"] < 250
    assert other.got(publisher, count=401) == [list(range(1, 402))]
    assert other.do("told")["gaps"] == []
    sleeper.signal(signal.SIGCONT)
    [numbers] = sleeper.got(publisher, count=401 - done["dropped"])
    eventually(lambda: sum(sleeper.do("told")["gaps"]) == done["dropped"], "the gap is told")
    publisher.do("publish", count=3)
    [numbers] = sleeper.got(publisher, count=404 - done["dropped"])
    assert numbers[-3:] == [402, 403, 404]
    assert numbers == sorted(set(numbers))
    assert sum(sleeper.do("told")["gaps"]) == 404 - len(numbers) == done["dropped"]
    assert "has not read what is sent to rooms for 2 s" in publisher.quit()


def test_large_records_block_nobody(start: Start) -> None:
    options = {"prefix": "app", "max_size": 6_000_000}
    publisher, member = (start(options=options).take_part() for _ in range(2))
    ticks = member.begin("ticks", 1.5)
    done = publisher.do("publish", count=10, size=5_000_000, pause=0.05)
    assert done["refused"] == []
    assert member.got(publisher, count=10) == [list(range(1, 11))]
    print("longest turn of the receiver's loop, ms:", member.end(ticks) * 1000)
    print("longest publish of 5 MB, ms:", done["longest"] * 1000)


def test_a_record_beyond_the_limit_is_refused_or_skipped(start: Start) -> None:
    small = start(options={"prefix": "app", "max_size": 10_000}).take_part()
    large = start(options={"prefix": "app", "max_size": 1_000_000}).take_part()
    assert "limit is 10000" in small.do("publish", size=20_000)["refused"][0]
    for size in (200, 500_000, 300):
        assert large.do("publish", size=size)["refused"] == []
    assert small.got(large, count=2) == [[1, 3]]
    assert small.do("told")["gaps"] == [1]


def test_a_mere_publisher_is_no_worker(start: Start) -> None:
    worker = start().take_part()
    listener = start()
    listener.origin = listener.do("start")
    listener.do("subscribe", "worker:me")
    publisher = start()
    publisher.origin = publisher.do("start")
    publisher.do("publish", count=5)
    assert worker.got(publisher, count=5) == [[1, 2, 3, 4, 5]]
    assert [process.do("workers") for process in (worker, listener, publisher)] == [1, 1, 1]
    publisher.quit()
    time.sleep(0.1)
    assert worker.do("told")["gaps"] == [], "it has said farewell"


def test_apps_with_other_prefixes_hear_nothing(start: Start) -> None:
    one = start().take_part()
    other = start(options={"prefix": "../b %"}).take_part()
    assert (one.do("workers"), other.do("workers")) == (1, 1)
    one.do("publish")
    other.do("publish")
    assert one.got(one, other, count=1) == [[1], []]
    assert other.got(one, other, count=1) == [[], [1]]


def test_a_publisher_that_exits_at_once_has_sent_all(start: Start) -> None:
    member = start().take_part()
    publisher = start()
    publisher.origin = publisher.do("start")
    member.signal(signal.SIGSTOP)
    publisher.do("publish", count=1000, size=900, batch=100)
    stopping = publisher.begin("stop")
    time.sleep(0.2)
    member.signal(signal.SIGCONT)
    publisher.end(stopping)
    assert publisher.quit() == "-"
    assert member.got(publisher, count=1000) == [list(range(1, 1001))]
    assert member.do("told")["gaps"] == []


def test_who_leaves_before_anybody_has_answered_is_heard(start: Start, place: Path) -> None:
    member = start().take_part()
    [name] = [path for path in sockets(place) if "worker" not in path]
    member.signal(signal.SIGSTOP)
    for number in range(1, 51):
        record = Record(Kind.MESSAGE, ("room:a",), b"x", number=number).encode()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(name)
            sock.sendall(wire.greeting(1) + wire.head(1, record) + record + wire.farewell(2))
    member.signal(signal.SIGCONT)
    assert member.do("got", 50) == {bytes(8).hex(): list(range(1, 51))}
    assert member.do("told")["gaps"] == []
    assert member.quit() == "-"


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "no greeting"),
        (wire.greeting(1)[:4] + b"\x63" + wire.greeting(1)[5:], "of another release"),
        (wire.greeting(1) + b"\xff\xff\xff\xf0" + bytes(7) + b"\1", "a frame of 4294967280 bytes"),
        (wire.greeting(1) + wire.head(1, b"x" * 100) + b"x" * 100, "a record of version 120"),
        (wire.greeting(9) + wire.mark(3), "frame 3 came after frame 8"),
    ],
    ids=["HTTP", "release", "length", "record", "order"],
)
def test_a_peer_that_sends_rubbish_is_dropped(
    start: Start, place: Path, sent: bytes, said: str
) -> None:
    member, other = (start().take_part() for _ in range(2))
    [name] = [path for path in sockets(place) if f"/{member.pid}." in path and "worker" not in path]
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(name)
        assert sock.recv(100) == wire.greeting()
        sock.sendall(sent)
        assert sock.recv(100) == b""
    other.do("publish", count=3)
    assert member.got(other, count=3) == [[1, 2, 3]]
    member.do("stop")
    assert said in member.quit()


def test_a_worker_of_another_release_gets_nothing(start: Start, place: Path) -> None:
    publisher = start().take_part()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.bind(str(place / "rooms/app/1.00000001"))
        sock.listen()
        done = publisher.begin("publish", count=2, pause=0.2)
        with sock.accept()[0] as peer:
            peer.sendall(wire.greeting()[:4] + b"\x63" + wire.greeting()[5:])
            assert publisher.end(done)["refused"] == []
            while peer.recv(10000):
                pass
        sock.settimeout(0.3)
        publisher.do("publish")
        with pytest.raises(TimeoutError):
            sock.accept()
    assert "of another release" in publisher.quit()


def test_a_worker_whose_backlog_is_full_gets_all(start: Start, place: Path) -> None:
    publishers = [start().take_part() for _ in range(3)]
    with socket.socket(socket.AF_UNIX) as busy:
        busy.settimeout(PATIENCE)
        busy.bind(str(place / "rooms/app/1.00000002"))
        busy.listen(0)
        for publisher in publishers:
            assert publisher.do("publish", count=5)["refused"] == []
        for _ in publishers:
            with busy.accept()[0] as peer:
                peer.settimeout(PATIENCE)
                reader = wire.FrameReader(1000)
                records: list[object] = []
                while len(records) < 5:
                    records += reader.feed(peer.recv(1 << 16))
                assert [record.number for record in records] == [1, 2, 3, 4, 5]


def test_want_of_descriptors_is_told_and_passes(start: Start) -> None:
    poor, rich = start().take_part(), start()
    rich.origin = rich.do("start")
    poor.do("take_descriptors", 0)
    done = rich.do("publish", count=2, pause=1.2)
    assert done["refused"] == []
    other = start().take_part()
    assert "Too many open files" in poor.do("publish")["refused"][0]
    poor.do("give_descriptors")
    assert poor.got(rich, count=2) == [[1, 2]]
    assert poor.do("publish")["refused"] == []
    assert other.got(poor, count=1) == [[2]]
    assert "is not taken: [Errno 24]" in poor.quit()


def test_a_child_lets_go_of_all(start: Start) -> None:
    parent, other = (start().take_part() for _ in range(2))
    for member in (parent, other):
        member.do("publish")
    child = parent.do("fork")
    try:
        for member in (parent, other):
            member.do("publish")
        assert other.got(parent, count=4) == [[1, 2]]
        parent.signal(signal.SIGKILL)
        eventually(lambda: other.do("workers") == 1, "nobody takes the child for its parent")
    finally:
        os.kill(child, signal.SIGKILL)


# Where


def test_nothing_is_left_of_an_instance(start: Start, place: Path) -> None:
    members = [start("local://", options=instance()).take_part() for _ in range(3)]
    found = place / f"flask-uwsgi-websocket-{os.geteuid()}"
    assert [path.name for path in found.iterdir()] == ["{}.{}".format(*instance()["instance"])]
    for path in (found, *found.iterdir(), *found.glob("*/*")):
        assert path.stat().st_mode & 0o777 == 0o700
    for member in members[:2]:
        member.quit()
    assert len(sockets(place)) == 2
    members[2].quit()
    assert not list(place.iterdir())


def test_leftovers_of_the_dead_are_swept_and_the_living_are_not(start: Start, place: Path) -> None:
    base = place / f"flask-uwsgi-websocket-{os.geteuid()}"
    dead = {"prefix": "app", "instance": [2**22 + 1, 5]}
    killed, alive = start("local://", options=dead), start("local://", options=dead)
    for member in (killed, alive):
        member.take_part()
    killed.kill()
    assert len(list(base.iterdir())) == 1
    # Its parent cannot be seen, as in another container; but somebody holds its lock.
    other = start("local://", options=instance()).take_part()
    assert len(list(base.iterdir())) == 2
    alive.kill()
    other.kill()
    assert len(list(base.iterdir())) == 2
    start("local://", options=instance()).take_part()
    assert [path.name for path in base.iterdir()] == ["{}.{}".format(*instance()["instance"])]


def test_a_directory_that_vanishes_is_made_again(start: Start, place: Path) -> None:
    members = [start().take_part() for _ in range(2)]
    members[0].do("publish")
    assert members[1].got(members[0], count=1) == [[1]]
    shutil.rmtree(place / "rooms")
    eventually(lambda: [m.do("workers") for m in members] == [2, 2], "they find each other")
    members[0].do("publish")
    assert members[1].got(members[0], count=2) == [[1, 2]]


def test_a_directory_that_was_moved_away_parts_nobody(start: Start, place: Path) -> None:
    before = start().take_part()
    place.joinpath("rooms").rename(place / "old")
    after = start().take_part()
    eventually(lambda: [m.do("workers") for m in (before, after)] == [2, 2], "they find each other")
    before.do("publish")
    assert after.got(before, count=1) == [[1]]


def test_what_else_is_in_a_directory_that_was_named_stays(start: Start, place: Path) -> None:
    place.joinpath("rooms").mkdir()
    named = place / "rooms/app"
    named.mkdir(mode=0o700)
    for name in ("models.py", "1.jpg", ".env", "2.worker"):
        named.joinpath(name).write_text("precious")
    named.joinpath("templates").mkdir()
    members = [start().take_part() for _ in range(2)]
    members[0].do("publish")
    assert members[1].got(members[0], count=1) == [[1]]
    for member in members:
        member.do("stop")
        assert member.quit() == "-"
    assert {path.name for path in named.iterdir()} == {
        "models.py", "1.jpg", ".env", "2.worker", "templates"
    }  # fmt: skip


@pytest.fixture
def refused(start: Start, place: Path) -> Callable[..., str]:
    """What a process is told that cannot be in the mesh."""

    def refused(url: str = f"local://{place}/rooms", **setting: Any) -> str:
        process = start(url, **setting)
        process.origin = process.do("start")
        with pytest.raises(RuntimeError) as caught:
            process.do("subscribe", "room:a")
        assert process.do("told")["states"][-1] in str(caught.value)
        [problem] = process.do("publish")["refused"]
        assert "BackplaneUnavailable" in problem
        assert str(caught.value).startswith("BackplaneUnavailable: ")
        assert process.quit() == "-"
        return str(caught.value)

    return refused


def test_a_symbolic_link_is_not_followed(refused: Callable[..., str], place: Path) -> None:
    (place / "mine").mkdir(0o700)
    (place / "rooms").symlink_to(place / "mine")
    assert "is a symbolic link" in refused()
    (place / f"flask-uwsgi-websocket-{os.geteuid()}").symlink_to(place / "mine")
    assert 'local:///some/path"' in refused("local://", options=instance())
    assert not list((place / "mine").iterdir())


def test_a_directory_of_somebody_else_is_not_used(refused: Callable[..., str], place: Path) -> None:
    base = place / f"flask-uwsgi-websocket-{os.geteuid()}"
    for path in (place / "rooms", base):
        path.mkdir(0o700)
        os.chown(path, STRANGER, STRANGER)
    assert f"belongs to uid {STRANGER}" in refused()
    assert f"belongs to uid {STRANGER}" in refused("local://", options=instance())
    assert not sockets(place)


def test_a_directory_that_is_open_to_others_is_not_used(
    start: Start, refused: Callable[..., str], place: Path
) -> None:
    base = place / f"flask-uwsgi-websocket-{os.geteuid()}"
    base.mkdir()
    base.chmod(0o755)
    assert "its mode is 0755, not 0700" in refused("local://", options=instance())
    (place / "rooms").mkdir()
    (place / "rooms").chmod(0o777)
    assert "its mode is 0777" in refused()
    (place / "rooms").chmod(0o755)  # as systemd makes it: only the owner can write
    start().take_part()


def test_a_place_that_cannot_be_made(refused: Callable[..., str], place: Path) -> None:
    assert "/absent is no directory" in refused(f"local://{place}/absent/rooms")
    (place / "file").touch()
    assert "is a symbolic link or no directory" in refused(f"local://{place}/file")
    assert "is no directory" in refused(f"local://{place}/file/rooms")
    assert "Permission denied" in refused(f"local://{place}/theirs", uid=STRANGER)


def test_sockets_of_root_are_refused_and_root_refuses_others(start: Start, place: Path) -> None:
    home = place / "home"
    home.mkdir(0o700)
    os.chown(home, STRANGER, STRANGER)
    url = f"local://{home}/rooms"
    member = start(url, uid=STRANGER).take_part()
    with socket.socket(socket.AF_UNIX) as root:
        root.settimeout(PATIENCE)
        root.bind(str(home / "rooms/app/1.00000003"))
        root.listen()
        os.chmod(home / "rooms/app/1.00000003", 0o777)
        member.do("publish", count=3)
        with root.accept()[0] as peer:
            assert peer.recv(100) == b"", "nothing is written to it"
    [name] = [path for path in sockets(home) if f"/{member.pid}." in path and "worker" not in path]
    with socket.socket(socket.AF_UNIX) as root:
        root.settimeout(PATIENCE)
        root.connect(name)
        assert root.recv(100) == b""
    member.do("publish", count=3)
    assert member.got(member, count=6) == [[1, 2, 3, 4, 5, 6]]
    log = member.quit()
    assert "nothing is published to process 1: it is a process of another user" in log
    assert "is not taken: it is of another user" in log


def test_jailed_workers(start: Start, place: Path) -> None:
    members = [start("local:///rooms", root=str(place)).take_part() for _ in range(2)]
    members[0].do("publish")
    assert members[1].got(members[0], count=1) == [[1]]
    (place / ("x" * 100)).mkdir()
    with pytest.raises(RuntimeError, match="AF_UNIX path too long"):  # /proc would make it short
        start(f"local:///{'x' * 100}/rooms", root=str(place)).take_part()


def test_no_umask_opens_it(start: Start, place: Path) -> None:
    start("local://", options=instance(), umask=0).take_part()
    for path in place.rglob("*"):
        if path.is_dir():
            assert path.stat().st_mode & 0o777 == 0o700


def test_it_goes_where_this_user_may(monkeypatch, place: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    assert instances._root() == str(place)
    os.chown(place, STRANGER, STRANGER)
    run = "/run" if os.access("/run", os.W_OK) else tempfile.gettempdir()
    assert instances._root() == run
    monkeypatch.setattr(instances, "_is_writable", lambda path: False)
    assert instances._root() == tempfile.gettempdir()


def test_it_never_goes_to_a_working_directory(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "gettempdir", os.getcwd)
    with pytest.raises(BackplaneUnavailable, match="no directory for temporary files"):
        instances._temporary()


def test_a_full_file_system_is_told_and_passes(monkeypatch, place: Path) -> None:
    monkeypatch.setattr(mesh, "_INTERVAL", 0.01)
    errors: list[Any] = []

    def put_mark(self: directory.Directory, name: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def try_it() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: errors.append(what))
        backplane = LocalBackplane(f"local://{place}/rooms", BackplaneOptions("app", "me"))
        await backplane.start(Box())
        with monkeypatch.context() as full:
            full.setattr(directory.Directory, "put_mark", put_mark)
            with pytest.raises(BackplaneUnavailable, match="No space left on device"):
                await backplane.subscribe(["all"])
            await asyncio.sleep(0.1)
        while await backplane.workers() != 1:
            await asyncio.sleep(0.01)
        await backplane.stop()

    asyncio.run(asyncio.wait_for(try_it(), PATIENCE))
    assert not errors


def test_where_there_are_no_such_sockets(monkeypatch) -> None:
    monkeypatch.setattr(directory, "fcntl", None)  # as on Windows

    async def try_it() -> list[str]:
        backplane = LocalBackplane("local://", BackplaneOptions("app", "me", (1, 1)))
        await backplane.start(Box())
        with pytest.raises(BackplaneUnavailable, match="no UNIX sockets"):
            await backplane.subscribe(["all"])
        assert await backplane.workers() is None
        found = await backplane.check()
        await backplane.stop()
        return found

    assert "no UNIX sockets here" in asyncio.run(try_it())[0]


@pytest.mark.parametrize(
    ("url", "prefix"),
    [("local://run/app", "app"), ("local://./x", "app"), ("local:///a%00b", "app"),
     ("local://", "x" * 256), ("local://", "é" * 43)],
)  # fmt: skip
def test_urls_and_prefixes_that_are_wrong(url: str, prefix: str) -> None:
    with pytest.raises(ValueError, match=r"absolute path|255 bytes"):
        LocalBackplane(url, BackplaneOptions(prefix, "me"))


def test_prefixes_and_names_of_directories() -> None:
    prefixes = ["", "%", ".", "..", "...", ".a", "a/b", "a b", "é", "\0", "%2E", "shop"]
    names = [directory.name_of_app(prefix) for prefix in prefixes]
    assert len(set(names)) == len(prefixes)
    assert not {".", "..", ""} & set(names)
    assert not any("/" in name or "\0" in name for name in names)
    assert [directory.prefix_of(name) for name in names] == prefixes


def test_a_url_without_a_path_means_the_only_instance(start: Start, place: Path) -> None:
    uid = 100_000 + os.getpid()  # of nobody else on this machine
    os.chown(place, uid, uid)
    early = start("local://", uid=uid)
    with pytest.raises(RuntimeError, match="no uWSGI of this user has rooms"):
        early.take_part()
    early.kill()  # or it would take part as soon as it can
    worker = start("local://", uid=uid, options=instance()).take_part()
    publisher = start("local://", uid=uid)
    publisher.origin = publisher.do("start")
    publisher.do("publish")
    assert worker.got(publisher, count=1) == [[1]]
    assert publisher.do("workers") == 1
    assert publisher.quit() == "-"
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        other = {"prefix": "shop", "instance": [sleeper.pid, started_at(sleeper.pid)]}
        start("local://", uid=uid, options=other).take_part()
        with pytest.raises(RuntimeError, match="name one of: ") as caught:
            start("local://", uid=uid).take_part()
        sleeper.kill()
    assert f"({sleeper.pid}: sleep 60, 1 worker of 'shop')" in str(caught.value)
    assert f"({os.getpid()}: " in str(caught.value)
    assert str(caught.value).count("local:///") == 2


def test_a_long_path_is_none_too_long(start: Start, place: Path) -> None:
    deep = place / ("x" * 100)
    deep.mkdir()
    members = [start(f"local://{deep}/rooms").take_part() for _ in range(2)]
    members[0].do("publish")
    assert members[1].got(members[0], count=1) == [[1]]


def test_speed(start: Start) -> None:
    """Latency and throughput, for people to read."""
    publisher, *others = (start().take_part() for _ in range(4))
    publisher.do("publish", count=1000, pause=0.001)
    others[0].got(publisher, count=1000)
    delays = sorted(others[0].do("told")["delays"])
    print(f"p50 {delays[500] * 1e6:.0f} us, p99 {delays[990] * 1e6:.0f} us")
    for batch in (1, 16):
        before = time.monotonic()
        publisher.do("publish", count=30000, batch=batch)
        count = 31000 if batch == 1 else 61000
        for other in others:
            assert other.got(publisher, count=count) == [list(range(1, count + 1))]
        print(f"batches of {batch}: {30000 / (time.monotonic() - before):.0f} records/s to 3 peers")
