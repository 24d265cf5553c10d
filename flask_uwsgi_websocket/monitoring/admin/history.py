"""The messages of the last minutes, which a page shows that has just been opened.

Each worker remembers a few totals, whether or not a page is open: a tuple for every five seconds.
They are asked for once, and added up.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

from ...process.server_process import ServerProcess
from ...rooms.live import LiveRooms
from ...servers import uwsgi
from ..shared_stats import shared_stats_of

ASK = "admin.history"
#: Seconds between two samples, and how many are kept: those of five minutes.
STEP, KEPT = 5.0, 61

#: When it was taken, and how many messages had been received and sent by then.
Sample = tuple[float, int, int]


class History:
    """What this worker has counted, in samples."""

    def __init__(self) -> None:
        self.samples: deque[Sample] = deque(maxlen=KEPT)

    def listen(self, prefix: str, counted: dict[str, Any]) -> None:
        """Take a sample of a worker's figures, if the last one is old enough."""
        now = time.time()
        last = self.samples[-1][0] if self.samples else 0.0
        if now < last:
            self.samples.clear()  # somebody has set the clock
        elif now - last < STEP:
            return
        routes = counted["routes"].values()
        totals = (sum(each[f"messages_{way}"] for each in routes) for way in ("received", "sent"))
        self.samples.append((now, *totals))


#: Those of this process, by the prefixes of the apps.
_all: dict[str, History] = {}


def begin_with_workers(prefix: Callable[[], str], process: Callable[[], ServerProcess]) -> None:
    """Have each worker of uWSGI remember what an app has counted."""

    def begin() -> None:
        if prefix() not in _all:
            history = _all[prefix()] = History()
            shared_stats_of(prefix(), process()).listeners.append(history.listen)

    uwsgi.after_fork(begin)


def answer(live: LiveRooms, question: Any) -> dict[str, list[Sample]]:
    """Answer with the samples of this worker, if it is one of those that are meant."""
    options = live.exchange.options
    history = _all.get(options.prefix)
    if history is None or list(options.instance or ()) != question["instance"]:
        return {}
    return {str(live.engine.process.worker_id()): list(history.samples)}


async def history_of_all(live: LiveRooms, workers: Collection[int]) -> dict[str, Any]:
    """Ask for the messages a second that all workers of this uWSGI had in the last minutes.

    :param workers: those that have to answer; else there is no telling what was there.
    """
    instance = live.exchange.options.instance
    found: dict[str, Sequence[Sample]] = {}
    if instance is not None:
        question = {"ask": ASK, "instance": list(instance)}
        for part in (await live.exchange.ask(question)).answers:
            found.update(part or {})
    is_known = set(map(str, workers)) <= found.keys()
    return {"type": "history", "points": rates(list(found.values())) if is_known else []}


def rates(histories: Sequence[Sequence[Sample]]) -> list[tuple[float, float, float]]:
    """Add up what several workers had received and sent each second, while all remember it."""
    if not histories or not all(histories):
        return []
    begin = max(history[0][0] for history in histories)
    end = min(history[-1][0] for history in histories)
    times = [begin + STEP * number for number in range(int((end - begin) // STEP) + 1)]
    totals = [
        [sum(_total(history, when, way) for history in histories) for way in (1, 2)]
        for when in times
    ]
    return [
        (when, (received - before[0]) / STEP, (sent - before[1]) / STEP)
        for when, before, (received, sent) in zip(times[1:], totals, totals[1:], strict=False)
    ]


def _total(history: Sequence[Sample], when: float, way: int) -> float:
    """Return what a worker had received or sent by a time between its first sample and the last."""
    later = bisect_left(history, when, key=lambda sample: sample[0])
    after, before = history[later], history[max(later - 1, 0)]
    share = (when - before[0]) / ((after[0] - before[0]) or 1)
    return before[way] + share * (after[way] - before[way])
