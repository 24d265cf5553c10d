"""Who is in rooms where workers die, stand still, or the server loses what it knew."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from flask_uwsgi_websocket.exceptions import BackplaneUnavailable
from flask_uwsgi_websocket.rooms.presence.members import Left, Occupant
from flask_uwsgi_websocket.rooms.redis import line, occupancy
from flask_uwsgi_websocket.rooms.redis.occupancy import Occupancy
from tests.redis_members import Member, members
from tests.redis_servers import RedisCluster, RedisServer, running
from tests.server import PATIENCE

pytestmark = pytest.mark.slow

ROOM, OTHER = "room:a", "room:b"


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


@pytest.fixture(autouse=True)
def _haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have workers die, and new attempts follow, sooner than they would."""
    monkeypatch.setattr(line, "_MOST", 0.3)
    monkeypatch.setattr(occupancy, "RENEW_EVERY", 0.2)
    monkeypatch.setattr(occupancy, "DEAD_AFTER", 2.0)


@pytest.fixture
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    return start_redis()


def one(connection: str, user: str = "ann", room: str = ROOM, **fields: Any) -> Occupant:
    return Occupant(room, connection, user, **{"info": "null", "since": 1.0, **fields})


def of(member: Member) -> Occupancy:
    return member.backplane._occupancy


async def die(member: Member) -> None:
    """As one whose process is killed: it says nothing."""
    task = of(member)._task
    assert task is not None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert member.backplane._deployment is not None
    await member.backplane._deployment.close()
    member.backplane._deployment = None


async def swept(*sweepers: Member, number: int = 1) -> list[Left]:
    """Whom all of these together are given, until there are so many, and once more."""
    left: list[Left] = []
    deadline = time.monotonic() + PATIENCE
    is_last = False
    while not is_last:
        is_last = len(left) >= number
        for some in await asyncio.gather(*(each.backplane.sweep() for each in sweepers)):
            left += some
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.02)
    return left


async def until(happened: Callable[[], Coroutine[Any, Any, object]], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        with suppress(BackplaneUnavailable):
            if await happened():
                return
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.02)


async def connections(member: Member, room: str = ROOM) -> set[str]:
    occupants, _ = await member.backplane.occupants(room)
    return {each.connection for each in occupants}


async def all_are_known(member: Member, *expected: str) -> None:
    async def known() -> bool:
        occupants, complete = await member.backplane.occupants(ROOM)
        return complete and {each.connection for each in occupants} == set(expected)

    await until(known, f"{expected} to be there")


def test_those_of_a_dead_worker_are_given_to_one_of_the_others(server: RedisServer) -> None:
    """In each of its rooms, with their grace; who is on other workers too has not left."""

    async def test() -> None:
        async with members(*[server.url] * 4) as (ada, *others):
            rooms = [f"room:{number}" for number in range(300)]
            await ada.backplane.enter([one(room, "ann", room) for room in rooms])
            await ada.backplane.enter([one("1"), one("2", "bob"), one("3", "cy", grace=0.5)])
            await others[0].backplane.enter([one("4", "bob")])
            died = time.monotonic()
            await die(ada)
            left = await swept(*others, number=302)
            assert time.monotonic() - died > 1.5
            assert sorted(each.channel for each in left if each.user == "ann") == sorted(
                [*rooms, ROOM]
            )
            assert [each.user for each in left if each.channel == ROOM] == ["ann", "cy"]
            assert {each.channel: each.room_is_empty for each in left}["room:7"]
            assert await connections(others[1]) == {"4"}

    run(test())


def test_whoever_takes_over_may_die_too(server: RedisServer) -> None:
    """The next one finds what that had to wait for."""

    async def test() -> None:
        async with members(*[server.url] * 3) as (ada, grace, joan):
            await ada.backplane.enter([one("1", grace=3.0)])
            await grace.backplane.enter([one("2", "bob", OTHER, grace=3.0)])
            await die(ada)
            await grace.backplane.leave([(OTHER, "2")])

            async def is_taken_over() -> bool:
                assert not await grace.backplane.sweep()
                return await connections(grace) == {""}

            await until(is_taken_over, "that it is taken over")
            await die(grace)
            left = await swept(joan, number=2)
            assert {(each.channel, each.user) for each in left} == {(ROOM, "ann"), (OTHER, "bob")}

    run(test())


