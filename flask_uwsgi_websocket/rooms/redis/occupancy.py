"""Who is in which room, at the servers: see occupancy_scripts for what is kept there.

A worker gives a sign of life every few seconds, by a task of its own, and looks at the same time
whether the servers still have what it has entered. The rooms of one that gives none any more are
taken over by whoever notices first: for that each worker has a set of its rooms there.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ...exceptions import BackplaneUnavailable
from ...helpers.waiting import within
from ..backplane import BackplaneOptions
from ..channels import worker_channel
from ..presence.members import Left, Occupant
from .occupancy_scripts import BURY, DEAD, END, ENTER, KEEP, LEAVE, LIVE, TAKE_OVER
from .scripts import Call

#: Seconds between two signs of life, and without any of them until a worker counts as dead.
RENEW_EVERY, DEAD_AFTER = 5.0, 15.0
#: Seconds after which a room goes of which no worker is left to say that it is in use.
_KEEPS = 86_400.0
#: Commands sent at a time, so that others have their turn.
_CHUNK = 200
#: Seconds for a last word.
_FAREWELL = 0.5

#: Runs commands; returns for each the reply, or BackplaneUnavailable.
Query = Callable[[Sequence[Call]], Awaitable[list[Any]]]


class Occupancy:
    """What a worker has entered, and the users whose grace it waits for.

    :param name: returns the name of a channel at the server.
    :param query: see :data:`Query`.
    """

    def __init__(
        self, options: BackplaneOptions, name: Callable[[str], bytes], query: Query
    ) -> None:
        self._worker = options.worker
        self._name = name
        self._query = query
        self._workers = name("workers") + b":alive"
        self._lost = name("workers") + b":lost"
        self._here: dict[str, dict[str, Occupant]] = {}
        #: The channels that this worker's set of rooms has.
        self._rooms: set[str] = set()
        #: Those where the servers may have something else than we have.
        self._doubtful: set[str] = set()
        #: When the grace of a user ends, by the loop's clock; by channel and user.
        self._ends: dict[tuple[str, str], float] = {}
        self._task: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._hurry = asyncio.Event()
        self._troubled = float("-inf")

    # -- what a backplane does -------------------------------------------------------------

    async def enter(self, occupants: Sequence[Occupant]) -> list[bool | None]:
        """Do :meth:`.Backplane.enter`."""
        async with self._lock:
            await self._take_rooms({each.channel for each in occupants})
            before = [self._note(each) for each in occupants]
            calls = [self._enter(each) for each in occupants]
            replies: list[Any] = [None] * len(calls)
            try:
                replies = await self._run(calls, {each.channel for each in occupants})
            finally:
                for each, known, reply in zip(occupants, before, replies, strict=True):
                    if reply not in (0, 1):
                        self._forget(each, known)
        _raise_any(replies)
        return [None if reply < 0 else bool(reply) for reply in replies]

    async def leave(self, leaving: Sequence[tuple[str, str]]) -> None:
        """Do :meth:`.Backplane.leave`."""
        async with self._lock:
            for channel, connection in leaving:
                self._here.get(channel, {}).pop(connection, None)
            calls = [LEAVE.call(self._room(each), connection) for each, connection in leaving]
            replies = await self._run(calls, {channel for channel, _ in leaving})
            for (channel, _), reply in zip(leaving, replies, strict=True):
                self._wait_for(channel, reply)
        _raise_any(replies)

    async def occupants(self, channel: str) -> tuple[list[Occupant], bool]:
        """Do :meth:`.Backplane.occupants`."""
        calls = [
            (b"HGETALL", *self._room(channel)),
            (b"GET", self._lost),
            (b"ZSCORE", self._workers, self._worker),
        ]
        try:
            fields, lost, alive = await self._ask(*calls)
        except BackplaneUnavailable:
            return list(self._here.get(channel, {}).values()), False
        if self._task is not None and alive is None:
            self.trouble()
        now = asyncio.get_running_loop().time()
        is_complete = lost is None and now - self._troubled > 2 * RENEW_EVERY
        return _occupants(channel, fields), is_complete

    async def sweep(self) -> list[Left]:
        """Do :meth:`.Backplane.sweep`."""
        await self._take_over_from_dead()
        now = asyncio.get_running_loop().time()
        over = sorted((ends, *key) for key, ends in self._ends.items() if ends <= now)
        replies = await self._query([END.call(self._room(room), user) for _, room, user in over])
        left = []
        for (_, channel, user), reply in zip(over, replies, strict=True):
            if isinstance(reply, BaseException):
                continue
            self._ends.pop((channel, user), None)
            if len(reply) == 1:
                self._wait_for(channel, [user.encode(), *reply])
            elif reply:
                info, since, is_empty, _ = reply
                left.append(Left(channel, user, info.decode(), float(since), bool(is_empty)))
        if not left:
            _raise_any(replies)
        return left

    def trouble(self) -> None:
        """Take note that the servers may have lost something."""
        self._troubled = asyncio.get_running_loop().time()
        self._hurry.set()

    async def stop(self) -> None:
        """Tell the others that what is left to do for us they do from now on."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with suppress(asyncio.TimeoutError):
            await within(_FAREWELL, self._query([(b"ZADD", self._workers, 0, self._worker)]))

    # -- what we remember --------------------------------------------------------------------

    def _note(self, occupant: Occupant) -> Occupant | None:
        room = self._here.setdefault(occupant.channel, {})
        before = room.get(occupant.connection)
        room[occupant.connection] = occupant
        return before

    def _forget(self, occupant: Occupant, before: Occupant | None) -> None:
        """Remember what was before somebody could not enter."""
        room = self._here[occupant.channel]
        if before is not None:
            room[occupant.connection] = before
        else:
            room.pop(occupant.connection, None)

    def _wait_for(self, channel: str, users: Any) -> None:
        """Wait for the grace of users: a list of them, each followed by milliseconds."""
        if isinstance(users, BaseException):
            return
        now = asyncio.get_running_loop().time()
        for user, left in zip(users[::2], users[1::2], strict=True):
            self._ends[channel, user.decode()] = now + left / 1000

    # -- commands ------------------------------------------------------------------------------

    def _room(self, channel: str) -> list[bytes]:
        return [self._name(channel) + b":who"]

    def _set_of(self, worker: str) -> bytes:
        return self._name(worker_channel(worker)) + b":rooms"

    def _enter(self, occupant: Occupant) -> Call:
        return ENTER.call(
            self._room(occupant.channel),
            self._worker,
            occupant.connection,
            occupant.user.encode(errors="replace"),  # what is no text, nobody can be asked for
            round(occupant.grace * 1000),
            occupant.limit,
            repr(occupant.since),
            occupant.info.encode(errors="replace"),
            _milliseconds(_KEEPS),
        )

    async def _run(self, calls: Sequence[Call], channels: Collection[str]) -> list[Any]:
        """Change rooms; where that fails they are doubtful."""
        fails = True
        try:
            replies = await self._query(calls)
            fails = any(isinstance(reply, BaseException) for reply in replies)
        finally:
            if fails:
                self._doubtful.update(channels)
        return replies

    async def _ask(self, *calls: Call) -> list[Any]:
        replies = await self._query(calls)
        _raise_any(replies)
        return replies

    async def _take_rooms(self, channels: set[str]) -> None:
        """Have rooms in the set of this worker, before anything of it is in them."""
        if self._task is None:
            await self._live()
            self._task = asyncio.ensure_future(self._keep_living())
        if new := channels - self._rooms:
            await self._ask((b"SADD", self._set_of(self._worker), *new))
            self._rooms |= new

    # -- life and death -------------------------------------------------------------------------

    async def _live(self) -> bool:
        """Give a sign of life; return whether the servers knew us."""
        call = LIVE.call([self._workers], self._worker, _milliseconds(_KEEPS))
        [was_known] = await self._ask(call)
        return bool(was_known)

    async def _keep_living(self) -> None:
        while True:
            self._hurry.clear()
            with suppress(asyncio.TimeoutError):
                await within(RENEW_EVERY * random.uniform(0.8, 1), self._hurry.wait())
            with suppress(BackplaneUnavailable):
                await self._renew()

    async def _renew(self) -> None:
        """Live, and have the servers know again what they have lost."""
        own = self._set_of(self._worker)
        was_known = await self._live()
        number, _ = await self._ask((b"SCARD", own), (b"PEXPIRE", own, _milliseconds(_KEEPS)))
        if self._rooms and number != len(self._rooms):
            await self._ask((b"SADD", own, *self._rooms))
        if not was_known:
            await self._tell_loss()
        channels = list(self._rooms)
        for first in range(0, len(channels), _CHUNK):
            async with self._lock:
                await self._keep_rooms(channels[first : first + _CHUNK])
        async with self._lock:
            await self._release_rooms()

    async def _keep_rooms(self, channels: list[str]) -> None:
        calls = [
            KEEP.call(self._room(channel), self._worker, _milliseconds(_KEEPS))
            for channel in channels
        ]
        for channel, number in zip(channels, await self._ask(*calls), strict=True):
            here = len(self._here.get(channel, ()))
            if number < here:
                await self._tell_loss()
            if number != here or channel in self._doubtful:
                await self._restore(channel)

    async def _restore(self, channel: str) -> None:
        """Have in a room what we have, and nothing else of ours."""
        here = self._here.get(channel, {})
        take_over = TAKE_OVER.call(self._room(channel), self._worker, *here)
        # They are in: their seats are not in question.
        enter = [self._enter(replace(each, limit=0)) for each in here.values()]
        [in_grace, *_] = await self._ask(take_over, *enter)
        self._wait_for(channel, in_grace)
        self._doubtful.discard(channel)

    async def _release_rooms(self) -> None:
        ending = {channel for channel, _ in self._ends}
        self._here = {channel: here for channel, here in self._here.items() if here}
        idle = self._rooms - self._here.keys() - ending - self._doubtful
        if idle:
            self._rooms -= idle
            await self._ask((b"SREM", self._set_of(self._worker), *idle))

    async def _tell_loss(self) -> None:
        """Have all know that others may have to enter again, too."""
        self.trouble()
        self._hurry.clear()
        await self._ask((b"SET", self._lost, 1, b"PX", _milliseconds(2 * RENEW_EVERY)))

    async def _take_over_from_dead(self) -> None:
        [dead] = await self._ask(DEAD.call([self._workers], _milliseconds(DEAD_AFTER)))
        for name in dead:
            worker = name.decode()
            if worker != self._worker:
                async with self._lock:
                    await self._take_over(worker)

    async def _take_over(self, worker: str) -> None:
        rooms = self._set_of(worker)
        [names] = await self._ask((b"SMEMBERS", rooms))
        channels = [name.decode() for name in names]
        for first in range(0, len(channels), _CHUNK):
            chunk = channels[first : first + _CHUNK]
            await self._take_rooms(set(chunk))
            calls = [TAKE_OVER.call(self._room(channel), worker) for channel in chunk]
            for channel, in_grace in zip(chunk, await self._ask(*calls), strict=True):
                self._wait_for(channel, in_grace)
        await self._ask(
            BURY.call([self._workers], worker, _milliseconds(DEAD_AFTER)), (b"DEL", rooms)
        )


def _raise_any(replies: Iterable[Any]) -> None:
    for reply in replies:
        if isinstance(reply, BaseException):
            raise reply


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _occupants(channel: str, fields: Any) -> list[Occupant]:
    """Read the hash of a room."""
    if isinstance(fields, list):  # by RESP2
        fields = dict(zip(fields[::2], fields[1::2], strict=True))
    users: dict[str, Occupant] = {}
    connections: list[tuple[str, str]] = []
    for key, value in fields.items():
        kind, name, text = key[:1], key[1:].decode(), value.decode()
        if kind == b"c":
            connections.append((name, text.partition(" ")[2]))
        elif kind == b"u":
            number, _, grace, limit, since, info = text.split(" ", 5)
            users[name] = Occupant(
                channel, "", name, info, float(since), int(grace) / 1000, int(limit)
            )
            if number == "0":
                connections.append(("", name))
    return [replace(users[user], connection=connection) for connection, user in connections]
