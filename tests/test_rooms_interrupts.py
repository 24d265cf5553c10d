"""A thread that is interrupted while it joins or leaves, at any step: others keep theirs."""

from __future__ import annotations

import sys
from collections import Counter
from functools import partial
from types import FrameType
from typing import Any

import pytest

from flask_uwsgi_websocket.exceptions import ConnectionClosed, TooManyRooms
from flask_uwsgi_websocket.rooms.membership import Membership

ROOM = "room:a"


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


def interrupted_at(step: int, call: Any) -> bool:
    """Make a call, and interrupt it at a step of the module; tell whether it came to that."""
    left = step

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if frame.f_globals["__name__"] != Membership.__module__:
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
        goes_on = interrupted_at(step, partial(getattr(membership, name), one, ROOM))
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
