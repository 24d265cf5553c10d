"""What becomes of the backplane when a Redis dies, hangs, cuts off, forbids, or has too much."""

from __future__ import annotations

import asyncio
import gc
import re
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from flask_uwsgi_websocket.exceptions import BackplaneUnavailable
from flask_uwsgi_websocket.rooms.redis import line
from tests.redis_members import members
from tests.redis_servers import RedisServer, wait_until
from tests.server import PATIENCE

StartRedis = Callable[..., RedisServer]

pytestmark = pytest.mark.slow


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


@pytest.fixture(autouse=True)
def _haste(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have new attempts follow sooner than they would."""
    if "less_often" not in request.node.name:
        monkeypatch.setattr(line, "_MOST", 0.3)


def clients_of(server: RedisServer) -> set[tuple[str, str]]:
    """The ids and names of those that are not of the test."""
    found = re.findall(r"^id=(\d+) .* name=(\S+) ", server.call("CLIENT", "LIST").decode(), re.M)
    return set(found)


class Proxy:
    """Passes bytes on to a server, until it is told to keep its replies to itself."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.silent = False

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        self._writers += [writer, back]
        for source, target, replies in ((reader, back, False), (there, writer, True)):
            self._tasks.add(asyncio.ensure_future(self._pass_on(source, target, replies)))

    async def _pass_on(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, replies: bool
    ) -> None:
        while data := await source.read(65536):
            if not (replies and self.silent):
                target.write(data)
        target.close()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def close(self) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def test_a_restart_is_told_and_leaves_nothing_unsubscribed(start_redis: StartRedis) -> None:
    async def test() -> None:
        server = start_redis()
        async with members(server.url, server.url) as (ada, grace):
            rooms = [f"room:{number}" for number in range(1000)]
            await ada.backplane.subscribe(rooms)
            server.restart()
            await grace.comes_through(ada, "room:0")
            await ada.heard.until(lambda: ada.heard.gaps == [(None, 0)])
            states = ada.heard.states
            await ada.heard.until(lambda: states[-1] is None)
            assert states[0] is None
            assert [state for state in states if state is not None]
            ada.heard.records.clear()
            await grace.backplane.publish([grace.record(room) for room in rooms])
            await ada.heard.has(1000)
            assert len(set(ada.heard.numbers)) == len(ada.heard.numbers) == 1000

    run(test())


def test_a_server_that_was_restarted_meanwhile_takes_the_next_publish(
    start_redis: StartRedis,
) -> None:
    async def test() -> None:
        server = start_redis()
        async with members(server.url) as (ada,):
            assert await ada.publish("room:a") is None
            server.restart()
            await asyncio.sleep(0.05)  # for the loop to see that its connection is closed
            assert await ada.publish("room:a") is None

    run(test())


def test_a_server_that_hangs_is_noticed_by_whoever_only_listens(start_redis: StartRedis) -> None:
    """Its connections stay open: nothing but the silence tells."""

    async def test() -> None:
        server = start_redis()
        async with members(server.url, server.url) as (ada, grace):
            await ada.backplane.subscribe(["room:a"])
            server.pause()
            began = time.monotonic()
            await ada.heard.until(lambda: ada.heard.states[-1] is not None)
            assert time.monotonic() - began < PATIENCE
            assert "does not answer" in str(ada.heard.states[-1])
            server.resume()
            await grace.comes_through(ada, "room:a")
            await ada.heard.until(lambda: ada.heard.gaps == [(None, 0)])

    run(test())


def test_a_loop_that_was_busy_for_long_does_not_take_its_server_for_dead(
    start_redis: StartRedis,
) -> None:
    async def test() -> None:
        server = start_redis()
        async with members(server.url) as (ada,):
            await ada.backplane.subscribe(["room:a"])
            await asyncio.sleep(1.2)
            time.sleep(4)
            await asyncio.sleep(1.2)
            assert await ada.publish("room:a") is None
            await ada.heard.has(1)
            assert (ada.heard.gaps, ada.heard.states) == ([], [None, None])

    run(test())


def test_idle_connections_are_not_closed_for_it(start_redis: StartRedis) -> None:
    async def test() -> None:
        server = start_redis(timeout=2)
        async with members(server.url) as (ada,):
            await ada.backplane.subscribe(["room:a"])
            await ada.publish("room:a")
            before = clients_of(server)
            await asyncio.sleep(4)
            assert await ada.publish("room:a") is None
            await ada.heard.has(2)
            assert clients_of(server) == before
            assert {name for _, name in before} == {"shop:worker0"}

    run(test())


def test_a_publish_is_not_repeated_when_its_reply_is_lost(start_redis: StartRedis) -> None:
    async def test() -> None:
        server = start_redis()
        proxy = Proxy(server.port)
        async with members(server.url, await proxy.start()) as (ada, grace):
            await ada.backplane.subscribe(["room:a"])
            assert await grace.publish("room:a") is None
            proxy.silent = True
            publishing = asyncio.ensure_future(grace.publish("room:a"))
            await ada.heard.has(2)
            proxy.silent = False
            proxy.cut()
            assert isinstance(await publishing, BackplaneUnavailable)
            assert await grace.publish("room:a") is None
            await ada.heard.has(3)
            assert ada.heard.numbers == [1, 2, 3]
        await proxy.close()

    run(test())


def test_what_was_answered_before_a_connection_was_lost_is_known(start_redis: StartRedis) -> None:
    async def test() -> None:
        server = start_redis()
        async with members(server.url) as (ada,):
            assert await ada.publish("room:a") is None
            batch = [ada.record("room:a", data=bytes(1000)) for _ in range(20_000)]
            publishing = asyncio.ensure_future(ada.backplane.publish(batch))
            await asyncio.sleep(0)
            wait_until(lambda: server.call("CLIENT", "KILL", "TYPE", "normal"), "a client")
            results = await publishing
            assert results.count(None) < len(batch)
            failed = [result is not None for result in results]
            assert failed == sorted(failed)  # in order: what went first is what is there

    run(test())


def test_another_password_is_named_and_the_right_one_works_again(start_redis: StartRedis) -> None:
    async def test() -> None:
        server = start_redis(requirepass="first secret")
        url = f"redis://:first%20secret@127.0.0.1:{server.port}"
        async with members(url, url, timeout=0.5) as (ada, grace):
            await ada.backplane.subscribe(["room:a"])
            server.kill()
            server.options["requirepass"] = "second secret"
            server.start()
            await ada.heard.until(lambda: "refuses user and password" in str(ada.heard.states[-1]))
            error = await grace.publish("room:a")
            assert "refuses user and password" in str(error)
            with pytest.raises(BackplaneUnavailable, match="refuses user and password"):
                await ada.backplane.subscribe(["room:b"])
            server.kill()
            server.options["requirepass"] = "first secret"
            server.start()
            await grace.comes_through(ada, "room:b")
            for text in [*ada.heard.states, *grace.heard.states, repr(ada.backplane), error]:
                assert "secret" not in str(text)

    run(test())


def test_a_subscription_that_is_refused_on_return_is_tried_again(start_redis: StartRedis) -> None:
    async def test() -> None:
        server = start_redis()
        server.call(*["ACL", "SETUSER", "app", "on", ">app", "~*", "&*", "+@all"])
        url = f"redis://app:app@127.0.0.1:{server.port}"
        async with members(url, url, timeout=0.5) as (ada, grace):
            await ada.backplane.subscribe(["room:a"])
            server.call(*["ACL", "SETUSER", "app", "-subscribe"])
            server.call(*["CLIENT", "KILL", "TYPE", "pubsub"])
            await ada.heard.until(lambda: "ACL forbids it" in str(ada.heard.states[-1]))
            with pytest.raises(BackplaneUnavailable, match="ACL forbids it"):
                await ada.backplane.subscribe(["room:b"])
            assert await grace.publish("room:a") is None
            server.call(*["ACL", "SETUSER", "app", "+subscribe"])
            await grace.comes_through(ada, "room:b")
            await grace.comes_through(ada, "room:a")
            await ada.heard.until(lambda: ada.heard.gaps == [(None, 0)])

    run(test())


def test_a_subscriber_that_is_cut_off_for_its_backlog_learns_why(start_redis: StartRedis) -> None:
    async def test() -> None:
        server = start_redis(client_output_buffer_limit="pubsub 2mb 0 0")
        async with members(server.url, server.url) as (ada, grace):
            await ada.backplane.subscribe(["room:a"])
            for _ in range(3):
                await grace.publish("room:a", data=bytes(500_000))
            await ada.heard.has(3)
            for _ in range(30):  # while the loop does nothing else
                server.call("PUBLISH", "shop:{room:a}", bytes(500_000))
            await ada.heard.until(lambda: (None, 0) in ada.heard.gaps)
            said = [state for state in ada.heard.states if state is not None]
            assert "client-output-buffer-limit pubsub" in said[0]
            await grace.comes_through(ada, "room:a")

    run(test())


def test_nothing_of_it_is_garbage(start_redis: StartRedis) -> None:
    """A subscription whose client was collected would be deaf, and not know."""

    async def test() -> None:
        server = start_redis()
        async with members(server.url, server.url) as (ada, grace):
            await ada.backplane.subscribe(["room:a"])
            for number in range(1, 6):
                gc.collect()
                await grace.publish("room:a")
                await ada.heard.has(number)
            server.restart()
            for _ in range(5):
                gc.collect()
                await asyncio.sleep(0.1)
            await grace.comes_through(ada, "room:a")

    run(test())


def test_a_long_outage_is_asked_about_ever_less_often(start_redis: StartRedis) -> None:
    async def test() -> None:
        server = start_redis()
        async with members(server.url, server.url) as (ada, grace):
            await ada.backplane.subscribe(["room:a"])
            server.kill()
            await asyncio.sleep(4)
            assert 3 < len(ada.heard.states) < 25
            server.start()
            await grace.comes_through(ada, "room:a")  # at once when somebody asks

    run(test())
