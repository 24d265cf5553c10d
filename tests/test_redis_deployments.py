"""The backplane behind TLS, access lists, sentinels and in clusters, through failovers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_uwsgi_websocket.exceptions import BackplaneUnavailable
from flask_uwsgi_websocket.rooms.channels import ALL
from flask_uwsgi_websocket.rooms.positions import Position
from flask_uwsgi_websocket.rooms.presence.members import Occupant
from flask_uwsgi_websocket.rooms.record import KeptRecord, Kind
from flask_uwsgi_websocket.rooms.redis import line
from tests.redis_members import Member, members
from tests.redis_servers import (
    PROGRAMS,
    Certificates,
    RedisCluster,
    RedisServer,
    Sentinels,
    running,
    wait_until,
)
from tests.server import free_port

DOCS = Path(__file__).parent.parent / "docs" / "rooms.rst"
StartRedis = Callable[..., RedisServer]

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have new attempts follow sooner than they would."""
    monkeypatch.setattr(line, "_MOST", 0.3)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


# -- TLS -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls_server(
    certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer]:
    server = RedisServer(
        tmp_path_factory.mktemp("tls"),
        tls_port=free_port(),
        tls_cert_file=str(certificates.certificate),
        tls_key_file=str(certificates.key),
        tls_ca_cert_file=str(certificates.ca),
    )
    with running(server):
        yield server


def test_tls_with_an_authority_and_a_certificate_of_our_own(
    tls_server: RedisServer, certificates: Certificates
) -> None:
    async def test() -> None:
        url = f"rediss://127.0.0.1:{tls_server.options['tls_port']}"
        ours = f"cert={certificates.certificate}&key={certificates.key}"
        async with members(f"{url}?ca={certificates.ca}&{ours}", f"{url}?verify=none&{ours}") as (
            ada,
            grace,
        ):
            await ada.backplane.subscribe(["room:a"])
            assert await grace.publish("room:a", data=bytes(500_000)) is None
            await ada.heard.has(1)

    run(test())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("?cert={certificate}&key={key}", "name the authority that signed it by \\?ca=FILE"),
        ("?ca=/there/is/none", "a file is not there"),
        ("?ca={ca}", "closed the connection|\\?cert=FILE&key=FILE"),
    ],
)
def test_what_is_wrong_with_tls_is_told(
    tls_server: RedisServer, certificates: Certificates, options: str, reason: str
) -> None:
    async def test() -> None:
        url = f"rediss://127.0.0.1:{tls_server.options['tls_port']}"
        async with members(url + options.format(**vars(certificates))) as (ada,):
            with pytest.raises(BackplaneUnavailable, match=reason):
                await ada.backplane.subscribe(["room:a"])

    run(test())


def test_tls_where_there_is_none_and_none_where_there_is(
    tls_server: RedisServer, certificates: Certificates
) -> None:
    async def test() -> None:
        plain = f"rediss://127.0.0.1:{tls_server.port}?ca={certificates.ca}"
        tls = f"redis://127.0.0.1:{tls_server.options['tls_port']}"
        async with members(plain, tls, timeout=5) as (ada, grace):
            errors = await asyncio.gather(ada.publish("room:a"), grace.publish("room:a"))
            assert "speaks no TLS" in str(errors[0])
            assert "closed" in str(errors[1])

    run(test())


# -- access lists ----------------------------------------------------------------------------


def test_what_an_access_list_has_to_allow(start_redis: StartRedis) -> None:
    """No more than docs/rooms says."""

    async def test() -> None:
        server = start_redis()
        rights = "+publish +subscribe +unsubscribe +ping +pubsub|numsub"
        server.call(*f"ACL SETUSER app on >p@ss:word/1 resetchannels &shop:* {rights}".split())
        url = f"redis://app:p%40ss%3Aword%2F1@127.0.0.1:{server.port}"
        async with members(url, url) as (ada, grace):
            await ada.backplane.subscribe([ALL, "room:a"])
            await grace.publish("room:a")
            await ada.heard.has(1)
            await ada.backplane.unsubscribe(["room:a"])
            assert await grace.backplane.workers() == 1
            await asyncio.sleep(2.2)  # PINGs
            assert (ada.heard.gaps, ada.heard.states) == ([], [None])

    run(test())


#: What rooms with history or presence need besides.
KEPT = (
    "~shop:* +eval +evalsha +info +time +get +set +del +pexpire +@hash +@stream +@set +@sortedset"
)


async def everything_that_is_kept_works(member: Member, room: str = "room:a") -> None:
    backplane = member.backplane
    kept = KeptRecord(Kind.MESSAGE, (room,), b"hi", key="k")
    [position] = await backplane.publish([kept])
    assert isinstance(position, Position), position
    assert len((await backplane.read(room, 0, 10, 1 << 20)).entries) == 1
    assert await backplane.touch(room, 300) == position
    await backplane.forget(room)
    await backplane.describe("{}")
    assert await backplane.description() == "{}"
    assert await backplane.enter([Occupant(room, "1", "ann", "null", 1.0)]) == [True]
    assert len((await backplane.occupants(room))[0]) == 1
    await backplane._occupancy._renew()
    await backplane.leave([(room, "1")])
    assert len(await backplane.sweep()) == 1
    await backplane._occupancy._renew()
    await backplane._occupancy._take_over("dead")
    await backplane._occupancy._tell_loss()


