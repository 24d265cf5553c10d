"""The WebSocket of the admin page: what it watches, sent again and again.

It is written once, as a coroutine, for all engines: what blocks on the others is over when it is
awaited. While nobody has the page open, nothing of this runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Coroutine
from inspect import isawaitable
from typing import Any, TypeVar

from ...connection.blocking import run_to_end
from ...exceptions import RoomError
from ...rooms.live import LiveRooms
from ...rooms.rooms import Rooms
from ..stats import BLOCKED, GONE, LIVE
from .connections import connections_of_all
from .history import history_of_all
from .querying import BadQuery, Query
from .rooms import RoomQuery, rooms_of_all
from .summary import summary

T = TypeVar("T")
Ask = Callable[[LiveRooms, Any], Coroutine[Any, Any, dict[str, Any]]]

#: Seconds after which the page has to connect again, by which it is asked anew who it is.
RENEW = 120.0
RENEW_CODE = 4001
#: Seconds between two answers, and the least that lies between the page's wish and the first.
STATS_INTERVAL, ASK_INTERVAL, LEAST_INTERVAL = 1.0, 2.0, 0.1
#: How much longer the workers rest than a question took, and for how many seconds at most: one
#: that is blocked has the others wait, and nothing to do.
REST, LONGEST_REST = 10.0, 5.0
#: Characters of a message of the page's.
MAX_MESSAGE = 4096


async def settled(value: Awaitable[T] | T) -> T:
    """Return what a client's method gives: at once, or once it is there."""
    return await value if isawaitable(value) else value


class Watching:
    """What a page watches, and when it is due."""

    def __init__(self) -> None:
        self._watched: dict[str, Any] = {}
        self._due: dict[str, float] = {}
        self._last: dict[str, float] = {}

    def take(self, message: str | bytes) -> None:
        """Take what the page wants.

        :raises BadQuery: for what cannot be meant.
        """
        try:
            wish = json.loads(message)
        except (ValueError, RecursionError):
            wish = None
        if not isinstance(wish, dict) or wish.get("type") != "watch":
            raise BadQuery('a message is the JSON of {"type": "watch", ...}')
        watched: dict[str, Any] = {}
        for about in ("stats", "history"):
            if wish.get(about):
                watched[about] = True
        if wish.get("connections") is not None:
            watched["connections"] = Query.of(wish["connections"])
        if wish.get("rooms") is not None:
            watched["rooms"] = RoomQuery.of(wish["rooms"])
        self._watched = watched
        self._due = {about: self._last.get(about, 0.0) + LEAST_INTERVAL for about in watched}

    def pause(self, now: float, end: float) -> float:
        """Return for how many seconds nothing is due."""
        return max(0.0, min([end, *self._due.values()]) - now)

    def due(self, now: float) -> list[tuple[str, Any]]:
        """Return what is due, and what is asked of it."""
        return [(about, self._watched[about]) for about, when in self._due.items() if when <= now]

    def done(self, about: str, began: float, now: float) -> None:
        """Set when it is due again: the later, the longer it took."""
        self._last[about] = now
        if about == "history":  # goes on with the stats
            del self._watched[about], self._due[about]
            return
        interval = STATS_INTERVAL if about == "stats" else ASK_INTERVAL
        self._due[about] = max(began + interval, now + min(REST * (now - began), LONGEST_REST))


class Updates:
    """A page's WebSocket.

    :param hello: what the page is told first.
    :param stats: returns the figures of all workers.
    """

    def __init__(
        self, ws: Any, rooms: Rooms, hello: dict[str, Any], stats: Callable[[], dict[str, Any]]
    ) -> None:
        self._ws, self._rooms, self._hello, self._stats = ws, rooms, hello, stats
        self._watching = Watching()
        self._running: list[int] = []
        self._looked_at = 0.0

    async def run(self) -> None:
        """Serve it until it ends, or has to be opened again."""
        ws, watching = self._ws, self._watching
        await settled(ws.send_json({"type": "hello", "id": ws.id, "renew": RENEW, **self._hello}))
        end = time.monotonic() + RENEW
        while (now := time.monotonic()) < end:
            try:
                message = await settled(ws.receive(timeout=watching.pause(now, end)))
            except TimeoutError:
                pass
            else:
                if message is None:
                    return
                await self._take(message)
            for about, asked in watching.due(time.monotonic()):
                await self._report(about, asked)
        await settled(ws.close(RENEW_CODE, "connect again"))

    async def _take(self, message: str | bytes) -> None:
        try:
            self._watching.take(message)
        except BadQuery as error:
            await self._send_error("message", str(error))

    async def _report(self, about: str, asked: Any) -> None:
        began = time.monotonic()
        try:
            await settled(self._ws.send_json(await self._ask(about, asked)))
        except RoomError as error:
            await self._send_error(about, str(error))
        self._watching.done(about, began, time.monotonic())

    async def _ask(self, about: str, asked: Any) -> dict[str, Any]:
        if about == "stats":
            return summary(self._look_at_stats())
        if about == "history":
            return await self._ask_for_history()
        ask: Ask = connections_of_all if about == "connections" else rooms_of_all
        answer: dict[str, Any] = await settled(self._rooms.run(ask(self._rooms.live(), asked)))
        if about == "connections":
            self._complete(answer)
        return answer

    async def _ask_for_history(self) -> dict[str, Any]:
        workers = [each["worker"] for each in self._stats()["workers"] if each["state"] not in GONE]
        answer: dict[str, Any] = await settled(
            self._rooms.run(history_of_all(self._rooms.live(), workers))
        )
        return answer

    def _complete(self, answer: dict[str, Any]) -> None:
        """Say which row is this page's own, and which workers of this host have not answered."""
        for row in answer["rows"]:
            row["you"] = row["id"] == self._ws.id
        answered = {
            worker for host, worker in answer.pop("answered") if host == self._hello["host"]
        }
        if time.monotonic() - self._looked_at > 2 * STATS_INTERVAL:
            self._look_at_stats()
        answer["missing"] = sorted(set(self._running) - answered)
        answer["complete"] = answer["complete"] and not answer["missing"]

    def _look_at_stats(self) -> dict[str, Any]:
        """Return the figures; remember which workers of this host may have connections."""
        self._looked_at = time.monotonic()
        stats = self._stats()
        self._running = [
            worker["worker"]
            for worker in stats["workers"]
            if worker["state"] == BLOCKED or (worker["state"] == LIVE and worker["open"])
        ]
        return stats

    async def _send_error(self, about: str, error: str) -> None:
        await settled(self._ws.send_json({"type": "error", "about": about, "error": error}))


def handler(serve: Callable[[Any], Updates], asynchronous: bool) -> Callable[..., Any]:
    """Make the handler of a route, of the kind that the engine has."""
    if asynchronous:

        async def updates_asynchronously(ws: Any) -> None:
            await serve(ws).run()

        return updates_asynchronously

    def updates(ws: Any) -> None:
        run_to_end(serve(ws).run())

    return updates
