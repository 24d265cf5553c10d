"""The connections of all workers, as far as the page shows them: the question and the answers.

Each worker looks through its own in slices, between which its loop goes on, and answers with as
many rows as the page shows, however many it has.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Collection, Iterable
from heapq import nlargest, nsmallest
from typing import Any

from ...connection.connection import Connection
from ...rooms.channels import room_channel, user_channel
from ...rooms.live import LiveRooms
from ...rooms.questions import Answers
from .querying import Place, Query
from .rows import ADMIN, SORTS, address_of, known_id, route_of, row

ASK = "admin.connections"
#: Connections that are looked at in one go: some milliseconds of the loop's time.
SLICE = 500
#: In an answer: what is not about one row.
_WHOLE = ""

#: A row's place, and where its connection is among those that were looked at.
_Found = tuple[Place, int]


async def answer(live: LiveRooms, question: Any) -> dict[str, Any]:
    """Answer for the connections of this worker."""
    query = Query.of({name: value for name, value in question.items() if name != "ask"})
    connections = list(_candidates(live, query))
    search = _Search(live, query)
    for begin in range(0, len(connections), SLICE):
        search.look_at(connections, begin)
        await asyncio.sleep(0)
    rows: dict[str, Any] = {_WHOLE: search.summary()}
    for place, index in search.best:
        connection = connections[index]
        if (client := connection.client) is not None:  # else it has ended meanwhile
            rows[client.id] = [place, row(connection, client, live)]
    return rows


def _candidates(live: LiveRooms, query: Query) -> Collection[Connection]:
    """Return the connections among which those are that are asked for."""
    if query.exact and query.search and query.field in ("room", "user"):
        channel = room_channel if query.field == "room" else user_channel
        return live.membership.members(channel(query.search))
    return live.connections()


class _Search:
    """The connections of this worker that match, as far as they were looked at."""

    def __init__(self, live: LiveRooms, query: Query) -> None:
        self._live, self._query = live, query
        self._matches = matcher(query, live)
        self._worker = live.exchange.options.worker
        self._matched = self._eligible = 0
        self.best: list[_Found] = []

    def look_at(self, connections: list[Connection], begin: int) -> None:
        """Look at a slice of them."""
        query, live, worker, key_of = (
            self._query,
            self._live,
            self._worker,
            SORTS[self._query.sort].key,
        )
        found = self.best
        for index in range(begin, min(begin + SLICE, len(connections))):
            connection = connections[index]
            client, fd = connection.client, connection.fd
            if client is None or fd < 0 or not self._matches(connection, client):
                continue
            self._matched += 1
            place = key_of(connection, client, live), worker, fd
            if query.may_have(place):
                self._eligible += 1
                found.append((place, index))
        take = nsmallest if query.takes_smallest else nlargest
        self.best = take(query.limit, found)

    def summary(self) -> dict[str, Any]:
        """Return what is not about one row."""
        live = self._live
        return {
            "worker": live.engine.process.worker_id(),
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "total": len(live.connections()),
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
