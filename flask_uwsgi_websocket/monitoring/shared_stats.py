"""Figures that all workers of an app share: each writes a file, and reads those of the others.

A worker writes its own (see stats_file.py) each second, on the clock of its connections. Nobody is
asked: a worker that is blocked would not answer, and one that has ended not either. A worker that
starts takes over the file of its number, and counts on from there: no counter falls while the
instance lives, and what is lost with a worker that is killed is its last second.
"""

from __future__ import annotations

import os
import time
from _thread import RLock
from collections.abc import Callable, Sequence
from typing import Any

from ..engines.base import Engine
from ..exceptions import BackplaneUnavailable
from ..helpers.log import RateLimit, log_exception, logger
from ..metrics.observers import Observer
from ..metrics.snapshot import add, copied
from ..metrics.worker import WorkerMetrics
from ..process.fork import own
from ..process.server_process import ServerProcess
from ..rooms.local.directory import Directory, explained
from ..rooms.local.instances import open_place, opened_place
from ..servers import uwsgi
from . import uwsgi_metrics
from .route_sums import RouteSums
from .stats_file import Reading, StatsFile, after_end, read_stats_files

#: Seconds between two samples of the figures, which are written if they have changed.
INTERVAL, LONGEST_INTERVAL = 1.0, 2.0
#: The pause after a sample, in multiples of the time that it took.
_PAUSE_FACTOR = 50


class SharedStats:
    """The figures that the workers of an app share, as this process takes part in it.

    :param prefix: the app's, by which the directory is known.
    :param process: the one that this is.
    """

    def __init__(self, prefix: str, process: ServerProcess) -> None:
        self.prefix = prefix
        self._process = process
        self._engine: Engine | None = None  # whose clock it writes on
        self._metrics: list[WorkerMetrics] = []
        self._lock = RLock()
        self._directory: Directory | None = None
        self._file: StatsFile | None = None
        self._started = time.time()
        #: What workers of this number had counted before; None until that was looked for.
        self._before: Any = None
        self._written: list[Any] = []
        #: The figures in the file; None before anything was written.
        self._reported: dict[str, Any] | None = None
        self._reported_at = time.monotonic()
        self._routes = RouteSums()
        self._is_over = self._is_dismissed = False
        self._failure = RateLimit()
        #: Called with the prefix and this worker's figures after each sample.
        self.listeners: list[Callable[[str, dict[str, Any]], object]] = []
        #: Whether the file cannot be written; the other workers may be unknown, too.
        self.is_broken = False
        own(self)

    def include(self, metrics: WorkerMetrics) -> None:
        """Include what one more extension of the app counts."""
        with self._lock:
            if metrics not in self._metrics:
                self._metrics.append(metrics)

    def announce(self) -> None:
        """Write before there is a clock, since that may wait for the first request."""
        self._write(self._counted())

    def begin(self, engine: Engine) -> None:
        """Write on the clock of an engine's worker, from now on; called on its loop."""
        with self._lock:
            if self._engine is not None:
                return
            self._engine = engine
        self._started = time.time()
        engine.call_at_end(self._end)
        if engine.name == "suspend":
            idle = _WhileIdle(engine, self._write_and_notify)
            for metrics in self._metrics:
                if idle not in metrics.observers:  # which apps of one extension share
                    metrics.observers.append(idle)
        self._sample()

    @property
    def number(self) -> int:
        """That of this worker; 0 in what is none."""
        return self._process.worker_id()

    @property
    def instance(self) -> tuple[int, int]:
        """What identifies the instance."""
        return self._process.instance()

    def own(self) -> Reading:
        """Return the figures of this process, as of now, or as they could be written last.

        No figure that was reported falls when this process is killed.
        """
        with self._lock:
            self._take_over()  # requests are served before the clock runs
            counted = self._counted()
            if self._engine is not None:
                self._write(counted)
            figures = copied(self._reportable(counted))
            return Reading(figures, time.monotonic() - self._reported_at, True)

    def read(self) -> dict[int, Reading]:
        """Return the figures of all workers that have written any, by their numbers."""
        with self._lock:
            if self._directory is not None:
                return read_stats_files(self._directory.fileno())
        with opened_place(self.instance, self.prefix) as fd:
            return read_stats_files(fd) if fd >= 0 else {}

    # -- on the worker's loop ------------------------------------------------------------

    def _sample(self) -> None:
        """Write the figures if they have changed, and schedule the next sample."""
        began = time.perf_counter()
        try:
            self._write_and_notify()
        except Exception as error:
            if self._failure.passes():
                log_exception(
                    "the figures of this worker cannot be written for the others", error=error
                )
        finally:
            took = time.perf_counter() - began
            pause = min(max(INTERVAL, _PAUSE_FACTOR * took), LONGEST_INTERVAL)
            if self._engine is not None:  # this is no child
                self._engine.worker().call_later(pause, self._sample)

    def _write_and_notify(self) -> None:
        with self._lock:  # nobody writes later figures before these are written
            counted = self._counted()
            self._write(counted)
        for listener in self.listeners:
            listener(self.prefix, self._reportable(counted)["counted"])

    def _counted(self) -> list[Any]:
        """Return what each extension has counted in this process."""
        return [metrics.snapshot() for metrics in self._metrics]

    def _write(self, counted: list[Any]) -> None:
        with self._lock:
            if self._is_over:
                return
            try:
                directory, file = self._open()
                with explained(directory.path):
                    if counted != self._written or not file.touch():
                        figures = self._figures(counted)
                        file.write(figures, self._routes.lines())
                        self._written, self._reported = counted, figures
                    self._reported_at = time.monotonic()
                self.is_broken = False
            except (OSError, BackplaneUnavailable) as error:
                self._warn(error)

    def _open(self) -> tuple[Directory, StatsFile]:
        """Return the directory, opened anew where it has been removed, and the file."""
        if self._directory is not None and not self._directory.state().st_nlink:
            self._close(for_good=False)
        if self._directory is None or self._file is None:
            self._directory = open_place(None, self.instance, self.prefix)
            self._file = StatsFile(self._directory, self.number)
        self._take_over()
        return self._directory, self._file

    def _take_over(self) -> None:
        """Count on from what the worker that had this number before has left."""
        if self._before is None:
            found = self.read().get(self.number)
            self._before = {} if found is None else after_end(found.figures["counted"])

    def _reportable(self, counted: Sequence[Any]) -> dict[str, Any]:
        """Return what others may be shown: no more than is written, once something is."""
        if self._reported is not None:
            return self._reported
        self._reported_at = time.monotonic()
        return self._figures(counted)

    def _figures(self, counted: Sequence[Any]) -> dict[str, Any]:
        """Return the figures of this worker: of all extensions, and of those before it."""
        parts = [self._before, *counted] if self._before else counted
        total: Any = {}
        for each in parts:
            total = add(total, {**each, "routes": {}})
        total["routes"] = self._routes.update([each["routes"] for each in parts])
        return {
            "pid": os.getpid(),
            "started": self._started,
            "workers": uwsgi.most_workers(),
            "dismissed": self._is_dismissed,
            "engine": uwsgi.running_engine() if self._engine is None else self._engine.name,
            "counted": total,
        }

    def _warn(self, error: Exception) -> None:
        if not self.is_broken:
            logger.warning(
                "websocket.stats() is without the other workers, or shows them as blocked, since "
                "figures cannot be written: %s",
                error,
            )
        self.is_broken = True

    # -- the end -------------------------------------------------------------------------

    def _end(self) -> None:
        """Write once more. Who starts in this worker's place counts on from there."""
        if uwsgi.is_dismissed():
            self._is_dismissed, self._written = True, []
        self._write_and_notify()
        with self._lock:
            ends = self._engine is not None and self._engine.ends_for_good()
            if ends and not self._is_over:
                self._is_over = True
                self._close(for_good=True)

    def _close(self, for_good: bool) -> None:
        file, directory = self._file, self._directory
        self._file = self._directory = None
        if file is not None:
            file.close()
        if directory is not None:
            directory.close(for_good)

    def leave_to_parent(self) -> None:
        """Give it up in a child, which is no worker."""
        self._lock = RLock()
        if self._file is not None:
            self._file.close()
        if self._directory is not None:
            self._directory.leave_to_parent()
        self._file = self._directory = self._engine = None


