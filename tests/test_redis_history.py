"""What kept rooms keep on real servers: whose data are lost, moved, refused, or of another time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from flask_uwsgi_websocket.exceptions import BackplaneUnavailable
from flask_uwsgi_websocket.rooms.backplane import Log
from flask_uwsgi_websocket.rooms.options import History
from flask_uwsgi_websocket.rooms.positions import Position
from flask_uwsgi_websocket.rooms.record import KeptRecord, Kind
from flask_uwsgi_websocket.rooms.redis import line
from tests.redis_members import Member, members
from tests.redis_servers import PROGRAMS, RedisCluster, RedisServer, Sentinels, running, wait_until
from tests.server import PATIENCE

StartRedis = Callable[..., RedisServer]

pytestmark = pytest.mark.slow

ROOM = "room:a"
LOG, TOP = "shop:{room:a}:log", "shop:{room:a}:top"


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


@pytest.fixture(autouse=True)
def _haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have new attempts follow sooner than they would."""
    monkeypatch.setattr(line, "_MOST", 0.3)


@pytest.fixture(params=PROGRAMS)
def server(request: pytest.FixtureRequest, start_redis: StartRedis) -> RedisServer:
    return start_redis(program=PROGRAMS[request.param])


def message(member: Member, data: bytes, room: str = ROOM, **fields: Any) -> KeptRecord:
    plain = member.record(room)
    return KeptRecord(
        Kind.MESSAGE, (room,), data, origin=plain.origin, number=plain.number, **fields
    )


async def append(member: Member, *payloads: bytes, room: str = ROOM, **fields: Any) -> list[Any]:
    records = [message(member, data, room, **fields) for data in payloads]
    return list(await member.backplane.publish(records))


async def append_at_last(member: Member, data: bytes) -> Position:
    """Append when the server is there again."""
    deadline = time.monotonic() + PATIENCE
    while True:
        [result] = await append(member, data)
        if isinstance(result, Position):
            return result
        assert time.monotonic() < deadline, result
        await asyncio.sleep(0.05)


