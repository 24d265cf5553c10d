"""All connections of an engine in one worker process."""

from __future__ import annotations

import os
import signal
import time
from _thread import get_ident
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from ..helpers.log import RateLimit, logger
from ..process.server_process import ServerProcess
from ..process.signals import RELOAD_SIGNAL, STOP_SIGNALS
from .connection import Connection
from .detached import DetachedRequest
from .sending import Sending

#: What a loop calls.
Callback = Callable[[], object]

#: Seconds that handlers have for their ``finally`` blocks, when a worker that stops has
#: interrupted them.
INTERRUPT_TIME = 0.5


class Worker(ABC):
    """The connections of one engine in one worker process, and the loop that serves them.

    The loop is asyncio's, gevent's hub, or that of a thread beside the handlers. Its callbacks must
    not wait: all connections would.
    """

    #: Seconds between two looks at all connections.
    tick_interval = 1.0
    #: The thread that the loop runs in.
    thread = 0
    get_ident = staticmethod(get_ident)

    def __init__(self, process: ServerProcess) -> None:
        self.process = process
        self.connections: set[Connection] = set()
        #: Whose handler has still to open, or to refuse, its connection.
        self.expected: set[Any] = set()
        #: Requests that run on as WebSockets, and are detached; see detached.py.
        self.detached: set[DetachedRequest] = set()
        #: What runs beside all requests, and what tells each that the worker stops.
        self.tasks: dict[Any, Callable[[], object]] = {}
        #: The close code that clients get, once the worker stops.
        self.stopping: int | None = None
        #: Whether it does so by itself; uWSGI may have begun to end it then.
        self.recycling = False
        self._unflushed: deque[Sending] = deque()
        self._will_flush = False
        self._full = RateLimit()
        self._due = 0.0  # when the next tick should come
        self._late = False
        self._longest = 0.0  # of the timeouts of all connections

    # -- the loop, which any thread may use --------------------------------------------

    def on_loop(self) -> bool:
        """Tell whether this is the loop's thread."""
        return self.get_ident() == self.thread

    @abstractmethod
    def call_soon(self, callback: Callback) -> None:
        """Call ``callback`` in the loop's next turn, behind those of earlier calls."""

    def run_on_loop(self, function: Callable[..., object], *args: Any) -> None:
        """Call it at once in the loop's thread, from another one in the loop's next turn."""
        if self.on_loop():
            function(*args)
        else:
            self.call_soon(partial(function, *args))

    def call_later(self, delay: float, callback: Callback) -> None:
        """Call ``callback`` on the loop, ``delay`` seconds from now."""
        self.run_on_loop(self._call_later, delay, callback)

    def watch(self, fd: int, read: Callback | None = None, write: Callback | None = None) -> None:
        """Call ``read`` while a descriptor is readable, ``write`` while it is writable.

        Takes the place of an earlier watch. One call more than is due may come, so the descriptor
        should be non-blocking. From another thread the watch begins in the loop's next turn.
        """
        self.run_on_loop(self._watch, fd, read, write)

    def unwatch(self, fd: int) -> None:
        """Forget a descriptor, before it is closed.

        From another thread that takes until the loop's next turn: close it by :meth:`call_soon`.
        """
        self.watch(fd)

    @abstractmethod
    def _call_later(self, delay: float, callback: Callback) -> None:
        """:meth:`call_later`, on the loop."""

    @abstractmethod
    def _watch(self, fd: int, read: Callback | None, write: Callback | None) -> None:
        """:meth:`watch`, on the loop."""

    # -- the connections ---------------------------------------------------------------

    def flush_soon(self, connection: Sending) -> None:
        """Flush a connection in the loop's next turn, with all others for which that is asked."""
        self._unflushed.append(connection)
        if not self._will_flush:
            self._will_flush = True
            self.call_soon(self._flush_all)

    def _flush_all(self) -> None:
        self._will_flush = False  # first: who comes meanwhile asks for another turn
        for _ in range(len(self._unflushed)):
            self._unflushed.popleft().flush()

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
        self.connections.add(connection)
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
        """Know background work until it is taken out of :attr:`tasks`.

        :param timeout: seconds that it has, once the worker stops.
        """
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
        if self.process.ends_for_good(signum):
            return 1001
        return STOP_SIGNALS[signal.Signals(signum)]

    def close_all(self, code: int) -> None:
        """The worker stops: tell every client. New ones are told at once."""
        if self.stopping is None:
            self.stopping = code
            for end in tuple(self.tasks.values()):
                end()  # once: a second time it would break into their `finally` blocks
        for connection in tuple(self.connections):
            connection.start_closing(code)

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
            except Exception:  # of one connection: the others need the clock all the same
                logger.exception("the WebSocket clock goes on after an error")
        if self.stopping is None and self.process.should_recycle():
            self.recycle()

    def recycle(self) -> None:
        """Have another process take the place of this one, whatever uWSGI does by itself."""
        self.recycling = True
        self.close_all(1012)
        self.reload()
        # As the master would, had it sent the signal: a request must not keep the process for ever.
        self.call_later(self.process.mercy, lambda: self.process.exit(RELOAD_SIGNAL))

    def reload(self) -> None:
        """Have done what the signal to reload does."""
        os.kill(os.getpid(), RELOAD_SIGNAL)
