"""The process that an engine runs in, which a server has started."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any


class ServerProcess:
    """The process that an engine runs in; by itself one of a server that offers little."""

    #: Whether to take the stop signals over from the server's own handlers.
    gives_signals = False

    def suspend(self, readable: int = -1, seconds: int = 0) -> None:
        """Park the calling request until its greenlet is switched to, or a descriptor is readable.

        :param readable: only one: of several that are ready at the same moment, uWSGI closes all
            but the first (core/async.c: "unknown fd, remove it (for safety)").
        :param seconds: at most; 0: for ever. Only after the handshake: when they have passed, uWSGI
            leaves a mark on the request for its next wait, which may be to send a response.
        """
        raise NotImplementedError

    def cores(self) -> int:
        """Return how many requests run at a time; 0 where nobody counts."""
        return 0

    def max_websockets(self) -> int:
        """Return how many WebSockets hold all cores; 0 where they hold none."""
        return 0

    def cores_flag(self) -> str:
        """Return the option that raises :meth:`cores`."""
        return ""

    def bind_request(self, greenlet: Any) -> None:
        """Let another greenlet use what serves the request of the calling one."""

    def unbind_request(self, greenlet: Any) -> None:
        """Undo :meth:`bind_request`."""

    def unwatch_request(self, epoll: int) -> None:
        """Take the descriptor of the calling request out of an epoll."""

    def listeners(self) -> list[int]:
        """Return the descriptors on which new connections arrive."""
        return []

    def count_websockets(self, count: int) -> None:
        """Take note of how many WebSockets this process has open, or will have in a moment."""

    def worker_id(self) -> int:
        """Return the number of this worker, from 1 on; 0 in a child, or where nobody counts."""
        return 0

    def parent_of_workers(self) -> int:
        """Return the id of the process that all workers of this instance have in common."""
        return os.getpid()

    def instance(self) -> tuple[int, int]:
        """Identify the instance that this process serves in, for all its workers and reloads.

        :return: the id of the workers' parent, and its start in the kernel's ticks, since ids are
            used again; 0 where nothing tells that.
        """
        parent = self.parent_of_workers()
        return parent, started_at(parent)

    def is_serving(self) -> bool:
        """Return whether the app has been imported."""
        return True

    def should_recycle(self) -> bool:
        """Return whether this process has served for as long, or grown as large, as it may."""
        return False

    def ends_for_good(self, signum: int) -> bool:
        """Return whether nobody replaces this process, though the signal may mean a reload."""
        return False

    def is_interrupted(self) -> bool:
        """Return whether the handler of SIGINT, that of the server, runs in the calling thread."""
        return False

    def is_busy(self) -> bool:
        """Return whether a request is running, or a connection was accepted for one."""
        return False

    def busy_threads(self) -> set[int]:
        """Return the threads for requests in which Python is running now."""
        return set()

    @property
    def mercy(self) -> float:
        """Seconds that a process which is to end has for its requests."""
        return 0

    @property
    def drains(self) -> bool:
        """Whether the process, told to reload, takes no new connections and exits when the requests
        of all threads have ended."""
        return False

    def exit(self, signum: int) -> None:
        """Exit at once, as a worker that the signal has stopped."""

    def at_exit(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` before this process exits."""
        process = os.getpid()

        def run() -> None:
            if os.getpid() == process:  # not a child that ends
                callback()

        self._call_at_exit(run)

    def _call_at_exit(self, callback: Callable[[], None]) -> None:
        """Do the same, in children too."""


def started_at(pid: int) -> int:
    """Return when a process started, in the kernel's ticks; 0 where nothing tells that."""
    return _stat(pid, 22)


def parent_of(pid: int) -> int:
    """Return the id of a process' parent; 0 where it has none, or nothing tells it."""
    return _stat(pid, 4)


def _stat(pid: int, field: int) -> int:
    """Return a numeric field of proc_pid_stat(5), by its number there; 0 where there is none."""
    with suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
        # The second field, in parentheses, may have spaces in it; the third is the first behind.
        return int(file.read().rpartition(b")")[2].split()[field - 3])
    return 0