async def read_at_last(member: Member) -> Log:
    """Read when the server is there again."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return await read(member)
        except BackplaneUnavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


async def read(member: Member, room: str = ROOM, after: int = 0) -> Log:
    return await member.backplane.read(room, after, 1000, 1 << 20)


def contents(log: Log) -> list[bytes]:
    return [record.data for record in log.entries]


# -- scripts -----------------------------------------------------------------------------------


def test_a_server_that_has_forgotten_its_scripts(server: RedisServer) -> None:
    """Whether one message is sent, or many, whose order others must not disturb."""

    async def test() -> None:
        async with members(server.url, server.url) as (ada, grace):
            await ada.backplane.subscribe([ROOM])
            for number in range(20):
                server.call("SCRIPT", "FLUSH")
                batch = [b"%d %d" % (number, n) for n in range(1 + number % 3 * 10)]
                results = await asyncio.gather(append(ada, *batch), append(grace, b"other"))
                offsets = [position.offset for position in results[0]]
                assert offsets == sorted(offsets)
                server.call("SCRIPT", "FLUSH")
                assert contents(await read(grace, after=offsets[0] - 1))[0] == batch[0]

    run(test())


def test_ten_thousand_that_are_over_go_at_once(server: RedisServer) -> None:
    async def test() -> None:
        async with members(server.url) as (ada,):
            many, soon = History(10_000, 60), History(10_000, 0.001)
            for _ in range(10):
                await append(ada, *[b"x"] * 1000, history=many)
            assert server.call("XLEN", LOG) == 10_000
            await asyncio.sleep(0.01)
            [position] = await append(ada, b"last", history=soon)
            assert position.offset == 10_001
            assert server.call("XLEN", LOG) <= 1

    run(test())


def test_what_is_kept_has_an_end(server: RedisServer) -> None:
    """Nothing of a room stays for ever where nobody uses it."""

    async def test() -> None:
        async with members(server.url) as (ada,):
            await append(ada, b"1", key="k", history=History(seconds=20))
            await ada.backplane.touch("room:b", 1000)
            ends = {key: server.call("PTTL", key) / 1000 for key in server.call("KEYS", "*")}
            [key] = {key for key in ends if b":key:" in key}
            assert 290 < ends.pop(key) <= 300
            assert 15 < ends.pop(LOG.encode()) <= 20
            assert 3590 < ends.pop(TOP.encode()) <= 3600
            assert 9990 < ends.pop(b"shop:{room:b}:top") <= 10_000
            assert not ends

    run(test())


# -- what is lost ------------------------------------------------------------------------------


def test_a_restart_begins_another_epoch(server: RedisServer) -> None:
    """Though it has its data again, it may have lost the last ones; and reads tell what it has."""

    async def test() -> None:
        async with members(server.url) as (ada,):
            await append(ada, b"1", b"2")
            server.call("SAVE")
            [lost] = await append(ada, b"3")
            server.restart()
            log = await read_at_last(ada)
            assert (log.epoch, log.top, contents(log)) == (lost.epoch, 2, [b"1", b"2"])
            [new] = await append(ada, b"new")
            assert (new.offset, new.epoch != lost.epoch) == (1, True)
            assert contents(await read(ada)) == [b"new"]

    run(test())


def test_a_touch_after_a_restart_is_of_what_follows(server: RedisServer) -> None:
    async def test() -> None:
        async with members(server.url) as (ada,):
            [old] = await append(ada, b"1")
            server.call("SAVE")
            server.restart()
            await read_at_last(ada)
            position = await ada.backplane.touch(ROOM, 300)
            assert position.epoch != old.epoch
            assert await append(ada, b"2") == [Position(position.epoch, 1)]

    run(test())


def test_what_was_evicted_is_told(server: RedisServer) -> None:
    """Either of the two: the messages are trimmed then, or it is another epoch."""

    async def test() -> None:
        async with members(server.url) as (ada,):
            [first, _] = await append(ada, b"1", b"2")
            server.call("DEL", LOG)
            assert await read(ada) == Log(first.epoch, 2, ())
            assert await append(ada, b"3") == [Position(first.epoch, 3)]
            assert contents(await read(ada)) == [b"3"]
            server.call("DEL", TOP)
            assert await read(ada) == Log("", 0, ())
            [new] = await append(ada, b"4")
            assert (new.offset, new.epoch != first.epoch) == (1, True)
            assert contents(await read(ada)) == [b"4"]

    run(test())


def test_a_message_of_another_release_is_a_hole(server: RedisServer) -> None:
    async def test() -> None:
        async with members(server.url) as (ada,):
            await append(ada, b"1", b"2")
            for data in (b"\x7f of the future", b"", message(ada, b"x", "room:b\tc").body()):
                top = server.call("HINCRBY", TOP, "offset", 1)
                now = server.call("TIME")[0] + b"000"
                entry = ("time", now, "before", "0", "body", data)
                server.call("XADD", LOG, f"{top}-0", *entry)
            await append(ada, b"6", b"7")
            log = await read(ada)
            assert (log.top, contents(log)) == (7, [b"6", b"7"])

    run(test())


def test_a_server_that_lost_the_description_is_told_again(server: RedisServer) -> None:
    """Else publishers outside would take kept rooms for others."""

    async def test() -> None:
        async with members(server.url, server.url) as (ada, grace):
            await ada.backplane.describe('{"*": {}}')
            server.restart()
            deadline = time.monotonic() + PATIENCE
            told = None
            while told != '{"*": {}}':
                assert time.monotonic() < deadline, told
                with suppress(BackplaneUnavailable):
                    told = await grace.backplane.description()
                await asyncio.sleep(0.05)

    run(test())


def test_a_clock_that_is_put_back(server: RedisServer) -> None:
    """What comes after it is not older than what came before, of which holes would be made."""

    async def test() -> None:
        async with members(server.url) as (ada,):
            await append(ada, b"1")
            [(number, fields)] = server.call("XRANGE", LOG, "-", "+")
            future = int(fields[1]) + 600_000
            server.call("DEL", LOG)
            server.call("XADD", LOG, number, "time", future, *fields[2:])
            server.call("HSET", TOP, "time", future)
            await append(ada, b"2", b"3")
            times = [record.time for record in (await read(ada)).entries]
            assert times == [future / 1000] * 3

    run(test())


# -- what is refused ---------------------------------------------------------------------------


def test_a_server_that_is_full(server: RedisServer) -> None:
    """Refuses what is kept, and says what to do; plain messages pass."""

    async def test() -> None:
        async with members(server.url) as (ada,):
            [before] = await append(ada, b"1")
            server.call("CONFIG", "SET", "maxmemory", 1)
            results = await ada.backplane.publish([message(ada, b"2"), ada.record(ROOM)])
            assert isinstance(results[0], BackplaneUnavailable)
            assert "raise its maxmemory" in str(results[0])
            assert results[1] is None
            log = await read(ada)
            assert (log.top, contents(log)) == (1, [b"1"])
            findings = "\n".join(await ada.backplane.check())
            assert "of maxmemory is in use" in findings
            server.call("CONFIG", "SET", "maxmemory", 0)
            assert await append(ada, b"2") == [Position(before.epoch, 2)]

    run(test())


def test_a_master_that_is_none_any_more_is_left(
    server: RedisServer, start_redis: StartRedis
) -> None:
    """And when it is one again, its epoch is another: it may have lost something meanwhile."""

    async def test() -> None:
        other = start_redis()
        async with members(server.url) as (ada,):
            [old] = await append(ada, b"1")
            server.call("REPLICAOF", "127.0.0.1", other.port)
            [error] = await append(ada, b"2")
            assert isinstance(error, BackplaneUnavailable)
            assert "it is a replica: name the master" in str(error)
            server.call("REPLICAOF", "NO", "ONE")
            new = await append_at_last(ada, b"3")
            assert new.epoch != old.epoch

    run(test())


def test_keys_that_are_used_by_others(server: RedisServer) -> None:
    async def test() -> None:
        async with members(server.url) as (ada,):
            server.call("SET", TOP, "theirs")
            [error] = await append(ada, b"1")
            assert "UWSGI_WEBSOCKET_PREFIX" in str(error)

    run(test())


def test_scripts_that_are_forbidden(start_redis: StartRedis) -> None:
    async def test() -> None:
        server = start_redis()
        rights = "resetchannels &shop:* ~shop:* +@all -eval -evalsha"
        server.call(*f"ACL SETUSER app on >app {rights}".split())
        async with members(f"redis://app:app@127.0.0.1:{server.port}", timeout=0.5) as (ada,):
            assert "ACL forbids it" in str(await append(ada, b"1"))
            with pytest.raises(BackplaneUnavailable, match="ACL forbids it"):
                await read(ada)
            assert "rooms cannot keep messages" in str(await ada.backplane.check())
            server.call("ACL", "SETUSER", "app", "+eval", "+evalsha", "-xadd")
            assert "ACL forbids it" in str(await append(ada, b"1"))

    run(test())


# -- what is moved -------------------------------------------------------------------------------


def test_a_failover_that_lost_the_last_messages(tmp_path: Path) -> None:
    """Their offsets do not come again: it is another epoch."""

    async def test(sentinels: Sentinels) -> None:
        async with members(sentinels.url, sentinels.url) as (ada, grace):
            await append(ada, b"1", b"2")
            replica = sentinels.replica
            wait_until(lambda: replica.call("XLEN", LOG) == 2, "the replica to have it")
            replica.pause()
            sentinels.master.call("CLIENT", "KILL", "TYPE", "replica")
            *_, last = await append(ada, b"lost", b"lost")
            sentinels.master.kill()
            replica.resume()
            log = await read_at_last(grace)
            assert (log.epoch, log.top, contents(log)) == (last.epoch, 2, [b"1", b"2"])
            new = await append_at_last(ada, b"new")
            assert (new.offset, new.epoch != last.epoch) == (1, True)

    with running(Sentinels(tmp_path)) as sentinels:
        run(test(sentinels))


@pytest.fixture(scope="module", params=PROGRAMS)
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisCluster]:
    with running(
        RedisCluster(tmp_path_factory.mktemp("cluster"), program=PROGRAMS[request.param])
    ) as cluster:
        yield cluster


def test_a_slot_that_moves_takes_its_log_along(cluster: RedisCluster) -> None:
    """While it moves, messages wait for it; those who were in the room hear or read them all."""

    async def test() -> None:
        async with members(cluster.url, cluster.url, timeout=10) as (ada, grace):
            await ada.backplane.subscribe([ROOM])
            [first] = await append(grace, b"0")
            source = cluster.owner(ROOM)
            target = next(node for node in cluster.nodes if node is not source)
            slot = cluster.slot(ROOM)
            target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source.call("CLUSTER", "MYID"))
            source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target.call("CLUSTER", "MYID"))
            keys = source.call("CLUSTER", "GETKEYSINSLOT", slot, 10)
            source.call("MIGRATE", "127.0.0.1", target.port, keys[0], 0, 5000)
            sending = asyncio.ensure_future(append(grace, b"1", b"2", b"3"))
            await asyncio.sleep(0.2)
            assert not sending.done()
            source.call("MIGRATE", "127.0.0.1", target.port, keys[1], 0, 5000)
            await asyncio.sleep(0.2)
            cluster.move(ROOM, target)
            results = [*await sending, *await append(grace, b"4")]
            offsets = [getattr(each, "offset", each) for each in results]
            # The other node has a replication id of its own: that is another epoch.
            assert (offsets, results[0].epoch != first.epoch) == ([1, 2, 3, 4], True)
            assert contents(await read(ada)) == [b"1", b"2", b"3", b"4"]

    run(test())
