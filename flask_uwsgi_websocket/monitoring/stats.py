"""What ``websocket.stats()`` returns: the figures of each worker, and their sums."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from ..helpers.log import logger
from ..helpers.text import printable
from ..metrics.snapshot import add, copied
from ..metrics.totals import totals
from ..metrics.worker import WorkerMetrics
from ..process.server_process import started_at
from ..rooms.local.directory import FIGURES
from ..rooms.local.instances import find_instances, opened_place
from ..servers import uwsgi
from .shared_stats import SharedStats
from .stats_file import Reading, after_end, read_stats_files

#: Seconds without a sign of life after which a worker counts as blocked.
PATIENCE = 3.0

STATES = LIVE, BLOCKED, ENDED, RETIRED = "live", "blocked", "ended", "retired"
#: States in which a worker counts no more: another may take its place, or uWSGI wants none.
GONE = (ENDED, RETIRED)
#: What is of a worker alone, and has no sum.
_OF_WORKER = {"worker", "pid", "state", "age", "started", "engine"}
_STARTED = time.time()


def stats_of(shared: SharedStats) -> dict[str, Any]:
    """Return the stats of an app whose workers are uWSGI's, in one of its processes."""
    number = shared.number
    found = shared.read()
    if number:
        found[number] = shared.own()
    workers = entries_of(found)
    is_old = number in workers and workers[number]["state"] == BLOCKED
    if number:
        workers[number]["state"] = LIVE  # it answers, if by figures that were written long ago
    running = uwsgi.running_workers()
    for each, (pid, started) in running.items():
        before = workers.get(each)
        if before is not None and before["pid"] == pid:
            continue  # whose end nobody has noticed so far, as without a master
        # Where nothing can be written nobody knows of the others; a file there is of one before.
        if before["state"] in GONE if before else not shared.is_broken:
            workers[each] = _successor(before, each, pid, started)
    is_complete = not is_old and not running.keys() - workers.keys()
    return _summed(workers, shared.instance, shared.prefix, is_complete)


def stats_from_outside(instance: tuple[int, int], prefix: str) -> dict[str, Any] | None:
    """Return the stats of an app, in a process that is none of its uWSGI's; None if that ended."""
    with opened_place(instance, prefix) as fd:
        found = read_stats_files(fd) if fd >= 0 else {}
    if not found:
        return None
    return _summed(entries_of(found), instance, prefix)


def stats_of_process(metrics: Iterable[WorkerMetrics], engine: str, prefix: str) -> dict[str, Any]:
    """Return the stats of an app that another server, or a test, runs: those of this process."""
    total: Any = WorkerMetrics().snapshot()
    for each in metrics:
        total = add(total, each.snapshot())
    pid = os.getpid()
    if not any(totals(total).values()):
        _mention_uwsgi(prefix)
    figures = {"pid": pid, "started": _STARTED, "engine": engine, "counted": copied(total)}
    return _summed({0: entry_of(0, Reading(figures, 0.0, True))}, (pid, started_at(pid)), prefix)


@cache
def _mention_uwsgi(prefix: str) -> None:
    """Say once, where this process has had no WebSockets, that a uWSGI runs the app."""
    for instance in find_instances(FIGURES):
        if prefix in instance.workers:
            logger.warning(
                "websocket.stats() is about this process alone, which has had no WebSocket; for "
                "those of uWSGI (%s) run: flask websocket stats --json",
                printable(instance.command),
            )


def shown_workers(stats: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the workers that people want to see: no retired one, with which all is well."""
    return [worker for worker in stats["workers"] if worker["state"] != RETIRED]


def entries_of(found: Mapping[int, Reading]) -> dict[int, dict[str, Any]]:
    """Return the parts of all workers, by their numbers."""
    running = [each.figures["workers"] for each in found.values() if each.is_writer_alive]
    most = max(running, default=0) or math.inf  # how many there are to be, if anybody says
    entries = {number: entry_of(number, found[number]) for number in sorted(found)}
    for number, entry in entries.items():
        if entry["state"] == ENDED and (number > most or found[number].figures["dismissed"]):
            entry["state"] = RETIRED
    return entries


def entry_of(number: int, found: Reading) -> dict[str, Any]:
    """Return a worker's part of the stats, from what it has written."""
    figures = found.figures
    if not found.is_writer_alive:
        state = ENDED
    else:
        state = BLOCKED if found.age > PATIENCE and not _stands_still(figures) else LIVE
    counted = figures["counted"]
    return {
        "worker": number,
        "pid": figures["pid"],
        "state": state,
        "age": round(found.age, 3),
        "started": figures["started"],
        "engine": figures["engine"],
        **(after_end(counted) if state == ENDED else counted),
    }


def _stands_still(figures: Mapping[str, Any]) -> bool:
    """Return whether a worker is silent because it is idle; see suspend.py."""
    return figures["engine"] == "suspend" and not figures["counted"]["open"]


def _successor(
    before: dict[str, Any] | None, number: int, pid: int, started: float
) -> dict[str, Any]:
    """Return the part of a worker that runs, and has written nothing so far.

    :param before: that of the worker which has ended, whose figures it will take over.
    """
    age = max(time.time() - started, 0.0)
    return {
        **WorkerMetrics().snapshot(),
        **(before or {}),
        "worker": number,
        "pid": pid,
        "state": BLOCKED if age > PATIENCE else LIVE,
        "age": round(age, 3),
        "started": started,
        "engine": uwsgi.running_engine(),
    }


def _summed(
    workers: Mapping[int, dict[str, Any]],
    instance: tuple[int, int],
    prefix: str,
    is_complete: bool = True,
) -> dict[str, Any]:
    """Return the stats of an app.

    :param is_complete: whether no worker is missing, as far as anybody knows.
    """
    total: Any = WorkerMetrics().snapshot()
    for worker in workers.values():
        total = add(total, {key: worker[key] for key in worker.keys() - _OF_WORKER})
    blocked = any(worker["state"] == BLOCKED for worker in workers.values())
    return {
        "complete": is_complete and not blocked,
        "time": time.time(),
        "instance": "{}.{}".format(*instance),
        "app": prefix,
        "workers": [workers[number] for number in sorted(workers)],
        **total,
    }