def test_what_an_access_list_has_to_allow_for_kept_rooms(start_redis: StartRedis) -> None:
    async def test() -> None:
        server = start_redis()
        rights = "+publish +subscribe +unsubscribe +ping +pubsub|numsub"
        server.call(*f"ACL SETUSER app on >app resetchannels &shop:* {rights}".split())
        server.call("ACL", "SETUSER", "app", *KEPT.split())
        async with members(f"redis://app:app@127.0.0.1:{server.port}") as (ada,):
            await everything_that_is_kept_works(ada)
        assert KEPT in DOCS.read_text()

    run(test())


def test_what_an_access_list_of_a_cluster_has_to_allow(cluster: RedisCluster) -> None:
    async def test() -> None:
        rights = "+spublish +ssubscribe +sunsubscribe +ping +pubsub|shardnumsub +cluster|slots"
        rights += f" +asking {KEPT}"
        for node in cluster.nodes:
            node.call(*f"ACL SETUSER app on >app resetchannels &shop:* {rights}".split())
        url = cluster.url.replace("//", "//app:app@")
        async with members(url, url) as (ada, grace):
            await ada.backplane.subscribe([ALL, *ROOMS])
            await everything_comes_through(grace, ada)
            await ada.backplane.unsubscribe(ROOMS)
            assert await grace.backplane.workers() == 1
            assert (ada.heard.gaps, set(ada.heard.states)) == ([], {None})
            for room in ROOMS[:10]:
                await everything_that_is_kept_works(grace, room)

    run(test())


def test_a_channel_that_is_forbidden_is_told(start_redis: StartRedis) -> None:
    async def test() -> None:
        server = start_redis()
        server.call(*["ACL", "SETUSER", "app", "on", ">app", "resetchannels", "&other:*", "+@all"])
        async with members(f"redis://app:app@127.0.0.1:{server.port}") as (ada,):
            assert "ACL forbids it" in str(await ada.publish("room:a"))
            with pytest.raises(BackplaneUnavailable, match="ACL forbids it"):
                await ada.backplane.subscribe(["room:a"])

    run(test())


# -- sentinels -------------------------------------------------------------------------------


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[Sentinels]:
    with running(Sentinels(tmp_path)) as sentinels:
        yield sentinels


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_a_failover_of_sentinels(sentinels: Sentinels, fault: str) -> None:
    """A master that hangs keeps its connections open; yet all go over to the new one."""

    async def test() -> None:
        urls = [sentinels.url] * 3
        async with members(*urls) as (ada, grace, joan):
            for member in (ada, grace, joan):
                await member.backplane.subscribe(["room:a"])
            assert await ada.publish("room:a") is None
            await joan.heard.has(1)
            getattr(sentinels.master, fault)()
            await ada.comes_through(grace, "room:a")
            await grace.comes_through(joan, "room:a")
            await joan.comes_through(ada, "room:a")
            for member in (ada, grace, joan):
                await member.heard.until(lambda heard=member.heard: heard.gaps == [(None, 0)])
                await member.heard.until(lambda heard=member.heard: heard.states[-1] is None)
            assert b"role:master" in sentinels.replica.call("INFO", "replication")
            if fault == "pause":  # the old one thinks for a moment that it is still the master
                sentinels.master.resume()
                await asyncio.sleep(1)
                await ada.comes_through(joan, "room:a")

    run(test())


def test_a_sentinel_that_hangs_and_one_that_is_gone_do_no_harm(sentinels: Sentinels) -> None:
    async def test() -> None:
        sentinels.sentinels[0].pause()
        sentinels.sentinels[1].kill()
        async with members(sentinels.url) as (ada,):
            await ada.backplane.subscribe(["room:a"])
            await ada.publish("room:a")
            await ada.heard.has(1)
            findings = await ada.backplane.check()
            assert f"sentinel 127.0.0.1:{sentinels.sentinels[1].port}: nothing" in str(findings)
            assert "a master with 1 replica" in str(findings)
        async with members(sentinels.url.replace("main", "mian"), timeout=1) as (ada,):
            with pytest.raises(BackplaneUnavailable, match="no master of the name mian"):
                await ada.backplane.subscribe(["room:a"])

    run(test())


# -- clusters --------------------------------------------------------------------------------

ROOMS = [f"room:{number}" for number in range(60)]


@pytest.fixture(scope="module", params=PROGRAMS)
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisCluster]:
    with running(
        RedisCluster(tmp_path_factory.mktemp("cluster"), program=PROGRAMS[request.param])
    ) as cluster:
        yield cluster


async def everything_comes_through(publisher: Member, listener: Member) -> None:
    """Each room's records come once, and in order for each room."""
    listener.heard.records.clear()
    batch = [publisher.record(room) for room in ROOMS * 3]
    assert await publisher.backplane.publish(batch) == [None] * len(batch)
    await listener.heard.has(len(batch))
    for room in ROOMS:
        numbers = [r.number for r in listener.heard.records if r.channels == (room,)]
        assert numbers == [record.number for record in batch if record.channels == (room,)]


