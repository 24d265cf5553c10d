"""The backplane on real servers of Redis and Valkey, which are killed, stopped and replaced."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from flask_uwsgi_websocket.exceptions import BackplaneUnavailable
from flask_uwsgi_websocket.rooms.backplane import BackplaneOptions
from flask_uwsgi_websocket.rooms.channels import ALL
from flask_uwsgi_websocket.rooms.redis.backplane import RedisBackplane
from tests.redis_members import Heard, members
from tests.redis_servers import PROGRAMS, RedisServer
from tests.server import PATIENCE, free_port

StartRedis = Callable[..., RedisServer]


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


@pytest.fixture(scope="module", params=PROGRAMS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp(request.param), program=PROGRAMS[request.param])
    yield server.start()
    server.kill()


def test_records_arrive_whole_and_in_order(shared: RedisServer) -> None:
    async def test() -> None:
        async with members(shared.url, shared.url) as (ada, grace):
            await ada.backplane.subscribe(["room:a", "room:b"])
            batch = [
                grace.record(f"room:{'ab'[number % 2]}", data=bytes([number]) * number)
                for number in range(200)
            ]
            assert await grace.backplane.publish(batch) == [None] * 200
            await ada.heard.has(200)
            assert ada.heard.records == batch
            assert not grace.heard.records
            assert (ada.heard.gaps, ada.heard.states) == ([], [None])

    run(test())


def test_a_subscription_is_in_force_when_subscribe_returns(shared: RedisServer) -> None:
    async def test() -> None:
        async with members(shared.url, shared.url) as (ada, grace):
            for number in range(1, 101):
                await ada.backplane.subscribe([f"room:{number}"])
                assert await grace.publish(f"room:{number}") is None
            await ada.heard.has(100)
            assert ada.heard.numbers == list(range(1, 101))

    run(test())


def test_a_publisher_that_subscribes_hears_itself(shared: RedisServer) -> None:
    async def test() -> None:
        async with members(shared.url) as (ada,):
            await ada.backplane.subscribe(["user:7"])
            await ada.publish("user:7")
            await ada.heard.has(1)

    run(test())


def test_a_record_goes_once_to_each_of_its_channels(shared: RedisServer) -> None:
    async def test() -> None:
        async with members(shared.url, shared.url) as (ada, grace):
            await ada.backplane.subscribe(["room:a", "room:b"])
            await grace.publish("room:a", "room:b", "room:a", "room:c")
            await grace.publish("room:a")
            await ada.heard.has(3)
            assert ada.heard.numbers == [1, 1, 2]

    run(test())


def test_what_is_to_very_many_channels_is_published_once(shared: RedisServer) -> None:
    async def test() -> None:
        async with members(shared.url, shared.url, shared.url) as (ada, grace, joan):
            await ada.backplane.subscribe(["room:a", "room:9000"])
            await joan.backplane.subscribe(["all", "room:b"])
            rooms = [f"room:{number}" for number in range(10_000)]
            await grace.publish("room:a")
            assert await grace.publish(*rooms, data=b"many") is None
            assert await grace.publish("room:a", "room:c", data=bytes(100_000)) is None
            await ada.backplane.unsubscribe(["room:9000"])
            await grace.publish(*rooms)
            await grace.publish("room:a")
            await ada.heard.has(4)
            assert ada.heard.numbers == [1, 2, 3, 5]
            assert ada.heard.records[1].channels == tuple(rooms)
            assert not joan.heard.records

    run(test())


def test_unsubscribed_channels_are_silent(shared: RedisServer) -> None:
    async def test() -> None:
        async with members(shared.url, shared.url) as (ada, grace):
            await ada.backplane.subscribe(["room:a", "room:b"])
            await ada.backplane.unsubscribe(["room:a", "room:never"])
            await grace.publish("room:a")
            await grace.publish("room:b")
            await ada.heard.has(1)
            assert ada.heard.numbers == [2]
            await ada.backplane.subscribe(["room:a"])
            await grace.publish("room:a")
            await ada.heard.has(2)
            assert ada.heard.numbers == [2, 3]

    run(test())


def test_subscribing_and_unsubscribing_at_a_time_ends_as_asked_last(shared: RedisServer) -> None:
    async def test() -> None:
        async with members(shared.url, shared.url) as (ada, grace):
            calls: list[Coroutine[Any, Any, None]] = []
            for _ in range(20):
                for number in range(50):
                    calls.append(ada.backplane.subscribe([f"room:{number}"]))
                    calls.append(ada.backplane.unsubscribe([f"room:{number}"]))
            calls += [ada.backplane.subscribe([f"room:{number}"]) for number in range(0, 50, 2)]
            await asyncio.gather(*calls)
            await grace.backplane.publish([grace.record(f"room:{n}") for n in range(50)])
            await ada.heard.has(25)
            await ada.publish("room:0")
            await ada.heard.has(26)
            assert ada.heard.numbers == [*range(1, 51, 2), 1]

    run(test())


def test_ten_thousand_rooms_at_once(shared: RedisServer) -> None:
    async def test() -> None:
        async with members(shared.url, shared.url) as (ada, grace):
            rooms = [f"room:{number}" for number in range(10_000)]
            await ada.backplane.subscribe(rooms)
            await grace.backplane.publish([grace.record(room) for room in rooms])
            await ada.heard.has(10_000)
            assert ada.heard.numbers == list(range(1, 10_001))

    run(test())


def test_how_many_workers_there_are(shared: RedisServer) -> None:
    async def test() -> None:
        async with members(shared.url, shared.url, shared.url) as (ada, grace, joan):
            assert await joan.backplane.workers() == 0
            await ada.backplane.subscribe([ALL])
            await grace.backplane.subscribe([ALL])
            assert await joan.backplane.workers() == 2

    run(test())


def test_prefixes_keep_apps_apart(shared: RedisServer) -> None:
    async def test() -> None:
        other = RedisBackplane(shared.url, BackplaneOptions("shop2", "other"))
        heard = Heard()
        await other.start(heard)
        async with members(shared.url) as (ada,):
            await ada.backplane.subscribe(["room:a"])
            await other.subscribe(["room:a"])
            await ada.publish("room:a")
            await ada.heard.has(1)
            assert not heard.records
        await other.stop()

    run(test())


@pytest.mark.parametrize("protocol", [2, 3])
def test_both_protocols(shared: RedisServer, protocol: int) -> None:
    async def test() -> None:
        url = f"{shared.url}/1?protocol={protocol}"
        async with members(url, url) as (ada, grace):
            await ada.backplane.subscribe([ALL, "room:ä ö"])
            await grace.publish("room:ä ö", data=b"\0\r\n" * 100)
            await grace.publish(ALL, data=b"x" * 1_000_000)
            await ada.heard.has(2)
            assert [len(record.data) for record in ada.heard.records] == [300, 1_000_000]
            assert await ada.backplane.workers() == 1

    run(test())


def test_a_unix_socket(shared: RedisServer) -> None:
    async def test() -> None:
        async with members(f"unix://{shared.socket}?db=2") as (ada,):
            await ada.backplane.subscribe(["room:a"])
            assert await ada.publish("room:a") is None
            await ada.heard.has(1)

    run(test())


def test_bytes_that_are_no_record_are_counted_not_guessed_at(
    shared: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with members(shared.url) as (ada,):
            await ada.backplane.subscribe(["room:a"])
            shared.call("PUBLISH", "shop:{room:a}", b"\x09" + bytes(40))
            await ada.publish("room:a")
            await ada.heard.has(1)
            assert ada.heard.gaps == [(None, 1)]

    run(test())
    assert "version 9" in caplog.text


def test_nobody_waits_for_a_server_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        began = time.monotonic()
        port = free_port()
        async with members(f"redis://:secret@127.0.0.1:{port}", timeout=0.5) as (ada,):
            with pytest.raises(BackplaneUnavailable, match="nothing listens there"):
                await ada.backplane.subscribe(["room:a"])
            error = await ada.publish("room:a")
            assert isinstance(error, BackplaneUnavailable)
            assert f"127.0.0.1:{port}: nothing listens there" in str(error)
            assert time.monotonic() - began < PATIENCE
            assert await ada.backplane.workers() is None
            assert "nothing listens there" in str(ada.heard.states[-1])
            assert "secret" not in str(ada.heard.states)
            await ada.backplane.unsubscribe(["room:a"])

    with caplog.at_level(logging.DEBUG):
        run(test())
    assert "secret" not in caplog.text


def test_a_server_that_comes_later_has_what_was_wanted(
    start_redis: Callable[..., RedisServer],
) -> None:
    async def test() -> None:
        server = start_redis()
        server.kill()
        async with members(server.url, server.url, timeout=0.2) as (ada, grace):
            with pytest.raises(BackplaneUnavailable):
                await ada.backplane.subscribe(["room:a"])
            server.start()
            await grace.comes_through(ada, "room:a")
            assert ada.heard.states[-1] is None

    run(test())
