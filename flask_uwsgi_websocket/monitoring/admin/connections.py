"""The connections of all workers, as far as the page shows them: the question and the answers.

Each worker looks through its own in slices, between which its loop goes on, and answers with as
many rows as the page shows, however many it has.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from heapq import nlargest, nsmallest
from typing import Any

from ...connection.connection import Connection
from ...rooms.channels import room_channel, user_channel
from ...rooms.live import LiveRooms
from ...rooms.questions import Answers
from .querying import Place, Query
from .rows import ADMIN, SORTS, address_of, known_id, route_of, row

ASK = "admin.connections"
#: Seconds for which a worker looks on in one go, and how many connections between two looks at
#: the clock.
TURN_TIME, AT_ONCE = 0.003, 50
#: In an answer: what is not about one row.
_WHOLE = ""

#: A row's place, and where its connection is among those that were looked at.
_Found = tuple[Place, int]


async def answer(live: LiveRooms, question: Any) -> dict[str, Any]:
    """Answer for the connections of this worker."""
    query = Query.of({name: value for name, value in question.items() if name != "ask"})
    everybody = live.connections()
    await asyncio.sleep(0)  # ten thousand take as long as a turn
    search = _Search(live, query, list(_candidates(live, query, everybody)))
    while not search.look_on():
        await asyncio.sleep(0)
    rows: dict[str, Any] = {_WHOLE: {**search.summary(), "total": len(everybody)}}
    for place, index in search.best:
        connection = search.connections[index]
        if (client := connection.client) is not None:  # else it has ended meanwhile
            rows[client.id] = [place, row(connection, client, live)]
    return rows


def _candidates(
    live: LiveRooms, query: Query, everybody: Collection[Connection]
) -> Collection[Connection]:
    """Return the connections among which those are that are asked for."""
    if query.exact and query.search and query.field in ("room", "user"):
        channel = room_channel if query.field == "room" else user_channel
        try:
            return live.membership.members(channel(query.search))
        except ValueError:  # none has such a name
            return ()
    return everybody


class _Search:
    """The connections of this worker that match, as far as they were looked at.

    :param connections: those to look at.
    """

    def __init__(self, live: LiveRooms, query: Query, connections: list[Connection]) -> None:
        self.connections = connections
        #: As many as are shown, in their order.
        self.best: list[_Found] = []
        self._live, self._query = live, query
        self._matches = matcher(query, live)
        self._matched = self._eligible = self._looked_at = 0

    def look_on(self) -> bool:
        """Look at more of them, for a moment; return whether these were the last."""
        end, found = time.monotonic() + TURN_TIME, self.best
        while self._looked_at < len(self.connections) and time.monotonic() < end:
            found += self._look_at(range(self._looked_at, self._looked_at + AT_ONCE))
            self._looked_at += AT_ONCE
        take = nsmallest if self._query.takes_smallest else nlargest
        self.best = take(self._query.limit, found)
        return self._looked_at >= len(self.connections)

    def _look_at(self, some: range) -> Iterator[_Found]:
        """Yield those that may be shown."""
        query, live, worker = self._query, self._live, self._live.exchange.options.worker
        key_of, matches = SORTS[query.sort].key, self._matches
        for index, connection in enumerate(self.connections[some.start : some.stop], some.start):
            client, fd = connection.client, connection.fd
            if client is None or fd < 0 or not matches(connection, client):
                continue
            self._matched += 1
            place = key_of(connection, client, live), worker, fd
            if query.may_have(place):
                self._eligible += 1
                yield place, index

    def summary(self) -> dict[str, Any]:
        """Return what is not about one row."""
        return {
            "worker": self._live.engine.process.worker_id(),
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "matched": self._matched,
            "eligible": self._eligible,
        }


def matcher(query: Query, live: LiveRooms) -> Callable[[Connection, Any], bool]:
    """Return what tells whether a connection, with its client, is asked for."""
    search = query.search if query.exact else query.search.casefold()

    def has(text: str) -> bool:
        return text == search if query.exact else search in text.casefold()

    values: dict[str, Callable[[Connection, Any], Iterable[str]]] = {
        "user": lambda connection, client: (client.user or "",),
        "address": lambda connection, client: (address_of(client),),
        "route": lambda connection, client: (route_of(connection),),
        "room": lambda connection, client: live.membership.rooms_of(connection),
        "id": lambda connection, client: (known_id(client),),
    }
    looked_at = [values[query.field]] if query.field else list(values.values())

    def matches(connection: Connection, client: Any) -> bool:
        if query.hide_admins and ADMIN in client.environ:
            return False
        return not search or any(
            has(text) for value in looked_at for text in value(connection, client)
        )

    return matches


async def connections_of_all(live: LiveRooms, query: Query) -> dict[str, Any]:
    """Ask all workers, and make one page of what they answer."""
    return merged(query, await live.exchange.ask({"ask": ASK, **query.question()}))


def merged(query: Query, answers: Answers) -> dict[str, Any]:
    """Make one page of what the workers have answered."""
    wholes, found = [], []
    for part in answers.answers:
        rows = dict(part or {})
        if _WHOLE in rows:
            wholes.append(rows.pop(_WHOLE))
        found += [(tuple(place), shown) for place, shown in rows.values()]
    take = nsmallest if query.takes_smallest else nlargest
    page = take(query.limit, found, key=lambda each: each[0])
    if query.before is not None:
        page.reverse()
    matched, eligible = (sum(whole[name] for whole in wholes) for name in ("matched", "eligible"))
    before = matched - eligible if query.before is None else eligible - len(page)
    return {
        "type": "connections",
        "tag": query.tag,
        "time": time.time(),
        "complete": answers.complete and None not in answers.answers,
        "missing": [],
        "answered": [(whole["host"], whole["worker"]) for whole in wholes],
        "total": sum(whole["total"] for whole in wholes),
        "matched": matched,
        "position": before + 1,
        "first": page[0][0] if page else None,
        "last": page[-1][0] if page else None,
        "rows": [shown for _, shown in page],
    }
