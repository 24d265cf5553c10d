"""What is true of a backplane that knows who is in rooms: the feature "presence"."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ...exceptions import BackplaneUnavailable
from ..channels import ALL, room_channel
from ..presence.members import Left, Member, Occupant, members_of
from .bench import Bench, Worker, promise
from .faults import LATE, ROOM, within

OTHER = room_channel("other")
#: Seconds of grace that a test can wait for.
_SHORT = 0.2
_LONG = 60.0


def one(connection: str, user: str = "ann", channel: str = ROOM, **fields: Any) -> Occupant:
    """Make a connection in a room."""
    fields = {"info": "null", "since": 1.0, **fields}
    return Occupant(channel, connection, user, **fields)


async def who(worker: Worker, channel: str = ROOM) -> dict[str, Member]:
    """Return the members of a room, all of whom must be known."""
    occupants, complete = await worker.backplane.occupants(channel)
    assert complete, "nothing is wrong, but not all are known"
    return {member.user: member for member in members_of(occupants)}


async def swept(number: int, *workers: Worker) -> list[Left]:
    """Have workers sweep, all at a time, until so many have left; and once more."""
    left: list[Left] = []
    end = time.monotonic() + workers[0].inbox.patience
    is_last = False
    while not is_last:
        is_last = len(left) >= number
        for some in await asyncio.gather(*(worker.backplane.sweep() for worker in workers)):
            left += some
        assert time.monotonic() < end, f"not within the time: {number} to leave, {left} did"
        await asyncio.sleep(0.01)
    return left


class Presences:
    """What a user in a room is: whoever entered, until the grace after the last connection."""

    @promise(feature="presence")
    async def test_a_user_is_new_in_a_room_once(self, bench: Bench) -> None:
        """With whatever connections, on any worker."""
        first, second = await bench.worker(ALL), await bench.worker(ALL)
        assert list(await first.backplane.enter([one("1"), one("2")])) == [True, False]
        assert list(await second.backplane.enter([one("3"), one("4", "bob")])) == [False, True]
        assert list(await second.backplane.enter([one("3", channel=OTHER)])) == [True]
        await first.backplane.leave([(ROOM, "1"), (ROOM, "2")])
        assert await swept(0, first, second) == []
        for worker in (first, second):
            found = await who(worker)
            assert {user: each.connections for user, each in found.items()} == {"ann": 1, "bob": 1}

    @promise(feature="presence")
    async def test_a_user_leaves_once_after_the_grace(self, bench: Bench) -> None:
        """Whoever sweeps, one gets it; and none before its time."""
        workers = [await bench.worker(ALL) for _ in range(3)]
        users = [f"user{number}" for number in range(30)]
        await workers[0].backplane.enter([one(user, user, grace=_SHORT) for user in users])
        await workers[1].backplane.enter([one("stays", "ann", grace=_LONG)])
        began = time.monotonic()
        await workers[0].backplane.leave([(ROOM, user) for user in users])
        await workers[1].backplane.leave([(ROOM, "stays")])
        found = await who(workers[2])
        assert set(found) == {*users, "ann"}
        assert {each.connections for each in found.values()} == {0}
        left = await swept(30, *workers)
        assert time.monotonic() - began >= _SHORT
        assert Counter(each.user for each in left) == Counter(users)
        assert not any(each.room_is_empty for each in left)
        assert set(await who(workers[2])) == {"ann"}

    @promise(feature="presence")
    async def test_who_comes_back_in_time_has_never_left(self, bench: Bench) -> None:
        """To whichever worker, and keeps the time of coming."""
        first, second = await bench.worker(ALL), await bench.worker(ALL)
        await first.backplane.enter([one("1", grace=_SHORT, since=5.0)])
        await first.backplane.leave([(ROOM, "1")])
        again = [one("2", grace=_SHORT, since=6.0, info='"new"')]
        assert list(await second.backplane.enter(again)) == [False]
        await asyncio.sleep(2 * _SHORT)
        assert await swept(0, first, second) == []
        assert (await who(first))["ann"] == ("ann", "new", 1, 5.0)

    @promise(feature="presence")
    async def test_the_last_one_leaves_an_empty_room(self, bench: Bench) -> None:
        """It alone says so, and those who left first come first."""
        worker = await bench.worker(ALL)
        users = ["cy", "ann", "bob"]
        await worker.backplane.enter([one(user, user) for user in sorted(users)])
        await worker.backplane.enter([one("1", "dan", OTHER, info='{"a": 1}', since=7.0)])
        for user in users:
            await worker.backplane.leave([(ROOM, user)])
            await asyncio.sleep(0.01)  # as clocks go
        await worker.backplane.leave([(OTHER, "1")])
        left = await swept(4, worker)
        assert [each.user for each in left if each.channel == ROOM] == users
        assert [each.room_is_empty for each in left] == [False, False, True, True]
        assert [each for each in left if each.channel == OTHER] == [
            Left(OTHER, "dan", '{"a": 1}', 7.0, True)
        ]
        assert await who(worker) == await who(worker, OTHER) == {}
        assert list(await worker.backplane.enter([one("9")])) == [True]

    @promise(feature="presence")
    async def test_the_latest_info_counts(self, bench: Bench) -> None:
        """As it was, whatever is in it; and so do names."""
        first, second = await bench.worker(ALL), await bench.worker(ALL)
        user, info = "a:b \N{SNOWMAN}{}%*'\"" + "x" * 200, '{"<b>": "\\u0000 \N{SNOWMAN}\'"}'
        await first.backplane.enter([one("1", user), one("2", user, since=3.0)])
        await second.backplane.enter([one("3", user, info='"' + "x" * 4094 + '"')])
        assert list(await first.backplane.enter([one("1", user, info=info)])) == [False]
        for worker in (first, second):
            assert await who(worker) == {
                user: (user, {"<b>": "\0 \N{SNOWMAN}'"}, 3, 1.0),
            }

    @promise(feature="presence")
    async def test_what_is_not_there_cannot_leave(self, bench: Bench) -> None:
        """And harms nobody; to leave twice is to leave once."""
        worker = await bench.worker(ALL)
        await worker.backplane.leave([(ROOM, "1")])
        await worker.backplane.enter([one("1")])
        await worker.backplane.leave([(ROOM, "2"), (OTHER, "1")])
        assert await swept(0, worker) == []
        assert (await who(worker))["ann"].connections == 1
        await worker.backplane.leave([(ROOM, "1"), (ROOM, "1")])
        assert len(await swept(1, worker)) == 1

    @promise(feature="presence")
    async def test_a_room_has_as_many_users_as_it_may(self, bench: Bench) -> None:
        """Exactly, on all workers at a time; those in grace keep their places."""
        workers = [await bench.worker(ALL) for _ in range(3)]
        results: Sequence[Sequence[bool | None]] = await asyncio.gather(
            *(
                worker.backplane.enter([one(f"{n}.{m}", f"{n}.{m}", limit=5) for m in range(4)])
                for n, worker in enumerate(workers)
            )
        )
        entered = [f"{n}.{m}" for n, some in enumerate(results) for m, ok in enumerate(some) if ok]
        refused = [result for some in results for result in some if result is None]
        assert (len(entered), len(refused)) == (5, 7)
        assert set(await who(workers[0])) == set(entered)
        user = entered[0]
        tab = one("tab", user, limit=5, grace=_SHORT)
        assert list(await workers[0].backplane.enter([tab])) == [False]
        await workers[int(user[0])].backplane.leave([(ROOM, user)])
        await workers[0].backplane.leave([(ROOM, "tab")])
        late = [one("late", "late", limit=5)]
        assert list(await workers[1].backplane.enter(late)) == [None]
        await swept(1, *workers)
        assert list(await workers[1].backplane.enter(late)) == [True]

    @promise(feature="presence")
    async def test_apps_do_not_see_each_other(self, bench: Bench) -> None:
        """Of different prefixes."""
        ours = await bench.worker(ALL)
        theirs = await bench.worker(ALL, prefix=f"{bench.prefix}2")
        await ours.backplane.enter([one("1")])
        assert await who(theirs) == {}
        assert list(await theirs.backplane.enter([one("2")])) == [True]
        await ours.backplane.leave([(ROOM, "1")])
        assert [each.room_is_empty for each in await swept(1, ours)] == [True]
        assert set(await who(theirs)) == {"ann"}

    @promise(feature="presence")
    async def test_a_thousand_in_a_room(self, bench: Bench) -> None:
        """Come, are listed, and leave once."""
        workers = [await bench.worker(ALL) for _ in range(2)]
        users = [f"user{number}" for number in range(1000)]
        entered = await workers[0].backplane.enter([one(user, user) for user in users])
        assert list(entered) == [True] * 1000
        assert set(await who(workers[1])) == set(users)
        await workers[0].backplane.leave([(ROOM, user) for user in users])
        left = await swept(1000, *workers)
        assert Counter(each.user for each in left) == Counter(users)
        assert [each.room_is_empty for each in left].count(True) == 1
        assert await who(workers[1]) == {}

    @promise("fail", feature="presence")
    async def test_who_is_there_when_nobody_can_be_asked(self, bench: Bench) -> None:
        """Says so; what cannot be told is refused in time, and goes on afterwards."""
        worker = await bench.worker(ALL)
        await worker.backplane.enter([one("1"), one("2", "bob")])
        await bench.fault("fail")
        backplane = worker.backplane
        for name, call in (
            ("enter", backplane.enter([one("3")])),
            ("leave", backplane.leave([(ROOM, "2")])),
            ("sweep", backplane.sweep()),
        ):
            try:
                await within(bench.timeout + LATE, name, call)
            except BackplaneUnavailable:
                continue
            raise AssertionError(f"{name}() did not raise BackplaneUnavailable")
        _, complete = await within(bench.timeout + LATE, "occupants", backplane.occupants(ROOM))
        assert not complete, "nobody can be asked, and all are known"
        await bench.fault("recover")
        await _is_as_before(worker)


async def _is_as_before(worker: Worker) -> None:
    """Have one of two members leave, and see that the other one is there."""
    end = time.monotonic() + worker.inbox.patience
    while True:
        try:
            await worker.backplane.leave([(ROOM, "2")])
            await worker.backplane.sweep()
            if set(await who(worker)) == {"ann"}:
                return
        except (BackplaneUnavailable, AssertionError):
            pass
        assert time.monotonic() < end, "it is not as it was"
        await asyncio.sleep(0.05)
