"""The backplane that is Redis or Valkey: publish and subscribe, each record at most once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any

from ...exceptions import BackplaneUnavailable
from ...helpers.log import RateLimit, logger
from ...helpers.waiting import within
from ..backplane import Backplane, BackplaneOptions, Inbox, Log, Published
from ..channels import ALL
from ..positions import Position
from ..presence.members import Left, Occupant
from ..record import BadRecord, KeptRecord, Record, decode
from .checks import check
from .cluster import Cluster
from .deployment import Deployment, OneServer
from .dialer import Dialer
from .errors import NotAnswering, explain
from .history import Logs
from .line import Events
from .occupancy import Occupancy
from .scripts import Call
from .subscription import Subscription
from .url import Kind, parse

#: Bytes since a connection began that make an overflow a likely cause of its end. Redis cuts a
#: subscriber that has not read 32 MiB yet, or 8 MiB for a minute.
_MUCH = 1 << 20

#: Where the app's description of its rooms is.
_DESCRIPTION = "description"

#: The channel of what is to so many others that it would cost too much to publish it to each.
MANY = "many"
#: Bytes that a record for several channels may cost, published to each of them.
_COST = 1 << 16

#: Of the loop, within which a transport closes its socket: in the midst of TLS' handshake, too.
_TURNS = 5


class RedisBackplane(Backplane):
    """Carries records by PUBLISH and SUBSCRIBE; in a cluster by those of its shards.

    What rooms keep is in streams, to which a script appends what it publishes.

    All see the records of a server in one order; those of several shards in any.
    """

    features = frozenset({"history", "presence"})

    def __init__(self, url: str, options: BackplaneOptions) -> None:
        location = parse(url)
        if location.kind is Kind.CLUSTER:
            _check_prefix(options.prefix)
        super().__init__(str(location), options)
        self._dialer = Dialer(location, options)
        self._events: _Events | None = None
        self._deployment: Deployment | None = None
        self._channels: set[str] = set()
        self._logs = Logs(self._name)
        self._occupancy: Occupancy
        self._description: str | None = None
        self._describing: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    async def start(self, inbox: Inbox) -> None:
        self._channels = set()
        self._occupancy = Occupancy(self.options, self._name, self._query)
        self._events = _Events(self.url, inbox, self._channels, self._on_trouble)
        kind = Cluster if self._dialer.url.kind is Kind.CLUSTER else OneServer
        self._deployment = kind(self._dialer, self._events, self.options.timeout)

    async def stop(self) -> None:
        if self._deployment is not None:
            await self._occupancy.stop()
        if self._describing is not None:
            self._describing.cancel()
            await asyncio.gather(self._describing, return_exceptions=True)
            self._describing = None
        deployment, self._deployment = self._deployment, None
        if deployment is not None:
            await deployment.close()
            for _ in range(_TURNS):
                await asyncio.sleep(0)

    async def subscribe(self, channels: Collection[str]) -> None:
        # Only the first waits for MANY's: in a cluster that is a shard which may be away by itself.
        names = [self._name(each) for each in (channels if self._channels else (*channels, MANY))]
        self._channels.update(channels)
        try:
            await within(self.options.timeout, self._running().subscribe(names))
        except asyncio.TimeoutError:
            reason = self._events.error if self._events else None
            raise self._unavailable(reason or NotAnswering()) from None
        except Exception as error:
            raise self._unavailable(error) from None

    async def unsubscribe(self, channels: Collection[str]) -> None:
        self._channels.difference_update(channels)
        if self._deployment is not None:
            await self._deployment.unsubscribe([self._name(channel) for channel in channels])

    async def publish(self, records: Sequence[Record]) -> Sequence[Published]:
        deployment = self._running()
        owners: list[int] = []
        calls: list[Call] = []
        for index, record in enumerate(records):
            if len(record.channels) == 1 and type(record) is Record:
                owners.append(index)
                calls.append((deployment.verb, self._name(record.channels[0]), record.encode()))
                continue
            for call in self._calls(record, deployment.verb):
                owners.append(index)
                calls.append(call)
        results: list[Published] = [None] * len(records)
        if not calls:
            return results
        for index, reply in zip(owners, await deployment.publish(calls), strict=True):
            if type(reply) is not int and results[index] is None:  # PUBLISH's
                results[index] = self._result(reply)
        return results

    def _calls(self, record: Record, verb: bytes) -> Iterable[Call]:
        if isinstance(record, KeptRecord):
            return (self._logs.append(verb, record),)
        data = record.encode()
        channels = dict.fromkeys(record.channels)
        if len(channels) > 1 and len(channels) * len(data) > _COST:
            channels = {MANY: None}
        return [(verb, self._name(channel), data) for channel in channels]

    def _result(self, reply: Any) -> Published:
        if isinstance(reply, BaseException):
            return self._unavailable(reply)
        return self._logs.position_of(reply) if isinstance(reply, bytes) else None

    async def read(self, channel: str, after: int, limit: int, max_size: int) -> Log:
        return self._logs.log_of(await self._ask(self._logs.read(channel, after, limit, max_size)))

    async def touch(self, channel: str, seconds: float) -> Position:
        return self._logs.position_of(await self._ask(self._logs.touch(channel, seconds)))

    async def forget(self, channel: str) -> None:
        await self._ask(self._logs.forget(self._running().verb, channel))

    async def describe(self, text: str) -> None:
        self._description = text
        await self._ask((b"SET", self._name(_DESCRIPTION), text))

    async def description(self) -> str | None:
        reply = await self._ask((b"GET", self._name(_DESCRIPTION)))
        return None if reply is None else str(reply, "utf-8")

    async def enter(self, occupants: Sequence[Occupant]) -> Sequence[bool | None]:
        return await self._occupancy.enter(occupants)

    async def leave(self, leaving: Sequence[tuple[str, str]]) -> None:
        await self._occupancy.leave(leaving)

    async def occupants(self, channel: str) -> tuple[Sequence[Occupant], bool]:
        return await self._occupancy.occupants(channel)

    async def sweep(self) -> Sequence[Left]:
        return await self._occupancy.sweep()

    def _on_trouble(self) -> None:
        """Have a server that may have lost it know again what is ours."""
        self._occupancy.trouble()
        if self._description is not None and self._describing is None:
            self._describing = asyncio.ensure_future(self._describe_again())

    async def _describe_again(self) -> None:
        assert self._description is not None
        while True:
            with suppress(BackplaneUnavailable):
                await self.describe(self._description)
                self._describing = None
                return
            await asyncio.sleep(self.options.timeout)

    async def _ask(self, call: Call) -> Any:
        [reply] = await self._query([call])
        if isinstance(reply, BaseException):
            raise reply
        return reply

    async def _query(self, calls: Sequence[Call]) -> list[Any]:
        """Run commands; return for each the reply, or BackplaneUnavailable."""
        replies = await self._running().query(calls) if calls else []
        return [self._unavailable(r) if isinstance(r, BaseException) else r for r in replies]

    async def workers(self) -> int | None:
        try:
            return await self._running().count(self._name(ALL))
        except Exception:
            return None

    async def check(self) -> list[str]:
        return await check(self._running(), self._dialer)

    def _name(self, channel: str) -> bytes:
        # In a cluster, what is kept of a room shall be where its channel is: hence the hash tag.
        return f"{self.options.prefix}:{{{channel}}}".encode()

    def _running(self) -> Deployment:
        if self._deployment is None:
            raise BackplaneUnavailable(f"{self.url}: not started, or stopped")
        return self._deployment

    def _unavailable(self, error: BaseException) -> BackplaneUnavailable:
        if isinstance(error, BackplaneUnavailable):
            return error
        return BackplaneUnavailable(f"{self.url}: {explain(error)}")


def _check_prefix(prefix: str) -> None:
    """Refuse one with which the names for a room would be of several slots."""
    # cluster-spec, "Hash tags": where nothing is between the first { and the first } after it, the
    # whole name counts, and not what is in later braces.
    if prefix.partition("{")[2].startswith("}"):
        raise ValueError(
            f"a prefix with {{}} in it, {prefix!a:.80}, would have what belongs to one room at "
            "several servers of a Redis cluster: choose one without braces"
        )


class _Events(Events):
    """Tells the inbox and the log.

    :param channels: what is subscribed to.
    :param trouble: is called when a server may have lost something.
    """

    def __init__(
        self, url: str, inbox: Inbox, channels: set[str], trouble: Callable[[], None]
    ) -> None:
        self._url = url
        self._inbox = inbox
        self._channels = channels
        self._trouble = trouble
        self._down: dict[object, BaseException] = {}
        self._limit = RateLimit()

    @property
    def error(self) -> BaseException | None:
        """Why a connection is down."""
        return next(iter(self._down.values()), None)

    def message(self, data: bytes) -> None:
        try:
            record = decode(data)
        except BadRecord as error:
            self._inbox.gap(None, 1)
            if self._limit.passes():
                logger.warning("%s: %s, which is dropped", self._url, error)
            return
        if not self._channels.isdisjoint(record.channels):  # else it came by MANY
            self._inbox.record(record)

    def gap(self) -> None:
        self._inbox.gap(None)

    def moved(self) -> None:
        self.gap()

    def changed(self, line: object, error: BaseException | None) -> None:
        if error is not None:
            self._trouble()
            self._down[line] = error
            self._inbox.health(explain(error) + _hint(line, error))
            return
        self._down.pop(line, None)
        if self.error is None:
            self._inbox.health(None)


def _hint(line: object, error: BaseException) -> str:
    """Return what may be the cause where a server has closed a connection itself."""
    much = isinstance(line, Subscription) and line.volume >= _MUCH
    if not much or isinstance(error, NotAnswering):
        return ""
    return (
        "; that was after many or large messages: if its log says that output buffer limits were "
        "overcome, send less, or raise its client-output-buffer-limit pubsub (32mb 8mb 60)"
    )
