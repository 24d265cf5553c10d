"""A thread that is interrupted while it joins or leaves, at any step: others keep theirs."""

from __future__ import annotations

import asyncio
import dis
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from functools import partial
from types import FrameType
from typing import Any

import pytest

from flask_uwsgi_websocket.exceptions import ConnectionClosed, TooManyRooms
from flask_uwsgi_websocket.rooms.membership import Membership
from flask_uwsgi_websocket.rooms.metrics import RoomsMetrics
from flask_uwsgi_websocket.rooms.outbox import Outbox
from flask_uwsgi_websocket.rooms.record import Kind, Record
from flask_uwsgi_websocket.rooms.subscriptions import KEEP_TIME, Subscriptions

ROOM = "room:a"
MODULE = Membership.__module__


class Interrupt(BaseException):
    """What PyThreadState_SetAsyncExc throws into a thread, between any two steps."""


class Exchange:
    """Counts who wants which channel, and is never unsubscribed from too often."""

    def __init__(self) -> None:
        self.wanted: Counter[str] = Counter()

    def subscribe(self, channel: str) -> None:
        self.wanted[channel] += 1

    def unsubscribe(self, channel: str) -> None:
        self.wanted[channel] -= 1
        assert self.wanted[channel] >= 0


class Connection:
    """What membership asks of one."""

    client = None

    def __init__(self) -> None:
        self.ended = False
        self._callbacks: list[Any] = []

    def on_release(self, callback: Any) -> None:
        self._callbacks.append(callback)

    def closed_error(self) -> ConnectionClosed:
        return ConnectionClosed(1006, "")

    def release(self) -> None:
        self.ended = True
        for callback in self._callbacks:
            callback()


def interrupted_at(step: int, call: Any, module: str, inside: Any = None) -> bool:
    """Make a call, and interrupt it at a step of the module, or inside of a function.

    :return: whether it came to that.
    """
    left = step

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if inside is not None and frame.f_code is not inside.__code__:
            return None
        if inside is None and frame.f_globals["__name__"] != module:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and not does_nothing(frame):
            left -= 1
            if left == 0:
                raise Interrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except Interrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def does_nothing(frame: FrameType) -> bool:
    """Return whether what comes next is no instruction that an interrupt could find.

    From Python 3.14 on one marks that a jump was not taken: no ``except`` covers it.
    """
    return dis.opname[frame.f_code.co_code[frame.f_lasti]] == "NOT_TAKEN"


@pytest.mark.parametrize("name", ["add", "remove"])
@pytest.mark.parametrize("is_member", [False, True])
def test_who_is_interrupted_takes_no_subscription_of_others(name: str, is_member: bool) -> None:
    step, goes_on = 0, True
    while goes_on:
        step += 1
        exchange, one, other = Exchange(), Connection(), Connection()
        membership: Any = Membership(exchange, list, 256)  # type: ignore[arg-type]
        membership.add(other, ROOM)
        if is_member:
            membership.add(one, ROOM)
        goes_on = interrupted_at(step, partial(getattr(membership, name), one, ROOM), MODULE)
        members = list(membership.members(ROOM))
        assert other in members
        assert exchange.wanted[ROOM] >= len(members), step
        membership.remove(one, ROOM)  # as who joins does then
        assert list(membership.members(ROOM)) == [other]
        assert exchange.wanted[ROOM] >= 1, step
        membership.add(one, ROOM)
        for connection in (one, other):
            connection.release()
        assert not membership.members(ROOM), step
        assert not membership._joined, step
        assert exchange.wanted[ROOM] <= 1, step
    assert step > 10


def test_a_refused_join_wants_nothing() -> None:
    exchange, connection = Exchange(), Connection()
    membership: Any = Membership(exchange, list, 1)  # type: ignore[arg-type]
    membership.add(connection, ROOM)
    with pytest.raises(TooManyRooms):
        membership.add(connection, "room:b")
    membership.add(connection, ROOM)
    assert exchange.wanted == {ROOM: 1, "room:b": 0}
    connection.release()
    assert not exchange.wanted.total()
    with pytest.raises(ConnectionClosed):
        membership.add(connection, ROOM)


def test_who_is_interrupted_in_a_send_stops_nobody_elses() -> None:
    step, goes_on = 0, True
    while goes_on:
        step += 1
        published: list[Record] = []
        begun: list[int] = []

        async def publish(records: Sequence[Record], published: Any = published) -> list[None]:
            published += records
            return [None] * len(records)

        box = Outbox(bytes(8), publish, partial(begun.append, 1), RoomsMetrics())
        first, second = Record(Kind.MESSAGE, (ROOM,), b"1"), Record(Kind.MESSAGE, (ROOM,), b"2")
        goes_on = interrupted_at(step, partial(box.put, first), Outbox.__module__)
        box.put(second)
        for _ in begun:
            asyncio.run(box.publish_all())
        assert [record.data for record in published] in ([b"1", b"2"], [b"2"]), step
        assert len({record.number for record in published}) == len(published), step
        assert box.is_empty()
    assert step > 10


class Work(list[Any]):
    """What is to run on the loop, with the delays of that; asking for it can be interrupted."""

    def ask(self, work: Any, delay: float) -> None:
        self.append((work, delay))
        _after_a_system_call()

    def do(self, delay: float = 0.0) -> None:
        for work, after in self:
            if after <= delay:
                asyncio.run(work())


def _after_a_system_call() -> None:
    """Be where threads are interrupted most often: they have let another one run."""


def test_who_is_interrupted_in_a_subscription_stops_nobody_elses() -> None:
    step, goes_on = 0, True
    while goes_on:
        step += 1
        subscribed: list[str] = []
        work = Work()

        async def subscribe(channels: Collection[str], subscribed: Any = subscribed) -> None:
            subscribed += channels

        subscriptions = Subscriptions(subscribe, subscribe, work.ask)
        add = partial(subscriptions.add, ROOM)
        goes_on = interrupted_at(step, add, Subscriptions.__module__)
        waiting = subscriptions.add(ROOM)
        work.do()
        assert waiting is None or waiting.done(), step
        assert subscribed == [ROOM], step
    assert step > 10


def test_a_subscription_that_was_interrupted_once_begun_is_wanted_no_more() -> None:
    async def subscribe(channels: Collection[str]) -> None: ...

    work = Work()
    subscriptions = Subscriptions(subscribe, subscribe, work.ask)
    assert interrupted_at(1, partial(subscriptions.add, ROOM), "", inside=_after_a_system_call)
    assert subscriptions._channels[ROOM].count == 0
    assert [delay for _, delay in work] == [0.0, KEEP_TIME]


def test_who_is_interrupted_in_an_unsubscription_keeps_none_of_others() -> None:
    step, goes_on = 0, True
    while goes_on:
        step += 1

        async def subscribe(channels: Collection[str]) -> None: ...

        work = Work()
        subscriptions = Subscriptions(subscribe, subscribe, work.ask)
        for channel in (ROOM, "room:b"):
            subscriptions.add(channel)
        work.do()
        work.clear()
        remove = partial(subscriptions.remove, ROOM)
        goes_on = interrupted_at(step, remove, Subscriptions.__module__)
        subscriptions.remove("room:b")
        assert [delay for _, delay in work if delay == KEEP_TIME], step
    assert step > 10
