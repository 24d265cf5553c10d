"""A thread that is interrupted while it joins or leaves, at any step: others keep theirs."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from functools import partial
from types import FrameType
from typing import Any

import pytest

from flask_uwsgi_websocket.exceptions import ConnectionClosed, TooManyRooms
from flask_uwsgi_websocket.rooms.membership import Membership
from flask_uwsgi_websocket.rooms.outbox import Outbox
from flask_uwsgi_websocket.rooms.record import Kind, Record
from flask_uwsgi_websocket.rooms.subscriptions import Subscriptions

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


def interrupted_at(step: int, call: Any, *modules: str) -> bool:
    """Make a call, and interrupt it at a step of the modules; tell whether it came to that."""
    left = step

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if frame.f_globals["__name__"] not in modules:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
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

        box = Outbox(bytes(8), publish, partial(begun.append, 1))
        first, second = Record(Kind.MESSAGE, (ROOM,), b"1"), Record(Kind.MESSAGE, (ROOM,), b"2")
        goes_on = interrupted_at(step, partial(box.put, first), Outbox.__module__)
        box.put(second)
        for _ in begun:
            asyncio.run(box.publish_all())
        assert [record.data for record in published] in ([b"1", b"2"], [b"2"]), step
        assert len({record.number for record in published}) == len(published), step
        assert box.is_empty()
    assert step > 10


def test_who_is_interrupted_in_a_subscription_stops_nobody_elses() -> None:
    step, goes_on = 0, True
    while goes_on:
        step += 1
        subscribed: list[str] = []
        begun: list[Any] = []

        async def subscribe(channels: Collection[str], subscribed: Any = subscribed) -> None:
            subscribed += channels

        subscriptions = Subscriptions(
            subscribe, subscribe, lambda work, delay, begun=begun: begun.append(work)
        )
        goes_on = interrupted_at(step, partial(subscriptions.add, ROOM), Subscriptions.__module__)
        waiting = subscriptions.add(ROOM)
        for work in begun:
            asyncio.run(work())
        assert waiting is None or waiting.done(), step
        assert subscribed == [ROOM], step
    assert step > 10
