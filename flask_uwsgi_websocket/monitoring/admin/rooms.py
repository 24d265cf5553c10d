"""The rooms of all workers, those with the most connections first: the question and the answers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from heapq import nlargest
from typing import Any

from ...rooms.channels import room_channel
from ...rooms.live import LiveRooms
from .querying import checked, is_limit, is_search

ASK = "admin.rooms"
#: Rooms that are looked at in one go.
SLICE = 2000
#: Rooms that a worker tells for each that is shown: what is large everywhere need be the largest
#: nowhere.
MARGIN = 3
#: In an answer: how many rooms of the worker match. No room has this name.
_MATCHED = ""


@dataclass(frozen=True, slots=True)
class RoomQuery:
    """Which rooms are asked for.

    :param search: a part of their names, in whatever case.
    :param limit: how many at most.
    """

    search: str = ""
    limit: int = 50

    @classmethod
    def of(cls, asked: Any) -> RoomQuery:
        """Read a query, from a page or another worker.

        :raises BadQuery: for what is none.
        """
        return cls(**checked(asked, _CHECKS))


_CHECKS: dict[str, Callable[[Any], bool]] = {"search": is_search, "limit": is_limit}


async def answer(live: LiveRooms, question: Any) -> dict[str, int]:
    """Answer for the rooms that have members in this worker."""
    query = RoomQuery.of({name: value for name, value in question.items() if name != "ask"})
    search, matched = query.search.casefold(), 0
    best: list[tuple[int, str]] = []
    rooms = live.membership.rooms()
    for begin in range(0, len(rooms), SLICE):
        some = [room for room in rooms[begin : begin + SLICE] if search in room.casefold()]
        matched += len(some)
        sizes = [(len(live.membership.members(room_channel(room))), room) for room in some]
        best = nlargest(query.limit * MARGIN, best + sizes)
        await asyncio.sleep(0)
    return {_MATCHED: matched, **{room: size for size, room in best}}


async def rooms_of_all(live: LiveRooms, query: RoomQuery) -> dict[str, Any]:
    """Ask all workers, and sum what they answer."""
    answers = await live.exchange.ask({"ask": ASK, **asdict(query)})
    sizes: Counter[str] = Counter()
    for part in answers.answers:
        sizes.update(part or {})
    matched = sizes.pop(_MATCHED, 0)
    return {
        "type": "rooms",
        "time": time.time(),
        "complete": answers.complete and None not in answers.answers,
        "rows": [{"room": room, "connections": n} for room, n in sizes.most_common(query.limit)],
        "more": matched > query.limit and len(sizes) > query.limit,
    }
