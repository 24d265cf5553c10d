"""Records for the clients of a real worker, in its order and at its pace, on each engine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import pytest

from tests.rawclient import RawClient
from tests.server import PATIENCE, Server


@pytest.fixture
def rooms(engine: str, shared_server: Any) -> Server:
    server: Server = shared_server(engine, app="delivery")
    return server


class Reader:
    """Reads all messages of a client, in a thread, until there are so many, or it ends."""

    def __init__(self, client: RawClient, count: int) -> None:
        self.messages: list[Any] = []
        self._client, self._count = client, count
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for _ in range(self._count):
            self.messages.append(json.loads(self._client.message()))

    def all(self) -> list[Any]:
        self._thread.join(60)
        assert len(self.messages) == self._count
        return self.messages


@pytest.fixture
def join(rooms: Server, token: str) -> Iterator[Any]:
    """Lets a client join the test's room; with its id."""
    with ExitStack() as stack:

        def join(kind: str = "room") -> tuple[RawClient, str]:
            client = stack.enter_context(rooms.raw(f"/{kind}/{token}"))
            return client, str(client.message())

        yield join


def publish(rooms: Server, token: str, count: int, room: str = "", **options: Any) -> None:
    query = "&".join(f"{name}={value}" for name, value in {"token": token, **options}.items())
    rooms.http("POST", f"/publish/{room or token}/{count}?{query}")


@pytest.mark.parametrize("kind", ["in-order", "in-order-compressed"])
def test_room_messages_and_direct_ones_keep_their_order(
    rooms: Server, token: str, kind: str
) -> None:
    rounds = 20
    with rooms.connect(f"/{kind}/{token}/{rounds}", compression="deflate") as client:
        client.send("go")
        seen = [
            str(client.recv(PATIENCE)).removesuffix(" and more" * 20) for _ in range(5 * rounds)
        ]
    expected = []
    for number in range(rounds):
        expected += [f"direct {number}", *(f"room {number}.{part}" for part in range(3))]
        expected.append(f"direct again {number}")
    assert seen == expected


def test_each_publisher_s_messages_come_once_and_in_order(
    rooms: Server, token: str, join: Any
) -> None:
    clients = [join()[0] for _ in range(4)]
    count, threads = 400, 3
    readers = [Reader(client, count * threads) for client in clients]
    publish(rooms, token, count, threads=threads, size=100)
    for reader in readers:
        messages = reader.all()
        for name in range(threads):
            numbers = [number for thread, number in messages if thread == name]
            assert numbers == list(range(count))
    for client in clients:
        client.leave()


def test_all_but_some(rooms: Server, token: str, join: Any) -> None:
    (first, first_id), (second, second_id), (third, _) = join(), join(), join()
    publish(rooms, token, 1, exclude=f"{first_id}&exclude={second_id}")
    assert third.message() == "[0, 0]"
    for client in (first, second, third):
        client.echo("nothing before this")
        client.leave()


@pytest.mark.slow
def test_compressed_messages_beside_one_s_own(rooms: Server, token: str) -> None:
    count = 2000
    with ExitStack() as stack:
        clients = [
            stack.enter_context(rooms.connect(f"/compressed/{token}", compression="deflate"))
            for _ in range(2)
        ]
        ids = [client.recv() for client in clients]
        publish(rooms, token, count, size=400)
        own = [f"own {number}".ljust(300) for number in range(count // 10)]
        for client in clients:
            for text in own:
                client.send(text)
        for client in clients:
            seen = [str(client.recv(PATIENCE)) for _ in range(count + len(own))]
            assert [text for text in seen if text.startswith("own")] == own
            others = [json.loads(text) for text in seen if not text.startswith("own")]
            assert others == [[0, number] for number in range(count)]
        assert len(set(ids)) == 2


@pytest.mark.parametrize("legacy", [False, True])
def test_bytes_are_text_for_clients_as_of_0_6(shared_server: Any, token: str, legacy: bool) -> None:
    server = shared_server("gevent", app="delivery", config={"UWSGI_WEBSOCKET_LEGACY": legacy})
    with server.raw(f"/room/{token}") as client:
        client.message()
        server.http("POST", f"/bytes/{token}")
        text = "caf\xe9"
        assert client.message() == (text if legacy else text.encode())
        assert client.message() == b"\xff"
        client.leave()


def test_close(rooms: Server, token: str, join: Any) -> None:
    client, _ = join()
    rooms.http("POST", f"/close/{token}")
    frame = client.read_close()
    assert (frame.code, frame.reason) == (4001, "over")


#: 3 MB, which is more than is queued for a client, in parts that are not.
COUNT, PART, SIZE = 1500, 30, 2000


@pytest.fixture
def small(engine: str, shared_server: Any) -> Server:
    """A server whose kernel takes little for a client that does not read."""
    config = {"UWSGI_WEBSOCKET_SEND_BUFFER": 1 << 16}
    server: Server = shared_server(engine, app="delivery", config=config)
    return server


@pytest.mark.slow
@pytest.mark.parametrize("slow", ["close", "latest", "drop-oldest"])
def test_a_deaf_client_disturbs_nobody(small: Server, token: str, slow: str) -> None:
    before = slow_counts(small, slow)
    memory = small.rss()
    with ExitStack() as stack:
        path = f"/room/{slow}/{token}"
        deaf, *others = [stack.enter_context(small.raw(path)) for _ in range(6)]
        for client in (deaf, *others):
            client.message()
        for first in range(0, COUNT, PART):
            publish(small, token, PART, room=f"{slow}/{token}", size=SIZE, first=first)
            for client in others:
                for number in range(first, first + PART):
                    assert json.loads(client.message()) == [0, number]
        assert small.rss() - memory < 8 << 20
        check_deaf(deaf, slow)
        after = slow_counts(small, slow)
        for client in others:
            client.leave()
    counted = {key: after[key] - before[key] for key in after}
    assert counted["closed"] == (slow == "close")
    assert (counted["conflated"] > 500) == (slow == "latest")
    assert (counted["dropped"] > 500) == (slow == "drop-oldest")
    small.allow_log("reads too slowly")


def slow_counts(server: Server, slow: str) -> dict[str, int]:
    patterns = json.loads(server.get("/figures").body)["patterns"]
    none = {"closed": 0, "conflated": 0, "dropped": 0}
    counts: dict[str, int] = patterns.get(f"{slow}/*", {"slow": none})["slow"]
    return counts


def check_deaf(client: RawClient, slow: str) -> None:
    """See what one finds who reads again: only the ends of what it missed."""
    if slow == "close":
        assert 0 < client.read_to_end().count(b"[0, ") < COUNT / 2
        return
    numbers = [json.loads(client.message())[1]]
    while numbers[-1] < COUNT - 1:
        numbers.append(json.loads(client.message())[1])
    steps = [after - before for before, after in pairwise(numbers)]
    assert min(steps) == 1
    assert sum(step > 1 for step in steps) == 1  # all at one place
    if slow == "drop-oldest":
        assert steps[-1] == 1
    client.echo("goes on")
    client.leave()