def test_a_cluster(cluster: RedisCluster) -> None:
    async def test() -> None:
        assert len({cluster.owner(room).port for room in ROOMS}) == 3
        async with members(cluster.url, cluster.url) as (ada, grace):
            await ada.backplane.subscribe([*ROOMS, ALL])
            await everything_comes_through(grace, ada)
            await grace.publish(*ROOMS[:10])
            await ada.heard.has(len(ROOMS) * 3 + 10)
            await ada.backplane.unsubscribe(ROOMS[:30])
            ada.heard.records.clear()
            await grace.backplane.publish([grace.record(room) for room in ROOMS])
            await ada.heard.has(30)
            assert {record.channels[0] for record in ada.heard.records} == set(ROOMS[30:])
            await grace.backplane.subscribe([ALL])
            assert await grace.backplane.workers() == 2
            assert (ada.heard.gaps, set(ada.heard.states)) == ([], {None})

    run(test())


def test_a_slot_that_moves_is_followed(cluster: RedisCluster) -> None:
    for node in cluster.nodes:
        node.call("FLUSHALL")  # a slot with keys would have to be migrated

    async def test() -> None:
        async with members(cluster.url, cluster.url, timeout=10) as (ada, grace):
            await ada.backplane.subscribe(ROOMS)
            await everything_comes_through(grace, ada)
            for room in ROOMS[:3]:
                owner = cluster.owner(room)
                cluster.move(room, next(n for n in cluster.nodes if n is not owner))
                await grace.comes_through(ada, room)
            await ada.heard.until(lambda: ada.heard.gaps)
            await everything_comes_through(grace, ada)
            ada.heard.records.clear()
            for room in ROOMS[:3]:
                owner = cluster.owner(room)
                cluster.move(room, next(n for n in cluster.nodes if n is not owner))
            await ada.backplane.subscribe([*ROOMS, "room:new"])  # returns when all is in force
            await everything_comes_through(grace, ada)

    run(test())


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_a_failover_in_a_cluster(tmp_path: Path, fault: str) -> None:
    cluster = RedisCluster(tmp_path, replica=True)

    async def test() -> None:
        async with members(cluster.url, cluster.url) as (ada, grace):
            await ada.backplane.subscribe(ROOMS)
            await everything_comes_through(grace, ada)
            there = next(room for room in ROOMS if cluster.owner(room) is cluster.nodes[0])
            other = next(room for room in ROOMS if cluster.owner(room) is cluster.nodes[1])
            getattr(cluster.nodes[0], fault)()
            assert await grace.publish(other) is None
            await grace.comes_through(ada, there)
            await ada.heard.until(lambda: ada.heard.gaps)
            await everything_comes_through(grace, ada)
            for heard in (ada.heard, grace.heard):
                await heard.until(lambda heard=heard: heard.states[-1] is None)

    with running(cluster):
        run(test())


def test_a_cluster_that_cannot_be_asked(tmp_path: Path) -> None:
    async def test() -> None:
        url = f"redis+cluster://:secret@127.0.0.1:{free_port()},127.0.0.1:{free_port()}"
        async with members(url, timeout=0.5) as (ada,):
            with pytest.raises(BackplaneUnavailable, match="no node of the cluster can be asked"):
                await ada.backplane.subscribe(["room:a"])
            error = await ada.publish("room:a")
            assert "nothing listens there" in str(error)
            assert "secret" not in str(error)

    run(test())


# -- what an operator should know --------------------------------------------------------------


def test_what_an_operator_should_know(start_redis: StartRedis, cluster: RedisCluster) -> None:
    async def test() -> None:
        server = start_redis(
            maxmemory="100mb",
            maxmemory_policy="allkeys-lru",
            client_output_buffer_limit="pubsub 1mb 512kb 60",
        )
        replica = start_redis(replicaof=f"127.0.0.1 {server.port}")
        wait_until(lambda: b"link_status:up" in replica.call("INFO", "replication"), "a replica")
        urls = [server.url, replica.url, cluster.url, cluster.nodes[0].url]
        async with members(*urls) as workers:
            first, second, third, fourth = [
                "\n".join(await worker.backplane.check()) for worker in workers
            ]
        assert "Redis 7.0." in first
        assert "a master with 1 replica" in first
        assert "maxmemory-policy is allkeys-lru" in first
        assert "client-output-buffer-limit pubsub is 1048576 524288 60" in first
        assert f"a replica of 127.0.0.1:{server.port}" in second
        assert len(third.splitlines()) == 3
        assert "a node of a cluster" in fourth

    run(test())


def test_what_an_operator_may_not_know(start_redis: StartRedis) -> None:
    async def test() -> None:
        server = start_redis()
        server.call(*["ACL", "SETUSER", "app", "on", ">app", "&*", "+publish", "+subscribe"])
        async with members(f"redis://app:app@127.0.0.1:{server.port}") as (ada,):
            [finding] = await ada.backplane.check()
            assert "ACL forbids it" in finding

    run(test())
