"""Rooms over two instances of uWSGI that share a Redis, as two machines do, and its faults."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.crowd import Crowd, Member, by_worker, have
from tests.redis_servers import RedisServer, Sentinels, running
from tests.server import PATIENCE, Server, eventually

StartRedis = Callable[..., RedisServer]
Serve = Callable[..., Server]

WORKERS = 2

pytestmark = pytest.mark.slow


def machines(serve: Serve, engine: str, url: str, cores: int | None = None) -> list[Server]:
    """Two instances that know of each other by Redis alone."""
    config = {"UWSGI_WEBSOCKET_BACKPLANE": url}
    options = {"app": "far_rooms", "config": config, "processes": WORKERS, "cores": cores}
    return [serve(engine, **options) for _ in range(2)]


class Publisher:
    """Has a view publish numbered messages, some at a time, until it is told to end."""

    def __init__(self, server: Server, room: str, name: str, pause: float = 0.0) -> None:
        self.name, self.count = name, 0
        self.refused: set[int] = set()
        self._server, self._room, self._pause = server, room, pause
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def publish(self, count: int) -> bool:
        """Publish; return whether all was taken."""
        path = f"/publish/{self._room}/{self.name}/{self.count}/{count}"
        answer = self._server.http("POST", path)
        assert answer.status == 200, answer
        refused = json.loads(answer.body)
        self.count += count
        self.refused.update(refused)
        return not refused

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(self._pause):
            self.publish(5)

    def end(self) -> None:
        self._over.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    @property
    def taken(self) -> list[str]:
        return [f"{self.name} {n}" for n in range(self.count) if n not in self.refused]


def assert_once_and_in_order(members: list[Member], publishers: list[Publisher]) -> None:
    for member in members:
        for publisher in publishers:
            numbers = member.numbers(publisher.name)
            assert numbers == sorted(set(numbers)), (publisher.name, numbers)


def assert_nobody_served_in_part(members: list[Member]) -> None:
    """What a worker has heard, all its sockets in the room were sent."""
    for of_worker in by_worker(members).values():
        heard = [Counter(member.messages) for member in of_worker]
        assert all(counter == heard[0] for counter in heard)


@pytest.fixture
def servers(engine: str, serve: Serve, start_redis: StartRedis) -> list[Server]:
    return machines(serve, engine, start_redis().url)


def test_once_and_in_order_on_both_machines(servers: list[Server]) -> None:
    with Crowd(*servers) as crowd:
        members, others = crowd.join(40, "/room/a"), crowd.join(4, "/room/b")
        assert len(by_worker(members)) >= 3
        publishers = [Publisher(servers[i % 2], "a", f"p{i}") for i in range(4)]
        threads = [threading.Thread(target=p.publish, args=(100,)) for p in publishers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        have(members, 400)
        assert_once_and_in_order(members, publishers)
        for member in members:
            assert sorted(member.messages) == sorted(t for p in publishers for t in p.taken)
        assert not any(member.messages for member in others)


def test_a_join_is_in_force_on_return(servers: list[Server]) -> None:
    """Whatever is sent when the handler has joined arrives, from the other machine, too."""
    with Crowd(*servers) as crowd:
        for number in range(25):
            members = crowd.join(2, f"/room/new{number}")  # one on each
            assert Publisher(servers[number % 2], f"new{number}", "p").publish(1)
            have(members, 1)


@pytest.mark.parametrize("engine", ["gevent", "asyncio"])
def test_a_thousand_sockets(engine: str, serve: Serve, start_redis: StartRedis) -> None:
    servers = machines(serve, engine, start_redis().url, cores=300)
    with Crowd(*servers) as crowd:
        members = crowd.join(1000, "/room/all")
        publishers = [Publisher(server, "all", f"p{i}") for i, server in enumerate(servers)]
        began = time.monotonic()
        for _ in range(10):
            for publisher in publishers:
                assert publisher.publish(10)
        have(members, 200)
        took = time.monotonic() - began
        print(f"{engine}: 200 messages to 1,000 sockets of 4 workers in {took:.2f} s")
        assert_once_and_in_order(members, publishers)
        assert all(len(member.messages) == 200 for member in members)


class Fault:
    """What happens to the servers, and how it ends."""

    def __init__(self, url: str, begin: Callable[[], object], end: Callable[[], object]) -> None:
        self.url, self.begin, self.end = url, begin, end


@pytest.fixture(params=["killed", "paused", "restarted", "connections cut", "failed over"])
def fault(
    request: pytest.FixtureRequest, start_redis: StartRedis, tmp_path: Path
) -> Iterator[Fault]:
    if request.param == "failed over":
        with running(Sentinels(tmp_path)) as sentinels:
            yield Fault(sentinels.url, sentinels.master.kill, lambda: None)
        return
    server = start_redis()

    def cut() -> None:
        server.call(*["CLIENT", "KILL", "TYPE", "pubsub"])
        server.call(*["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])

    begin, end = {
        "killed": (server.kill, server.start),
        "paused": (server.pause, server.resume),
        "restarted": (server.restart, lambda: None),
        "connections cut": (cut, lambda: None),
    }[request.param]
    yield Fault(server.url, begin, end)


def take_again(members: list[Member], publishers: list[Publisher]) -> None:
    """Publish until all that is taken arrives at everybody."""
    deadline = time.monotonic() + 2 * PATIENCE
    for publisher in publishers:
        while True:
            if publisher.publish(1):
                last = publisher.taken[-1]
                time.sleep(0.2)
                if all(last in member.messages[-50:] for member in members):
                    break
            assert time.monotonic() < deadline, publisher.count


# With the backplane on the loop of a thread of its own, and on the worker's: the faults are its.
@pytest.mark.parametrize("engine", ["gevent", "asyncio"])
def test_faults_while_publishing(
    engine: str, serve: Serve, fault: Fault, request: pytest.FixtureRequest
) -> None:
    servers = machines(serve, engine, fault.url)
    with Crowd(*servers) as crowd:
        members = crowd.join(60, "/room/a")
        publishers = [Publisher(servers[i % 2], "a", f"p{i}", pause=0.02) for i in range(4)]
        for publisher in publishers:
            publisher.start()
        time.sleep(0.5)
        fault.begin()
        time.sleep(1.5)
        fault.end()
        time.sleep(1.5)
        for publisher in publishers:
            publisher.end()
        take_again(members, publishers)
        assert [member.code for member in members] == [None] * 60
        assert_once_and_in_order(members, publishers)
        assert_nobody_served_in_part(members)
        report(request.node.name, crowd, publishers)


def report(name: str, crowd: Crowd, publishers: list[Publisher]) -> None:
    """Print what was lost; what was lost by a worker, it has counted as a gap."""
    taken = {text for publisher in publishers for text in publisher.taken}
    refused = sum(len(publisher.refused) for publisher in publishers)
    workers = by_worker(crowd.members)
    heard = {worker: set(members[0].messages) for worker, members in workers.items()}
    lost = {worker: len(taken - texts) for worker, texts in heard.items()}
    extra = {worker: len(texts - taken) for worker, texts in heard.items()}
    gaps = {worker: gaps_of(crowd, members[0]) for worker, members in workers.items()}
    print(
        f"{name}: {len(taken)} taken, {refused} refused; by worker: lost {list(lost.values())}, "
        f"arrived though refused {list(extra.values())}, gaps {list(gaps.values())}"
    )
    assert all(gaps[worker] for worker, count in lost.items() if count), (lost, gaps)


def gaps_of(crowd: Crowd, member: Member) -> int:
    """How many gaps the worker of a member has counted."""
    crowd.say(member, "?")
    eventually(lambda: member.messages[-1].startswith("figures"), "the worker's figures")
    figures = json.loads(member.messages[-1].removeprefix("figures "))
    return int(figures["backplane"]["gaps"])