class _WhileIdle(Observer):
    """Has figures written where the clock stands still while a worker has no WebSocket.

    The end of the last one always: what is open is right from then on. Refusals, which anybody may
    cause any number of, in a tenth of the time at most: the last ones may be missing until there is
    more to count.
    """

    def __init__(self, engine: Engine, write: Callable[[], object]) -> None:
        self._engine = engine
        self._write = write
        self._due = 0.0

    def closed(self, client: Any, end: Any) -> None:
        if not self._engine.worker().connections:
            self._write()

    def refused(self, environ: Any, refusal: Any) -> None:
        began = time.monotonic()
        if began >= self._due and not self._engine.worker().connections:
            self._write()
            ended = time.monotonic()
            self._due = ended + 10 * (ended - began)


#: Those of this process, by prefix: extensions of one app have one.
_all: dict[str, SharedStats] = {}
_making = RLock()


def shared_stats_of(prefix: str, process: ServerProcess) -> SharedStats:
    """Return the shared figures of an app, in a process of uWSGI."""
    shared = _all.get(prefix)
    if shared is None:
        with _making:
            shared = _all.setdefault(prefix, SharedStats(prefix, process))
    return shared


def begin_with_workers(prefix: Callable[[], str], metrics: WorkerMetrics, engine: Engine) -> None:
    """Have each worker of uWSGI write what an extension counts, once it serves."""

    def begin() -> None:
        shared = shared_stats_of(prefix(), engine.process)
        show = uwsgi_metrics.listener()
        if show is not None and show not in shared.listeners:
            shared.listeners.append(show)
        shared.begin(engine)

    def after_fork() -> None:
        shared = shared_stats_of(prefix(), engine.process)
        shared.include(metrics)
        if uwsgi.running_engine() == engine.name:
            if engine.name == "suspend":  # whose threads run with a request only
                shared.announce()
            engine.begin_on_loop(begin)

    uwsgi.after_fork(after_fork)
