"""What is true of a backplane while its server is not well, and afterwards."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Collection
from itertools import count
from typing import TypeVar

from ...exceptions import BackplaneUnavailable
from ..channels import room_channel
from .bench import Bench, Worker, belongings, left_behind, promise

_Result = TypeVar("_Result")

ROOM, OTHER = room_channel("lobby"), room_channel("other")

#: Seconds by which a machine that has much to do may be late.
LATE = 1.0
#: Seconds in which what does not wait returns.
_AT_ONCE = 0.5


async def within(seconds: float, what: str, call: Awaitable[_Result]) -> _Result:
    """Await a call that has so many seconds, whether it succeeds or not."""
    begun = time.monotonic()
    try:
        return await call
    finally:
        took = time.monotonic() - begun
        assert took < seconds, f"{what} took {took:.2f} s, not {seconds}"


async def unavailable(bench: Bench, worker: Worker, number: int = 1) -> None:
    """Publish, which must fail in time and say why."""
    records = [worker.record(ROOM, data=b"lost") for _ in range(number)]
    call = worker.publish(*records)
    for result in await within(bench.timeout + LATE, "publish()", call):
        assert isinstance(result, BackplaneUnavailable), f"publish() said {result!r}"


async def cannot_subscribe(bench: Bench, worker: Worker, *channels: str) -> None:
    """Subscribe, which must fail in time and say why."""
    try:
        await within(bench.timeout + LATE, "subscribe()", worker.backplane.subscribe(channels))
    except BackplaneUnavailable:
        return
    raise AssertionError("subscribe() did not raise BackplaneUnavailable")


async def arrives(publisher: Worker, *listeners: Worker) -> None:
    """Publish until a record arrives everywhere: a backplane comes back by itself."""
    end = time.monotonic() + publisher.inbox.patience
    waiting, sign = list(listeners), secrets.token_bytes(8)
    for number in count():
        await publisher.publish(publisher.record(ROOM, data=b"%s%d" % (sign, number)))
        await asyncio.sleep(0.02)
        waiting = [w for w in waiting if not any(data.startswith(sign) for data in w.got)]
        if not waiting:
            return
        assert time.monotonic() < end, f"still nothing arrives at {len(waiting)} workers"


class Faults:
    """The promises of :class:`~.backplane.Backplane` when servers die, hang and come back."""

    @promise("fail")
    async def test_starting_does_not_wait_for_a_server(self, bench: Bench) -> None:
        """The app serves, and what it wanted meanwhile is in force when the server is there."""
        await bench.fault("fail")
        listener = await within(_AT_ONCE, "start()", bench.worker())
        publisher = await within(_AT_ONCE, "start()", bench.worker())
        await cannot_subscribe(bench, listener, ROOM)
        await unavailable(bench, publisher)
        await bench.fault("recover")
        await arrives(publisher, listener)

    @promise("fail")
    async def test_a_dead_server(self, bench: Bench) -> None:
        """Nothing hangs; each call fails in time; and unsubscribing never does."""
        worker, publisher = await bench.worker(ROOM, OTHER), await bench.worker()
        await publisher.send(ROOM, b"before")
        await worker.receives(b"before")
        await bench.fault("fail")
        await unavailable(bench, publisher, 3)
        await unavailable(bench, worker)
        await cannot_subscribe(bench, worker, room_channel("new"))
        call = worker.backplane.unsubscribe([OTHER])
        await within(bench.timeout + LATE, "unsubscribe()", call)
        await within(bench.timeout + LATE, "workers()", _workers(worker))
        await within(bench.timeout + LATE, "check()", worker.backplane.check())

    @promise("pause")
    async def test_a_server_that_hangs(self, bench: Bench) -> None:
        """It accepts and answers nothing, which no connection tells: only time does."""
        worker = await bench.worker(ROOM)
        await worker.send(ROOM, b"before")
        await worker.receives(b"before")
        await bench.fault("pause")
        await unavailable(bench, worker, 2)
        await cannot_subscribe(bench, worker, room_channel("new"))
        await bench.fault("recover")
        await arrives(worker, worker)

    @promise("fail")
    async def test_an_outage_is_told(self, bench: Bench) -> None:
        """As a gap, and as health: what was missed, and from when on nothing is."""
        listener, publisher = await bench.worker(ROOM), await bench.worker()
        await listener.inbox.until(lambda: _well(listener), "health(None) from a server that is up")
        await bench.fault("fail")
        await unavailable(bench, publisher)
        inbox = listener.inbox
        await inbox.until(lambda: inbox.states[-1], "health(error) from a server that is down")
        assert isinstance(inbox.states[-1], str)
        await bench.fault("recover")
        await inbox.until(lambda: _well(listener), "health(None) from a server that is back")
        await inbox.until(lambda: _told_of(inbox.gaps), "gap() after an outage")

    @promise("fail")
    async def test_it_works_again_after_an_outage(self, bench: Bench) -> None:
        """All channels, those of before and those of the outage, but for those not wanted."""
        listener, other = await bench.worker(ROOM, OTHER), await bench.worker(ROOM)
        publisher = await bench.worker()
        await bench.fault("fail")
        await unavailable(bench, publisher)
        new = room_channel("new")
        await cannot_subscribe(bench, listener, new)
        await listener.backplane.unsubscribe([OTHER])
        await bench.fault("recover")
        await arrives(publisher, listener, other)
        await listener.settle(publisher)
        listener.inbox.records.clear()
        await publisher.send(OTHER, b"not wanted")
        await publisher.send(new, b"wanted")
        await listener.receives(b"wanted")

    @promise("fail")
    async def test_outage_after_outage(self, bench: Bench) -> None:
        """None gives up, and none brings a record twice."""
        listener, publisher = await bench.worker(ROOM), await bench.worker()
        for _ in range(3):
            await bench.fault("fail")
            await unavailable(bench, publisher)
            await bench.fault("recover")
            await arrives(publisher, listener)
            await listener.settle(publisher)
            assert len(set(listener.got)) == len(listener.got), "a record came twice"

    @promise("lose")
    async def test_lost_connections_are_told(self, bench: Bench) -> None:
        """Those that come back unnoticed, too: records went missing meanwhile."""
        listener, publisher = await bench.worker(ROOM), await bench.worker()
        await publisher.send(ROOM, b"before")
        await listener.receives(b"before")
        await bench.fault("lose")
        inbox = listener.inbox
        await inbox.until(lambda: _told_of(inbox.gaps), "gap() after lost connections")
        await arrives(publisher, listener)

    @promise("pause")
    async def test_callers_that_give_up(self, bench: Bench) -> None:
        """Who is cancelled, as by a timeout of the app's, takes nobody along."""
        worker = await bench.worker(ROOM)
        await bench.fault("pause")
        calls = [
            asyncio.ensure_future(worker.publish(worker.record(ROOM, data=b"lost"))),
            asyncio.ensure_future(worker.backplane.subscribe([OTHER])),
        ]
        await asyncio.sleep(0.05)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls, timeout=bench.timeout + LATE)
        assert all(call.done() for call in calls), "a call that was cancelled goes on"
        await bench.fault("recover")
        await arrives(worker, worker)
        await worker.settle(worker)

    @promise("fail")
    async def test_nothing_is_left_behind_by_what_never_connected(self, bench: Bench) -> None:
        """No task, thread or descriptor of one that is stopped while its server is away."""
        await bench.fault("fail")
        before = belongings()
        for _ in range(2):
            worker = await bench.worker()
            await cannot_subscribe(bench, worker, ROOM)
            await within(bench.timeout + LATE, "stop()", worker.backplane.stop())
        assert not await left_behind(before)


def _well(worker: Worker) -> bool:
    return worker.inbox.states[-1:] == [None]


def _told_of(gaps: list[Collection[str] | None]) -> bool:
    """Return whether the room may be among the channels of a gap."""
    return any(channels is None or ROOM in channels for channels in gaps)


async def _workers(worker: Worker) -> int | None:
    try:
        return await worker.backplane.workers()
    except BackplaneUnavailable:
        return None