def test_one_that_stops_is_followed_at_once(server: RedisServer) -> None:
    """By whoever is there; or by those who come next."""

    async def test() -> None:
        async with members(server.url) as (joan,):
            async with members(server.url) as (ada,):
                of(ada)._worker = "another"
                await ada.backplane.enter([one("1", grace=0.1), one("2", "bob", grace=0.1)])
                await ada.backplane.leave([(ROOM, "1")])
            stopped = time.monotonic()
            left = await swept(joan, number=2)
            assert time.monotonic() - stopped < occupancy.DEAD_AFTER or len(left) == 2
            assert [each.user for each in left] == ["ann", "bob"]

    run(test())


def test_one_that_stood_still_enters_again(server: RedisServer, monkeypatch: Any) -> None:
    """Its clients were connected all the time; but the others had to take it for dead."""

    async def test() -> None:
        async with members(server.url, server.url) as (ada, grace):
            await ada.backplane.enter([one("1"), one("2", "bob")])
            renew = of(ada)._renew
            monkeypatch.setattr(of(ada), "_renew", lambda: asyncio.sleep(0))
            left = await swept(grace, number=2)
            assert {each.user for each in left} == {"ann", "bob"}
            assert await connections(grace) == set()
            monkeypatch.setattr(of(ada), "_renew", renew)
            await all_are_known(grace, "1", "2")
            assert not await grace.backplane.sweep()

    run(test())


def test_a_server_that_lost_its_data_is_told_again(server: RedisServer) -> None:
    """Until then nobody says that all are known; and nobody has left."""

    async def test() -> None:
        async with members(*[server.url] * 3) as (ada, grace, joan):
            await ada.backplane.enter([one("1"), one("2", "bob")])
            await grace.backplane.enter([one("3", "cy")])
            await all_are_known(joan, "1", "2", "3")
            server.call("FLUSHALL")
            occupants, complete = await ada.backplane.occupants(ROOM)
            assert not complete or len(occupants) == 3
            for member in (ada, grace, joan):
                await all_are_known(member, "1", "2", "3")
            server.restart()
            for member in (ada, grace, joan):
                await all_are_known(member, "1", "2", "3")
            assert await ada.backplane.enter([one("4")]) == [False]
            assert await swept(ada, grace, joan, number=0) == []

    run(test())


def test_a_room_that_was_evicted_is_told_again(server: RedisServer) -> None:
    async def test() -> None:
        async with members(server.url, server.url) as (ada, grace):
            await ada.backplane.enter([one("1"), one("2", room=OTHER)])
            assert server.call("DEL", "shop:{room:a}:who") == 1
            await all_are_known(grace, "1")
            assert await connections(grace, OTHER) == {"2"}

    run(test())


def test_what_could_not_be_told_is_put_right(server: RedisServer) -> None:
    """Those who left, and those who wanted to enter, while the server did not answer."""

    async def test() -> None:
        async with members(server.url, server.url, timeout=1.0) as (ada, grace):
            await ada.backplane.enter([one("1"), one("2", "bob", grace=0.5)])
            server.pause()
            calls = [
                ada.backplane.enter([one("3", "cy", grace=60.0)]),
                ada.backplane.leave([(ROOM, "2"), (ROOM, "never")]),
                ada.backplane.sweep(),
            ]
            for call in calls:
                with pytest.raises(BackplaneUnavailable):
                    await call
            assert await ada.backplane.occupants(ROOM) == ([one("1")], False)
            server.resume()
            await all_are_known(grace, "1", "")
            # The one who could not enter may have been there for a moment.
            assert [each.user for each in await swept(ada, grace)] == ["bob"]

    run(test())


def test_rooms_that_nobody_is_in_are_given_up(server: RedisServer) -> None:
    """What a worker has at the server does not grow with the rooms that its clients have seen."""

    async def test() -> None:
        async with members(server.url) as (ada,):
            rooms = [f"room:{number}" for number in range(500)]
            await ada.backplane.enter([one(room, room, room) for room in rooms])
            assert server.call("SCARD", "shop:{worker:worker0}:rooms") == 500
            await ada.backplane.leave([(room, room) for room in rooms])
            assert len(await swept(ada, number=500)) == 500

            async def are_given_up() -> bool:
                return server.call("KEYS", "*") == [b"shop:{workers}:alive"]

            await until(are_given_up, "nothing to be left")
            assert not of(ada)._rooms
            assert not of(ada)._here

    run(test())


