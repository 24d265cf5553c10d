"""All connections of an engine in one worker process."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from ..helpers.log import RateLimit, log_exception, logger
from ..process.server_process import ServerProcess
from ..process.signals import RELOAD_SIGNAL, STOP_SIGNALS
from .base import Loop
from .connection import Connection
from .detached import DetachedRequest

#: Seconds that handlers have for their ``finally`` blocks, when a worker that stops has
#: interrupted them.
INTERRUPT_TIME = 0.5


def leave_alone() -> None:
    """Let a task go on when the worker stops."""


def run_last(work: Callable[[], object]) -> None:
    """Do one of the last things; log what it raises: the others, and the stop itself, go on."""
    try:
        work()
    except Exception as error:
        log_exception("the worker goes on to its end after an error", error=error)


class Worker(Loop):
    """The connections of one engine in one worker process, and the loop that serves them."""

    connections: dict[Connection, None]
    #: Seconds between two looks at all connections.
    tick_interval = 1.0

    def __init__(self, process: ServerProcess) -> None:
        super().__init__()
        self.process = process
        #: Whose handler has still to open, or to refuse, its connection.
        self.expected: set[Any] = set()
        #: Requests that run on as WebSockets, and are detached; see detached.py.
        self.detached: dict[DetachedRequest, None] = {}
        #: What runs beside all requests, and what tells each that the worker stops.
        self.tasks: dict[Any, Callable[[], object]] = {}
        #: What to call when it has stopped and is about to exit.
        self.at_end: list[Callable[[], Any]] = []
        #: The close code that clients get, once the worker stops.
        self.stopping: int | None = None
        #: Whether it does so by itself; uWSGI may have begun to end it then.
        self.recycling = False
        self._full = RateLimit()
        self._due = 0.0  # when the next tick should come
        self._late = False
        self._longest = 0.0  # of the timeouts of all connections

    def start(self) -> None:
        """Begin to look after connections; called once, before the first is opened."""
        # glibc gives blocks above its mmap threshold back to the kernel at once, and each large
        # read then pays for fresh pages. Freeing one of 4 MiB raises the threshold (it is dynamic).
        bytearray(4 << 20)
        self._due = time.monotonic() + self.tick_interval
        self.call_later(self.tick_interval, self._tick)

    def add(self, connection: Connection) -> None:
        limits = connection.limits
        waits = [w for w in (limits.ping_interval, limits.ping_timeout, limits.timeout) if w > 0]
        self.tick_interval = min([self.tick_interval, *(w / 4 for w in waits)])
        self._longest = max(self._longest, limits.timeout)
        self.connections[connection] = None
        self._count()
        if len(self.connections) == self.process.max_websockets():
            self._warn_full()
        if self.stopping is not None:
            connection.start_closing(self.stopping)

    def expect(self, attempt: Any) -> None:
        """Keep room for a connection until the attempt is taken out of :attr:`expected`."""
        self.expected.add(attempt)
        self._count()

    def _count(self) -> None:
        self.process.count_websockets(len(self.connections) + len(self.expected))

    def add_task(self, task: Any, end: Callable[[], object], timeout: float) -> None:
        """Know background work until it leaves :attr:`tasks`; it has ``timeout`` seconds to end."""
        self.tasks[task] = end
        self._longest = max(self._longest, timeout)
        if self.stopping is not None:
            end()

    def _warn_full(self) -> None:
        if self._full.passes():
            logger.warning(
                "%d WebSockets hold all that this uWSGI worker serves at a time: new connections, "
                "HTTP too, wait until one closes. Raise %s, or --processes.",
                len(self.connections),
                self.process.cores_flag(),
            )

    def code_for(self, signum: int) -> int:
        """Return what to tell clients once the signal has come."""
        is_replaced = self.recycling and signum == RELOAD_SIGNAL
        if not is_replaced and self.process.ends_for_good(signum):
            return 1001
        return STOP_SIGNALS[signal.Signals(signum)]

    def close_all(self, code: int) -> None:
        """Tell every client that the worker stops; new ones are told at once."""
        if self.stopping is None:
            self.stopping = code
            for end in tuple(self.tasks.values()):
                end()  # once: a second time it would break into their `finally` blocks
        for connection in tuple(self.connections):
            connection.start_closing(code)

    def run_at_end(self) -> None:
        """Do the last things, which may wait."""
        for work in self.at_end:
            run_last(work)

    def interrupt_all(self) -> None:
        """Break into every handler that still runs, and cut those that are through."""
        for connection in tuple(self.connections):
            if connection.interrupt is not None:
                connection.interrupt()
            else:
                connection.abort()

    def leave_to_parent(self) -> None:
        """Give up all connections, in a child process; see fork.py."""
        for connection in tuple(self.connections):
            connection.leave_to_parent()
        self.connections.clear()
        self._unflushed.clear()
        self.expected.clear()
        self.detached.clear()
        self.tasks.clear()

    @property
    def grace(self) -> float:
        """Seconds for which a worker that stops waits for its handlers, and for what Flask and
        middlewares do after them."""
        timeouts = (connection.limits.timeout for connection in self.connections)
        return max(timeouts, default=self._longest if self.detached or self.tasks else 0)

    @property
    def idle(self) -> bool:
        """Whether nothing would be cut short if the worker stopped now."""
        return not self.connections and not self.detached and not self.tasks

    def _tick(self) -> None:
        self.call_later(self.tick_interval, self._tick)
        self._flush_all()  # whatever interrupted flush_soon()
        self._count()
        now = time.monotonic()
        # After a stall (a blocking view, SIGSTOP) the answers of peers lie unread, and handlers
        # have not heard: the next tick judges them.
        self._late = not self._late and now - self._due > self.tick_interval
        self._due = now + self.tick_interval
        if self._late:
            return
        for connection in tuple(self.connections):
            try:
                connection.tick(now)
            except Exception as error:  # of one connection: the others need the clock, too
                log_exception("the WebSocket clock goes on after an error", error=error)
        if self.stopping is None and not self.recycling and self.process.should_recycle():
            self.recycle()

    def recycle(self) -> None:
        """Have another process take the place of this one, whatever uWSGI does by itself.

        Clients are told by what handles the signal, when uWSGI takes no new connections: they come
        again at once, and this worker must not be the one that they find.
        """
        self.recycling = True
        self.reload()
        # As the master would, had it sent the signal: a request must not keep the process for ever.
        self.call_later(self.process.mercy, lambda: self.process.exit(RELOAD_SIGNAL))

    def reload(self) -> None:
        """Have done what the signal to reload does, which is to tell the clients too."""
        os.kill(os.getpid(), RELOAD_SIGNAL)
