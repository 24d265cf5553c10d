"""Publishing from outside: scripts, threads, forked processes, greenlets, asyncio, Celery."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from flask_uwsgi_websocket import AsyncPublisher, Publisher
from flask_uwsgi_websocket.commands.cli import websocket
from flask_uwsgi_websocket.exceptions import BackplaneUnavailable
from flask_uwsgi_websocket.helpers.log import logger
from flask_uwsgi_websocket.rooms.access import Access, only_instance
from flask_uwsgi_websocket.rooms.channels import ALL, room_channel
from flask_uwsgi_websocket.rooms.local.instances import Instance
from flask_uwsgi_websocket.rooms.loop_calls import wait_for
from flask_uwsgi_websocket.rooms.record import Kind, Record
from tests.redis_servers import RedisServer
from tests.server import PATIENCE, ROOT, eventually

PREFIX = "shop"


pytestmark = pytest.mark.slow


class Ear:
    """Hears what is published to rooms ``a`` and ``b``, and to all."""

    def __init__(self, url: str) -> None:
        self.records: list[Record] = []
        self._access = Access(url, PREFIX, 2.0, receive=self.records.append)
        exchange = self._access.exchange()
        assert exchange is not None
        for channel in (room_channel("a"), room_channel("b"), ALL):
            subscribing = exchange.subscribe(channel)
            assert subscribing is not None
            wait_for(subscribing, 10)

    @property
    def heard(self) -> list[str]:
        return [record.data.decode() for record in self.records]

    def hears(self, *messages: str) -> None:
        eventually(lambda: len(self.records) >= len(messages), f"{len(messages)} messages")
        assert self.heard == list(messages)

    def close(self) -> None:
        self._access.close()


@pytest.fixture(params=["local", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "local":
        yield f"local://{tmp_path}/rooms"
        return
    server = RedisServer(tmp_path).start()
    yield server.url
    server.kill()


@pytest.fixture
def ear(url: str) -> Iterator[Ear]:
    ear = Ear(url)
    yield ear
    ear.close()


def script(code: str, *words: str, **variables: str) -> str:
    """What a fresh interpreter prints that runs a script; it must not complain."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *words],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# From a script


def test_a_script(url: str, ear: Ear) -> None:
    code = """
import sys
from flask_uwsgi_websocket import Publisher
with Publisher(sys.argv[1], prefix="shop") as rooms:
    rooms.to("a").send("1")
    rooms.to("a", "b").send_json({"a": "é"})
    rooms.to_all().send_nowait(b"2")
    rooms.to("b").leave("b")
print(*(name for name in ("uwsgi", "gevent", "redis") if name in sys.modules))
"""
    assert set(script(code, url).split()) <= {"redis" if url.startswith("redis") else ""}
    ear.hears("1", json.dumps({"a": "é"}), "2", "b")
    assert [record.kind for record in ear.records] == [*3 * [Kind.MESSAGE], Kind.LEAVE]


@pytest.mark.parametrize("held", ["rooms = ", ""])
def test_what_is_queued_goes_out_before_a_script_ends(url: str, ear: Ear, held: str) -> None:
    code = f"""
import sys
from flask_uwsgi_websocket import Publisher
{held}Publisher(sys.argv[1], prefix="shop").to("a").send_nowait("last words")
"""
    script(code, url)
    ear.hears("last words")


def test_closing_waits_for_what_is_queued(url: str, ear: Ear) -> None:
    with Publisher(url, prefix=PREFIX) as rooms:
        for number in range(1000):
            rooms.to("a").send_nowait(f"{number}")
    ear.hears(*map(str, range(1000)))
    rooms.to("a").send("again")  # it connects anew
    rooms.close()
    rooms.close()
    ear.hears(*map(str, range(1000)), "again")


def test_one_for_each_job_leaves_nothing_behind(url: str, ear: Ear) -> None:
    def job(number: int) -> None:
        with Publisher(url, prefix=PREFIX) as rooms:
            rooms.to("a").send(f"{number}")

    job(0)
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    for number in range(1, 20):
        job(number)
    ear.hears(*map(str, range(20)))
    eventually(
        lambda: (len(os.listdir("/proc/self/fd")), threading.active_count()) <= before,
        "no descriptor or thread more",
    )