def test_what_is_no_text_harms_nobody(server: RedisServer) -> None:
    async def test() -> None:
        async with members(server.url) as (ada,):
            odd = one("1", "\ud800 a\nb", info='"\ud800"')
            assert await ada.backplane.enter([odd, one("2", "")]) == [True, True]
            occupants, _ = await ada.backplane.occupants(ROOM)
            assert {(each.user, each.info) for each in occupants} == {
                ("? a\nb", '"?"'),
                ("", "null"),
            }
            await ada.backplane.leave([(ROOM, "1"), (ROOM, "2")])
            assert len(await swept(ada, number=2)) == 2
            with pytest.raises(UnicodeEncodeError):
                await ada.backplane.leave([("room:\ud800", "1")])
            await ada.backplane.subscribe([ROOM])
            await ada.publish(ROOM)
            await ada.heard.has(1)

    run(test())


def test_seats_are_not_lost_with_the_data(server: RedisServer) -> None:
    """Those who are in stay in, although others were quicker to enter again."""

    async def test() -> None:
        async with members(server.url, server.url) as (ada, grace):
            assert await ada.backplane.enter([one("1", "ann", limit=1)]) == [True]
            assert await grace.backplane.enter([one("2", "bob", limit=1)]) == [None]
            server.call("DEL", "shop:{room:a}:who")
            await grace.backplane.enter([one("3", "cy", limit=1)])
            await all_are_known(grace, "1", "3")

    run(test())


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RedisCluster]:
    with running(RedisCluster(tmp_path)) as cluster:
        yield cluster


def test_a_node_that_lost_its_data_is_told_again(cluster: RedisCluster) -> None:
    async def test() -> None:
        async with members(cluster.url, cluster.url) as (ada, grace):
            rooms = [f"room:{number}" for number in range(60)]
            await ada.backplane.enter([one(room, room, room) for room in rooms])
            cluster.nodes[1].restart()

            async def are_known() -> bool:
                known = [await grace.backplane.occupants(room) for room in rooms]
                return all(complete and len(found) == 1 for found, complete in known)

            await until(are_known, "all to be there")
            await die(ada)
            assert len(await swept(grace, number=60)) == 60

    run(test())


def test_what_a_heartbeat_costs(server: RedisServer) -> None:
    """For a thousand rooms a small part of the time between two of them."""

    async def test() -> None:
        async with members(server.url) as (ada,):
            await ada.backplane.enter([one(f"{n}", f"{n}", f"room:{n}") for n in range(1000)])
            begun = time.perf_counter()
            await of(ada)._renew()
            took = time.perf_counter() - begun
            print(f"a sign of life with 1,000 rooms: {took * 1000:.1f} ms")
            assert took < PATIENCE

    run(test())


def test_a_server_that_is_full(server: RedisServer) -> None:
    """Those who are in a room stay in it: no worker seems to be dead."""

    async def test() -> None:
        async with members(server.url, server.url) as (ada, grace):
            await ada.backplane.enter([one("1")])
            await grace.backplane.enter([one("2", "bob")])
            server.call("CONFIG", "SET", "maxmemory", 1)
            deadline = time.monotonic() + 2 * occupancy.DEAD_AFTER
            while time.monotonic() < deadline:
                for member in (ada, grace):
                    with suppress(BackplaneUnavailable):
                        assert await member.backplane.sweep() == []
                await asyncio.sleep(0.05)
            found, _ = await ada.backplane.occupants(ROOM)
            assert sorted(each.connection for each in found) == ["1", "2"]
            with pytest.raises(BackplaneUnavailable):
                await ada.backplane.enter([one("3", "eve")])
            await ada.backplane.leave([("room:a", "1")])
            assert [each.user for each in await swept(ada, grace)] == ["ann"]

    run(test())


def test_a_clock_that_is_put_back(server: RedisServer) -> None:
    """Nobody's grace is longer than it was."""

    async def test() -> None:
        async with members(server.url) as (ada,):
            await ada.backplane.enter([one("1", grace=0.1), one("2", "bob")])
            await ada.backplane.leave([(ROOM, "1")])
            field = server.call("HGET", "shop:{room:a}:who", "uann").decode()
            number, ends, rest = field.split(" ", 2)
            value = f"{number} {int(ends) + 3_600_000} {rest}"
            server.call("HSET", "shop:{room:a}:who", "uann", value)
            assert [each.user for each in await swept(ada)] == ["ann"]

    run(test())
