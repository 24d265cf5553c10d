"""Clients resume through everything: none misses a message, or it is told that it does.

``CHAOS="60 100 500"`` has it last for so many seconds, with so many clients and messages a second.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from flask_uwsgi_websocket import BackplaneUnavailable, Publisher, RoomError
from flask_uwsgi_websocket.rooms.positions import Position
from tests.redis_servers import RedisServer
from tests.resumers import Resumers
from tests.server import PATIENCE, Server, eventually

SECONDS, CLIENTS, RATE = map(int, os.environ.get("CHAOS", "6 25 120").split())
WORKERS = 3

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS + 240)]


class Sender:
    """Sends numbered messages at a rate, in a thread, and notes where they are."""

    def __init__(self, name: str, rate: float, send: Callable[[str, int, int], list[str | None]]):
        self.sent: dict[str, Position | None] = {}
        self._name, self._rate, self._send = name, rate, send
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        begun, number, few = time.monotonic(), 0, 5
        while not self._over.wait(max(0.0, begun + number / self._rate - time.monotonic())):
            positions = self._send(self._name, number, few)
            for n, position in enumerate(positions, number):
                self.sent[f"{self._name} {n}"] = Position.parse(position)
            number += few


def by_publisher(publisher: Publisher) -> Callable[[str, int, int], list[str | None]]:
    """From a process that is no worker."""

    def send(name: str, first: int, count: int) -> list[str | None]:
        positions: list[str | None] = []
        for number in range(first, first + count):
            try:
                positions.append(publisher.to("chaos").send(f"{name} {number}"))
            except BackplaneUnavailable:
                positions.append(None)
        return positions

    return send


def by_view(server: Server) -> Callable[[str, int, int], list[str | None]]:
    """By a worker, whichever answers."""

    def send(name: str, first: int, count: int) -> list[str | None]:
        try:
            answer = server.http("POST", f"/send/{name}/{first}/{count}")
            positions: list[str | None] = json.loads(answer.body)
            return positions
        except (OSError, ValueError):  # it was killed
            return [None] * count

    return send


@pytest.fixture(params=["local", "redis"])
def redis(
    request: pytest.FixtureRequest, start_redis: Callable[..., RedisServer]
) -> RedisServer | None:
    return start_redis() if request.param == "redis" else None


@pytest.fixture
def publisher(redis: RedisServer | None, tmp_path: Path) -> Iterator[Publisher]:
    url = redis.url if redis else f"local://{tmp_path}/rooms"
    with Publisher(url, prefix="chaos") as publisher:
        yield publisher


@pytest.mark.parametrize("engine", ["threads", "gevent", "asyncio"])
def test_nobody_misses_anything_unknowingly(
    serve: Callable[..., Server],
    engine: str,
    redis: RedisServer | None,
    publisher: Publisher,
    tmp_path: Path,
) -> None:
    server = serve(
        engine,
        app="chaos",
        processes=WORKERS,
        cores=CLIENTS + 50,
        options=["--listen", "200"],
        config={"UWSGI_WEBSOCKET_BACKPLANE": redis.url if redis else f"local://{tmp_path}/rooms"},
    )
    resumers = Resumers(server, CLIENTS, SECONDS / 4)
    senders = [
        Sender("outside", RATE / 2, by_publisher(publisher)),
        Sender("view", RATE / 2, by_view(server)),
    ]
    server.allow_log("DAMN")
    with resumers:
        eventually(lambda: position_of(publisher), "the app's description of its rooms")
        with senders[0], senders[1]:
            make_chaos(server, redis)
        resumers.finish(eventually(lambda: position_of(publisher), "the end"))
    sent = senders[0].sent | senders[1].sent
    truth = resumers.truth
    print(f"{engine}, {'Redis' if redis else 'local'}: {len(sent)} sent,", end=" ")
    print(f"{sum(map(bool, sent.values()))} of them acknowledged;", dict(truth.counters))
    print("epochs:", len(truth.epochs), "wrong:", len(truth.wrong))
    truth.check(sent)
    assert len(truth.epochs) <= (2 if redis else 1)
    assert truth.counters["recovered: true"]


def position_of(publisher: Publisher) -> Position | None:
    try:
        return Position.parse(publisher.position("chaos"))
    except RoomError:  # the room is not known yet, or Redis is away
        return None


def make_chaos(server: Server, redis: RedisServer | None) -> None:
    """Kill workers, reload, and restart Redis, within the time."""
    begun = time.monotonic()
    steps = [kill_a_worker, kill_a_worker, reload, kill_a_worker]
    if redis is not None:
        steps[1:1] = [lambda _: redis.restart()]
    pause = SECONDS / (len(steps) + 1)
    for number, step in enumerate(steps, 1):
        time.sleep(max(0.0, begun + number * pause - time.monotonic()))
        step(server)
    time.sleep(pause)


def kill_a_worker(server: Server) -> None:
    pids = [worker["pid"] for worker in server.stats()["workers"] if worker["pid"]]
    with suppress(ProcessLookupError):  # the master is just reloading
        os.kill(random.choice(pids), signal.SIGKILL)


def reload(server: Server) -> None:
    server.signal(signal.SIGHUP)