def test_one_that_is_forgotten_ends(url: str) -> None:
    Publisher(url, prefix=PREFIX).to("a").send("x")  # whatever is made once
    before = eventually(lambda: len(os.listdir("/proc/self/fd")), "descriptors")
    for _ in range(20):
        Publisher(url, prefix=PREFIX).to("a").send("x")
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= before, "no descriptor more")


# From threads and forked processes


def test_many_threads_share_one(url: str, ear: Ear) -> None:
    rooms = Publisher(url, prefix=PREFIX)

    def work(name: int) -> None:
        for number in range(50):
            (rooms.to("a").send if number % 2 else rooms.to("a").send_nowait)(f"{name} {number}")

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    eventually(lambda: len(ear.records) == 400, "400 messages")
    for name in range(8):
        of_thread = [each.split()[1] for each in ear.heard if each.startswith(f"{name} ")]
        assert of_thread == list(map(str, range(50)))
    rooms.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_processes(url: str, ear: Ear) -> None:
    rooms = Publisher(url, prefix=PREFIX)
    rooms.to("a").send("parent")

    def child(name: str) -> None:
        rooms.to("a").send(f"{name} 1")
        rooms.to("a").send_nowait(f"{name} 2")
        rooms.close()

    fork = multiprocessing.get_context("fork")
    for name in ("first", "second"):
        process = fork.Process(target=child, args=(name,))
        process.start()
        process.join(30)
        assert process.exitcode == 0
        rooms.to("a").send(f"parent of {name}")
    ear.hears(
        *("parent", "first 1", "first 2", "parent of first"),
        *("second 1", "second 2", "parent of second"),
    )
    rooms.close()


# From greenlets and asyncio


GREENLETS = """
import sys, time
from flask_uwsgi_websocket import Publisher
with Publisher(sys.argv[1], prefix="shop") as rooms:
    ticks = 0
    def tick():
        global ticks
        while True:
            sleep(0.001)
            ticks += 1
    ticker = spawn(tick)
    def work(name):
        for number in range(20):
            rooms.to("a").send(f"{name} {number}")
    for greenlet in [spawn(work, name) for name in range(10)]:
        join(greenlet)
    rooms.to("b").send_nowait("end")
    ticks = 0
    away = Publisher("redis://127.0.0.1:1", prefix="shop", timeout=0.5)
    try:
        away.to("a").send("lost")
    except ConnectionError:
        print(ticks > 50)
    end(ticker)
"""
LIBRARIES = {
    "gevent": "from gevent import monkey; monkey.patch_all()\n"
    "from gevent import spawn, sleep\n"
    "join, end = (lambda greenlet: greenlet.join()), (lambda greenlet: greenlet.kill())",
    "eventlet": "import eventlet; eventlet.monkey_patch()\n"
    "from eventlet import spawn, sleep\n"
    "join, end = (lambda greenlet: greenlet.wait()), (lambda greenlet: greenlet.kill())",
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_greenlets(url: str, ear: Ear, library: str) -> None:
    quiet = "import logging, warnings\nlogging.disable()\nwarnings.simplefilter('ignore')\n"
    assert script(quiet + LIBRARIES[library] + GREENLETS, url) == "True\n"
    eventually(lambda: len(ear.records) == 201, "201 messages")
    for name in range(10):
        of_greenlet = [each.split()[1] for each in ear.heard if each.startswith(f"{name} ")]
        assert of_greenlet == list(map(str, range(20)))


def test_an_asyncio_program(url: str, ear: Ear) -> None:
    rooms = AsyncPublisher(url, prefix=PREFIX)

    async def main(name: str) -> None:
        async with rooms:
            await rooms.to("a").send(f"{name} 1")
            rooms.to("a").send_nowait(f"{name} 2")
            await rooms.to("a", "b").send_json([name])
            assert (await rooms.count("a")).connections == 0
            assert await rooms.rooms() == {}

    for name in ("first", "second"):  # each in a loop of its own
        asyncio.run(main(name))
    ear.hears("first 1", "first 2", '["first"]', "second 1", "second 2", '["second"]')


# When it cannot be


def test_a_backplane_that_is_away(tmp_path: Path) -> None:
    server = RedisServer(tmp_path).start()
    rooms = Publisher(server.url, prefix=PREFIX, timeout=0.5)
    ear = Ear(server.url)
    rooms.to("a").send("before")
    server.kill()
    begun = time.monotonic()
    with pytest.raises(BackplaneUnavailable, match="redis"):
        rooms.to("a").send("lost")
    with pytest.raises(BackplaneUnavailable):
        rooms.count("a")
    assert time.monotonic() - begun < PATIENCE
    rooms.to("a").send_nowait("dropped")
    server.start()

    def is_back() -> bool:
        try:
            rooms.to("b").send("back")
        except BackplaneUnavailable:
            return False
        return "back" in ear.heard

    eventually(is_back, "a message after the outage")
    rooms.close()
    ear.close()
    server.kill()


def test_what_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"prefix=app\.name"):
        Publisher("redis://localhost")
    with pytest.raises(ValueError, match="pigeon://"):
        Publisher("pigeon://loft", prefix=PREFIX)
    with pytest.raises(ValueError, match="at most"):
        Publisher("memory://", prefix=PREFIX, max_size=10).to("a").send("x" * 11)
    with pytest.raises(TypeError, match="str or bytes"):
        Publisher("memory://", prefix=PREFIX).to("a").send_nowait(1)


