"""Kept rooms over the workers of one uWSGI: what stays, what goes, and what faults cost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from flask_uwsgi_websocket import Publisher
from flask_uwsgi_websocket.rooms.local.directory import STORE
from tests.crowd import Crowd, Member, have
from tests.server import PATIENCE, Server, eventually
from tests.test_rooms_workers import directories

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    # What these tests are about does not differ between engines, but by whose loop it runs on.
    pytest.mark.parametrize("engine", ["threads", "asyncio"]),
]

WORKERS = 2


@pytest.fixture
def server(serve: Callable[..., Server], engine: str, tmp_path: Path) -> Server:
    return serve(
        engine,
        app="kept",
        cores=60,
        processes=WORKERS,
        options=["--worker-reload-mercy", "5"],
        config={"TEST_TIMEOUT": 1},
        env={"XDG_RUNTIME_DIR": str(tmp_path)},
    )


def publish(server: Server, room: str, tag: str, first: int = 0, count: int = 1) -> list[Any]:
    answer = server.http("POST", f"/publish/{room}/{tag}/{first}/{count}")
    assert answer.status == 200, answer.body
    refused: list[Any] = json.loads(answer.body)
    return refused


def history(server: Server, room: str) -> list[str]:
    found = json.loads(server.get(f"/history/{room}").body)
    return [text.rstrip(". ") for text in found["texts"]]


def epoch(server: Server, room: str) -> str:
    return server.get(f"/position/{room}").body.decode().partition(".")[0]


def join(crowd: Crowd, number: int, path: str) -> list[Member]:
    """Have clients join, and wait until they have."""
    members = crowd.join(number, path)

    def has_joined(member: Member) -> bool:
        return any(message.startswith("joined") for message in list(member.messages))

    eventually(lambda: all(map(has_joined, members)), "all to have joined")
    return members


def answers(server: Server) -> bool:
    try:
        return server.get("/position/any", timeout=5).status == 200
    except OSError:
        return False


def test_what_is_kept_outlives_workers(server: Server, tmp_path: Path) -> None:
    server.allow_log("DAMN")
    expected = []
    with Crowd(server) as crowd:
        for number, end in enumerate((signal.SIGKILL, signal.SIGHUP)):
            assert publish(server, "a", "x", number * 3, 3) == []
            expected += [f"x {each}" for each in range(number * 3, number * 3 + 3)]
            before = server.pids()
            was = epoch(server, "a")
            [member] = join(crowd, 1, "/plain/a?replay=100")
            have([member], len(expected) + 1)
            for pid in before if end is signal.SIGKILL else [server._pid]:
                os.kill(pid, end)
            server.settle(*before)
            eventually(lambda: answers(server), "an answer")
            assert history(server, "a") == expected
            assert epoch(server, "a") == was
        join(crowd, 1, "/plain/a")  # who has clients knows best that all ends
        server.stop()
    assert directories(tmp_path) == []  # all is gone with the instance


def test_clients_that_come_back_get_what_they_missed(server: Server) -> None:
    with Crowd(server) as crowd:
        begin = server.get("/position/a").body.decode()
        publish(server, "a", "x", 0, 20)
        [member] = join(crowd, 1, f"/plain/a?since={begin}")
        publish(server, "a", "x", 20, 5)
        have([member], 26)
        assert member.numbers("x") == list(range(25))
        for since in ("", "nonsense", "k3v9.1", begin.replace(".0", ".99"), "\0" * 60):
            for room in ("a", "few"):
                [other] = join(crowd, 1, f"/plain/{room}?since={quote(since)}")
                assert other.messages[0].split(" ")[2:] == ["False", "0"]
        publish(server, "few", "y", 0, 10)
        [late] = join(crowd, 1, "/plain/few?replay=10")
        have([late], 6)
        assert late.numbers("y") == [5, 6, 7, 8, 9]


def test_a_stopped_worker_is_late_and_misses_nothing(server: Server) -> None:
    with Crowd(server) as crowd:
        members = join(crowd, 6, "/plain/a")
        stopped = members[0].pid
        os.kill(stopped, signal.SIGSTOP)
        try:
            with Publisher(prefix="kept", url=_url(server)) as publisher:
                for number in range(200):
                    publisher.to("chat/a").send(f"x {number}")
            others = [member for member in members if member.pid != stopped]
            have(others, 201)
        finally:
            os.kill(stopped, signal.SIGCONT)
        have(members, 201)
        for member in members:
            assert member.numbers("x") == list(range(200))


def _url(server: Server) -> str:
    [path] = directories(Path(server.environment["XDG_RUNTIME_DIR"]))
    return f"local://{path}"


def _store(server: Server) -> Path:
    [path] = directories(Path(server.environment["XDG_RUNTIME_DIR"]))
    return path / "kept" / STORE


def test_a_file_that_is_removed_is_noticed(server: Server) -> None:
    with Crowd(server) as crowd:
        members = join(crowd, 4, "/plain/a")
        publish(server, "a", "x", 0, 3)
        have(members, 4)
        was = epoch(server, "a")
        for file in _store(server).parent.glob(f"{STORE}*"):
            file.unlink()
        assert publish(server, "a", "x", 3, 2) == []
        have(members, 6)
        for member in members:
            assert member.numbers("x") == list(range(5))
        assert epoch(server, "a") != was
        assert history(server, "a") == ["x 3", "x 4"]
        resyncs = {}
        for _ in range(8):
            facts = json.loads(server.get("/facts").body)
            resyncs[facts["pid"]] = facts["figures"]["patterns"]["chat/*"]["resyncs"]
        here = {member.pid for member in members}
        assert all(resyncs[pid] == 1 for pid in here & resyncs.keys())


def test_a_store_that_cannot_be_used_is_said(server: Server) -> None:
    server.allow_log("1013|cannot be used")
    with Crowd(server) as crowd:
        [member] = join(crowd, 1, "/plain/a")
        assert publish(server, "a", "x") == []
        have([member], 2)
        store = _store(server)
        for file in store.parent.glob(f"{STORE}*"):
            file.unlink()
        store.mkdir()  # what not even root can use as a file
        begin = time.monotonic()
        [[_, error]] = publish(server, "a", "x", 1)
        assert time.monotonic() - begin < 20
        assert f"{store} cannot be used" in error
        assert "UWSGI_WEBSOCKET_BACKPLANE" in error
        assert server.http("POST", "/publish/a/x/2/1").status == 200  # nothing hangs
        store.rmdir()
        assert publish(server, "a", "x", 3) == []
        eventually(lambda: member.numbers("x")[-1] == 3, "the one that was taken")


def test_publishers_outside_know_which_rooms_are_kept(server: Server) -> None:
    with Crowd(server) as crowd, Publisher(_url_when_there(server), prefix="kept") as publisher:
        [member] = join(crowd, 1, "/plain/a")
        first = publisher.to("chat/a").send("x 0 ", key="once")
        assert publisher.to("chat/a").send("x 0 ", key="once") == first
        publisher.to("chat/a").send_nowait("x 1 ")
        last = publisher.to("chat/a").send("x 2 ")
        assert publisher.position("chat/a") == last
        past = publisher.history("chat/a", after=first)
        assert [each.data for each in past.messages] == ["x 1 ", "x 2 "]
        assert publisher.to("else").send("plain") is None
        have([member], 4)
        assert member.numbers("x") == [0, 1, 2]
        publisher.forget("chat/a")
        assert publisher.history("chat/a").messages == []


def _url_when_there(server: Server) -> str:
    assert answers(server)
    return _url(server)


def run_command(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flask_uwsgi_websocket", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)


def test_terminals(server: Server) -> None:
    place = ["--backplane", _url_when_there(server), "--prefix", "kept"]
    publish(server, "a", "x", 0, 4)
    shown = run_command("history", "chat/a", *place)
    assert not shown.stderr
    lines = [line.split("  ") for line in shown.stdout.splitlines()]
    assert [text.rstrip(". ") for _, text in lines] == ["x 0", "x 1", "x 2", "x 3"]
    after = lines[1][0]
    found = json.loads(run_command("history", "chat/a", "--after", after, "--json", *place).stdout)
    assert [each["position"] for each in found["messages"]] == [lines[2][0], lines[3][0]]
    assert (found["position"], found["complete"]) == (lines[3][0], True)
    assert "not kept any more" in run_command("history", "chat/a", "--after", "a.1", *place).stderr
    assert "keeps no messages" in run_command("history", "plain", *place).stderr
    for wrong in (["chat/a", "--since", "x"], ["chat/a", "chat/few", "--since", after]):
        assert "--since takes a position" in run_command("tail", *wrong, *place).stderr
    command = [sys.executable, "-m", "flask_uwsgi_websocket", "tail", "chat/a", "--since", after]
    with subprocess.Popen([*command, *place], stdout=subprocess.PIPE, text=True) as tail:
        assert tail.stdout is not None
        try:
            assert [tail.stdout.readline().rstrip(".\n ") for _ in range(2)] == ["x 2", "x 3"]
            publish(server, "a", "x", 4)
            assert tail.stdout.readline().rstrip(".\n ") == "x 4"
            assert server.http("POST", "/forget/a").status == 204
            publish(server, "a", "y", 0)
            assert "messages are missing" in tail.stdout.readline()
            assert tail.stdout.readline().rstrip(".\n ") == "y 0"
        finally:
            tail.send_signal(signal.SIGINT)
