"""A Redis cluster: each channel is at the server that has its slot, by sharded pub/sub."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from functools import partial
from typing import Any

from redis.crc import key_slot
from redis.exceptions import RedisError, ResponseError

from ...helpers.waiting import within
from .deployment import Deployment, number_of
from .dialer import Dialer
from .errors import Lost, NoMaster, NotAnswering, explain, is_moved, is_torn, moving_to
from .line import Events
from .link import Command, Link, Pushes
from .publishing import Publishing
from .scripts import Call, name_in
from .subscription import Subscription
from .url import Address

#: Seconds that a node has to say who has which slots, before another is asked.
_ASK_TIMEOUT = 0.5
#: Seconds between two such questions while a node is away, which another will replace.
_WATCH = 0.5
#: Seconds between two attempts at a slot that is moving.
_MOVING = 0.05


class _Server:
    """The two connections to a node."""

    def __init__(self, address: Address, dialer: Dialer, events: Events, timeout: float) -> None:
        dial = partial(dialer.open, address)
        self.subscription = Subscription(dial, events, sharded=True)
        self.publishing = Publishing(dial, events, timeout, self.subscription.hurry)

    async def close(self) -> None:
        await self.publishing.close()
        await self.subscription.close()


_Run = Callable[[Publishing, Sequence[Call]], Coroutine[Any, Any, list[Any]]]


class Cluster(Deployment, Events):
    """The nodes of a cluster, and which channels are at which of them.

    The map of slots is asked for when it is needed, when a node says that a slot has moved, and
    again and again while a node is away.
    """

    verb = b"SPUBLISH"

    def __init__(self, dialer: Dialer, events: Events, timeout: float) -> None:
        self._dialer = dialer
        self._events = events
        self._timeout = timeout
        self._wanted: set[bytes] = set()
        self._servers: dict[Address, _Server] = {}
        #: The last slot of each range, in order, and whose it is.
        self._slots: list[tuple[int, Address]] = []
        self._down: set[object] = set()
        self._looking: asyncio.Future[None] | None = None
        self._watching: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Future[Any]] = set()

    async def publish(self, calls: Sequence[Call]) -> list[Any]:
        return await self._run(calls, Publishing.publish)

    async def query(self, calls: Sequence[Call]) -> list[Any]:
        return await self._run(calls, Publishing.query)

    async def _run(self, calls: Sequence[Call], run: _Run) -> list[Any]:
        """Run commands, each at the node that has its slot."""
        results: list[Any] = [None] * len(calls)
        rest = list(range(len(calls)))
        end = asyncio.get_running_loop().time() + self._timeout
        pause = 0.0
        while rest:
            try:
                names = {index: name_in(calls[index]) for index in rest}
                groups = await within(self._timeout, self._split(names))
            except (NoMaster, asyncio.TimeoutError) as error:
                for index in rest:
                    results[index] = error
                break
            runs = (self._run_group(*group, calls, results, run) for group in groups)
            await asyncio.gather(*runs)
            # What a node refuses for another's, it has not taken: it may be sent again.
            rest = [i for i in rest if is_moved(results[i]) or is_torn(results[i])]
            if not rest or asyncio.get_running_loop().time() > end:
                break
            await self._look_again()
            await asyncio.sleep(pause)
            pause = _MOVING
        return results

    async def _run_group(
        self,
        server: _Server,
        indexes: list[int],
        calls: Sequence[Call],
        results: list[Any],
        run: _Run,
    ) -> None:
        replies = await run(server.publishing, [calls[i] for i in indexes])
        for index, reply in zip(indexes, replies, strict=True):
            node = moving_to(reply)
            if node is not None:
                asking = [(b"ASKING",), calls[index]]
                [_, reply] = await run(self._server(node).publishing, asking)
            results[index] = reply

    def subscribe(self, names: Collection[bytes]) -> Awaitable[None]:
        self._wanted.update(names)
        return self._subscribe(set(names))

    async def _subscribe(self, names: set[bytes]) -> None:
        while True:
            groups = await self._split({name: name for name in names})
            for server, group in groups:
                server.subscription.want(group)
            settled = (server.subscription.settled() for server, _ in groups)
            results = await asyncio.gather(*settled, return_exceptions=True)
            errors = [result for result in results if result is not None]
            if not errors and groups == await self._split({name: name for name in names}):
                return
            for error in errors:
                if not is_moved(error):
                    raise error
            await self._look_again()
            await asyncio.sleep(0.05)

    async def unsubscribe(self, names: Collection[bytes]) -> None:
        self._wanted.difference_update(names)
        for server in list(self._servers.values()):
            await server.subscription.unsubscribe(names)

    async def count(self, name: bytes) -> int:
        [(server, _)] = await within(self._timeout, self._split({0: name}))
        [reply] = await server.publishing.call([(b"PUBSUB", b"SHARDNUMSUB", name)])
        return number_of(reply)

    async def ask(self, commands: Sequence[Command]) -> dict[str, list[Any]]:
        if not self._slots:
            await self._look_again()
        addresses = sorted({address for _, address in self._slots}, key=str)
        calls = [self._server(address).publishing.call(commands) for address in addresses]
        replies = await asyncio.gather(*calls, return_exceptions=True)
        return {
            str(address): [reply] * len(commands) if isinstance(reply, BaseException) else reply
            for address, reply in zip(addresses, replies, strict=True)
        }

    async def close(self) -> None:
        tasks = [task for task in (self._looking, self._watching, *self._tasks) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(server.close() for server in self._servers.values()))

    def message(self, data: bytes) -> None:
        self._events.message(data)

    def gap(self) -> None:
        self._events.gap()

    def moved(self) -> None:
        self._events.gap()
        self._watch()

    def changed(self, line: object, error: BaseException | None) -> None:
        self._events.changed(line, error)
        if error is None:
            self._down.discard(line)
        else:
            self._down.add(line)
            self._watch()

    async def _split(self, names: dict[Any, bytes]) -> list[tuple[_Server, list[Any]]]:
        """Group keys by the server that their channel is at, in their order."""
        if not self._slots:
            await self._look_again()
        groups: dict[Address, list[Any]] = defaultdict(list)
        for key, name in names.items():
            groups[self._owner(name)].append(key)
        return [(self._server(address), keys) for address, keys in groups.items()]

    def _owner(self, name: bytes) -> Address:
        slot = key_slot(name)
        index = bisect_left(self._slots, slot, key=lambda entry: entry[0])
        if index == len(self._slots):
            raise NoMaster(f"no node of the cluster has slot {slot}: see redis-cli --cluster check")
        return self._slots[index][1]

    def _server(self, address: Address) -> _Server:
        if address not in self._servers:
            self._servers[address] = _Server(address, self._dialer, self, self._timeout)
        return self._servers[address]

    def _watch(self) -> None:
        """Ask for the map of slots until all nodes of it are up."""
        if self._watching is None or self._watching.done():
            self._watching = asyncio.ensure_future(self._watch_nodes())

    async def _watch_nodes(self) -> None:
        while True:
            try:
                await self._look_again()
            except NoMaster as error:
                self._events.changed(self, error)
            if not self._down:
                return
            await asyncio.sleep(_WATCH)

    async def _look_again(self) -> None:
        """Ask for the map of slots, once for all who want it now."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._look())
        await asyncio.shield(self._looking)

    async def _look(self) -> None:
        down = {address for address, server in self._servers.items() if self._is_down(server)}
        known = [address for address in self._servers if address not in down]
        random.shuffle(known)
        reasons = []
        for address in dict.fromkeys([*known, *self._dialer.url.addresses, *down]):
            try:
                slots = await within(_ASK_TIMEOUT, self._ask(address))
            except asyncio.TimeoutError:
                reasons.append(f"{address}: {NotAnswering()}")
            except (RedisError, OSError, Lost, NotAnswering) as error:
                reasons.append(f"{address}: {explain(error)}")
            else:
                self._events.changed(self, None)
                self._slots = slots
                self._rebalance()
                return
        raise NoMaster(f"no node of the cluster can be asked; {'; '.join(reasons)}")

    def _is_down(self, server: _Server) -> bool:
        return bool(self._down & {server.publishing, server.subscription})

    async def _ask(self, address: Address) -> list[tuple[int, Address]]:
        link: Link = await self._dialer.open(address, Pushes())
        try:
            [reply] = await link.call([(b"CLUSTER", b"SLOTS")])
        finally:
            await link.close()
        if isinstance(reply, ResponseError):
            raise reply
        return sorted(
            ((last, Address((node[0] or b"").decode() or address.host, node[1])))
            for _, last, node, *_ in reply
        )

    def _rebalance(self) -> None:
        """Have each channel at the server that has it now, and drop servers that have none."""
        groups: dict[Address, set[bytes]] = defaultdict(set)
        for name in self._wanted:
            try:
                groups[self._owner(name)].add(name)
            except NoMaster as error:
                self._events.changed(self, error)
        moved: set[bytes] = set()
        for address, server in self._servers.items():
            moved |= server.subscription.wanted - groups[address]
        for address, names in list(groups.items()):
            subscription = self._server(address).subscription
            self._spawn(subscription.keep(names, not moved.isdisjoint(names)))
        self._drop_others()

    def _drop_others(self) -> None:
        """Drop nodes that have no slots any more, or are gone."""
        masters = {address for _, address in self._slots}
        for address in [address for address in self._servers if address not in masters]:
            server = self._servers.pop(address)
            for line in (server.publishing, server.subscription):
                self.changed(line, None)
            self._spawn(server.close())

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run it; what fails of it will be noticed where it was asked for."""
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and is_moved(task.exception()):
            self._watch()