# Where the app is


def test_the_configuration_of_an_app(url: str, ear: Ear) -> None:
    config = {
        "UWSGI_WEBSOCKET_BACKPLANE": url,
        "UWSGI_WEBSOCKET_PREFIX": PREFIX,
        "UWSGI_WEBSOCKET_ROOM_MESSAGE_SIZE": 100,
        "OTHER": 1,
    }
    with Publisher.from_config(config) as rooms:
        rooms.to("a").send("hi")
        with pytest.raises(ValueError, match="100 at most"):
            rooms.to("a").send("x" * 101)
    del config["UWSGI_WEBSOCKET_PREFIX"]
    with Publisher.from_config(config, prefix=PREFIX, dumps=lambda value: f"<{value}>") as rooms:
        rooms.to("a").send_json(7)
    ear.hears("hi", "<7>")


@pytest.mark.parametrize("url", [None, "local://"])
def test_no_instance(
    url: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("flask_uwsgi_websocket.rooms.access.find_instances", list)
    with Publisher(url) as rooms:
        for _ in range(3):
            rooms.to("a").send("to nobody")
            rooms.to("a").send_nowait("to nobody")
        assert rooms.count("a") == (0, 0, True)
        assert rooms.rooms() == {}
    assert caplog.text.count("reached nobody") == 1


def instances(*given: tuple[int, str]) -> list[Instance]:
    return [Instance(f"/run/x/{parent}.1", parent, {prefix: 1}) for parent, prefix in given]


def test_the_instance_that_is_meant() -> None:
    assert only_instance([], None) is None
    assert only_instance(instances((1_000_001, "shop")), None) == (
        "local:///run/x/1000001.1",
        "shop",
    )
    two = instances((1_000_001, "shop"), (1_000_002, "blog"))
    assert only_instance(two, "blog") == ("local:///run/x/1000002.1", "blog")
    assert only_instance(two, "chat") is None
    with pytest.raises(BackplaneUnavailable, match=r"(?s)several.*1000001.*1000002"):
        only_instance(two, None)
    # A mule, or what a uWSGI has started, belongs to that one.
    ours = instances((1_000_001, "shop"), (os.getppid(), "shop"))
    assert only_instance(ours, "shop") == (f"local:///run/x/{os.getppid()}.1", "shop")


def test_commands_list_the_instances_that_could_be_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    several = partial(instances, (1_000_001, "shop"), (1_000_002, "blog"))
    monkeypatch.setattr("flask_uwsgi_websocket.rooms.access.find_instances", several)
    monkeypatch.setattr(logger, "disabled", False)  # the command sets it
    for command in (["publish", "a", "hi"], ["rooms"], ["tail", "a"]):
        result = CliRunner().invoke(websocket, command)
        assert result.exit_code == 1
        assert result.output.startswith("Error: there are several apps with rooms")
