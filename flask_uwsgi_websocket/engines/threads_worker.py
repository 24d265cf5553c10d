"""Threads and processes: the helper thread of a worker, which looks after its connections."""

from __future__ import annotations

import errno
import heapq
import selectors
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from itertools import count

from ..connection.base import Callback
from ..connection.worker import Worker
from ..helpers.log import log_exception
from ..process.server_process import ServerProcess
from ..process.signals import RELOAD_SIGNAL, StopSignals, stop_signals_blocked

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
#: What is called for the one, and for the other.
Watch = tuple[Callback | None, Callback | None]
NOTHING: Watch = (None, None)


class ThreadsWorker(Worker):
    """The connections of this process, and the thread that looks after them."""

    def __init__(self, process: ServerProcess) -> None:
        super().__init__(process)
        self.signals: StopSignals | None = None
        self.stopped = threading.Event()
        self._soon: deque[Callback] = deque()
        self._timers: list[tuple[float, int, Callback]] = []
        self._number = count()  # timers of the same moment keep their order
        self._make_selector()

    def _make_selector(self) -> None:
        # Nobody but the loop's thread uses it: an exception that strikes another thread
        # (PyThreadState_SetAsyncExc) in the middle would leave it in two minds.
        self._selector = selectors.DefaultSelector()
        self._alarm, self._bell = socket.socketpair()  # interrupts a wait
        self._alarm.setblocking(False)
        self._bell.setblocking(False)
        self._watched: dict[int, Watch] = {}
        self._watch(self._alarm.fileno(), lambda: self._alarm.recv(4096), None)

    def start(self) -> None:
        super().start()
        with stop_signals_blocked():
            threading.Thread(target=self._run, name="websocket-helper", daemon=True).start()

    def close_all(self, code: int) -> None:
        super().close_all(code)
        self.stopped.set()

    def reload(self) -> None:
        if self.signals is not None:
            self.signals.simulate(RELOAD_SIGNAL)
        else:
            self.close_all(1012)

    def call_soon(self, callback: Callback) -> None:
        self._soon.append(callback)
        if not self.on_loop():
            with suppress(BlockingIOError):  # it rings already
                self._bell.send(b"!")

    def _call_later(self, delay: float, callback: Callback) -> None:
        heapq.heappush(self._timers, (time.monotonic() + delay, next(self._number), callback))

    def _watch(self, fd: int, read: Callback | None, write: Callback | None) -> None:
        wanted = read, write
        if self._watched.get(fd, NOTHING) == wanted:
            return
        if self._watched.pop(fd, None):  # not modified: it may have been closed, and be another
            self._selector.unregister(fd)
        events = READ * (read is not None) | WRITE * (write is not None)
        if events:
            try:
                self._selector.register(fd, events)
            except OSError as error:
                if error.errno != errno.EBADF:  # another thread has closed it just now
                    raise
            else:
                self._watched[fd] = wanted

    def leave_to_parent(self) -> None:
        for shared in (self._selector, self._alarm, self._bell):
            shared.close()
        self._make_selector()
        super().leave_to_parent()

    def _run(self) -> None:
        self.thread = self.get_ident()
        while True:
            for fd, events in self._wait():
                self._dispatch(fd, READ & events, 0)
                self._dispatch(fd, WRITE & events, 1)
            for _ in range(len(self._soon)):
                self._call(self._soon.popleft())
            self._run_timers(time.monotonic())

    def _wait(self) -> list[tuple[int, int]]:
        wait = self.tick_interval
        if self._soon:
            wait = 0
        elif self._timers:
            wait = min(max(self._timers[0][0] - time.monotonic(), 0), wait)
        try:
            return [(key.fd, events) for key, events in self._selector.select(wait)]
        except OSError:  # where it is select(): a descriptor was closed meanwhile
            return []

    def _dispatch(self, fd: int, happened: int, index: int) -> None:
        callback = self._watched.get(fd, NOTHING)[index]
        if happened and callback is not None:
            self._call(callback)

    def _run_timers(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            self._call(heapq.heappop(self._timers)[2])

    def _call(self, callback: Callback) -> None:
        try:
            callback()
        except Exception as error:
            # Whatever it was, the other connections still need this thread.
            log_exception("the WebSocket helper thread goes on after an error", error=error)
