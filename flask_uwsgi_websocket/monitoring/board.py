"""The board: what all workers of an app have counted, in files that each of them reads.

Each worker writes its own (see sheet.py) each second, on the clock of its connections. Nobody is
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
from ..helpers.log import RateLimit, logger
from ..metrics.observers import Observer
from ..metrics.snapshot import add
from ..metrics.worker import WorkerMetrics
from ..process.fork import own
from ..process.server_process import ServerProcess
from ..rooms.local.directory import Directory, explained
from ..rooms.local.instances import open_place, opened_place
from ..servers import uwsgi
from . import uwsgi_metrics
from .sheet import Found, Sheet, after_end, read_sheets

#: Seconds between two looks whether there is something to write.
INTERVAL, LONGEST_INTERVAL = 1.0, 2.0
#: As many times as long as a look takes pass until the next.
_RARELY = 50


class Board:
    """The board of an app, as this process takes part in it.

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
        self._sheet: Sheet | None = None
        self._started = time.time()
        #: What workers of this number had counted before; None until that was looked for.
        self._before: Any = None
        self._written: list[Any] = []
        #: The figures of what was counted last: it is written, and told.
        self._summed: tuple[Any, dict[str, Any]] = (None, {})
        self._is_over = False
        self._failure = RateLimit()
        #: Are told the prefix and the figures of this worker, whenever it looks at them.
        self.listeners: list[Callable[[str, dict[str, Any]], object]] = []
        #: Whether the others cannot be told, nor are known.
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
            for metrics in self._metrics:
                metrics.observers.append(_AtEachEnd(self._write_and_tell))
        self._look()

    @property
    def number(self) -> int:
        """That of this worker; 0 in what is none."""
        return self._process.worker_id()

    @property
    def instance(self) -> tuple[int, int]:
        """What identifies the instance."""
        return self._process.instance()

    def own(self) -> Found:
        """Return the figures of this process, as of now.

        They are written first: no figure that was told falls when this process is killed.
        """
        with self._lock:
            self._take_over()  # requests are served before the clock runs
            counted = self._counted()
            if self._engine is not None:
                self._write(counted)
            return Found(self._figures(counted), 0.0, True)

    def read(self) -> dict[int, Found]:
        """Return the figures of all workers that have written any, by their numbers."""
        with self._lock:
            if self._directory is not None:
                return read_sheets(self._directory.fileno())
        with opened_place(self.instance, self.prefix) as fd:
            return read_sheets(fd) if fd >= 0 else {}

    # -- on the worker's loop ------------------------------------------------------------

    def _look(self) -> None:
        """Write what is new, and come back."""
        began = time.perf_counter()
        try:
            self._write_and_tell()
        except Exception:
            if self._failure.passes():
                logger.exception("the figures of this worker cannot be told to the others")
        finally:
            took = time.perf_counter() - began
            pause = min(max(INTERVAL, _RARELY * took), LONGEST_INTERVAL)
            if self._engine is not None:  # this is no child
                self._engine.worker().call_later(pause, self._look)

    def _write_and_tell(self) -> None:
        counted = self._counted()
        self._write(counted)
        for listener in self.listeners:
            listener(self.prefix, self._figures(counted)["counted"])

    def _counted(self) -> list[Any]:
        """Return what each extension has counted in this process."""
        return [metrics.snapshot() for metrics in self._metrics]

    def _write(self, counted: list[Any]) -> None:
        with self._lock:
            if self._is_over:
                return
            try:
                directory, sheet = self._open()
                with explained(directory.path):
                    if counted != self._written or not sheet.touch():
                        sheet.write(self._figures(counted))
                        self._written = counted
                self.is_broken = False
            except (OSError, BackplaneUnavailable) as error:
                self._warn(error)

    def _open(self) -> tuple[Directory, Sheet]:
        """Return the directory, opened anew where it has been removed, and the file."""
        if self._directory is not None and not self._directory.state().st_nlink:
            self._close(for_good=False)
        if self._directory is None or self._sheet is None:
            self._directory = open_place(None, self.instance, self.prefix)
            self._sheet = Sheet(self._directory, self.number)
        self._take_over()
        return self._directory, self._sheet

    def _take_over(self) -> None:
        """Count on from what the worker that had this number before has left."""
        if self._before is None:
            found = self.read().get(self.number)
            self._before = {} if found is None else after_end(found.figures["counted"])

    def _figures(self, counted: Sequence[Any]) -> dict[str, Any]:
        """Return what is told of what was counted, which is summed once."""
        of, figures = self._summed
        if of is not counted:
            figures = self._sum(counted)
            self._summed = counted, figures
        return figures

    def _sum(self, counted: Sequence[Any]) -> dict[str, Any]:
        total = self._before or {}
        for each in counted:
            total = add(total, each)
        return {
            "pid": os.getpid(),
            "started": self._started,
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
        self._write_and_tell()
        with self._lock:
            ends = self._engine is not None and self._engine.ends_for_good()
            if ends and not self._is_over:
                self._is_over = True
                self._close(for_good=True)

    def _close(self, for_good: bool) -> None:
        sheet, directory = self._sheet, self._directory
        self._sheet = self._directory = None
        if sheet is not None:
            sheet.close()
        if directory is not None:
            directory.close(for_good)

    def leave_to_parent(self) -> None:
        """Give it up in a child, which is no worker."""
        self._lock = RLock()
        if self._sheet is not None:
            self._sheet.close()
        if self._directory is not None:
            self._directory.leave_to_parent()
        self._sheet = self._directory = self._engine = None


class _AtEachEnd(Observer):
    """Has figures written where the clock stands still while a worker has nothing to do."""

    def __init__(self, write: Callable[[], object]) -> None:
        self._write = write

    def closed(self, client: Any, end: Any) -> None:
        self._write()

    def refused(self, environ: Any, refusal: Any) -> None:
        self._write()


#: Those of this process, by prefix: extensions of one app have one.
_boards: dict[str, Board] = {}
_making = RLock()


def board_of(prefix: str, process: ServerProcess) -> Board:
    """Return the board of an app, in a process of uWSGI."""
    board = _boards.get(prefix)
    if board is None:
        with _making:
            board = _boards.setdefault(prefix, Board(prefix, process))
    return board


def begin_with_workers(prefix: Callable[[], str], metrics: WorkerMetrics, engine: Engine) -> None:
    """Have each worker of uWSGI write what an extension counts, once it serves."""

    def begin() -> None:
        board = board_of(prefix(), engine.process)
        show = uwsgi_metrics.listener()
        if show is not None and show not in board.listeners:
            board.listeners.append(show)
        board.begin(engine)

    def after_fork() -> None:
        board = board_of(prefix(), engine.process)
        board.include(metrics)
        if uwsgi.running_engine() == engine.name:
            if engine.name == "suspend":  # whose threads run with a request only
                board.announce()
            engine.begin_on_loop(begin)

    uwsgi.after_fork(after_fork)
