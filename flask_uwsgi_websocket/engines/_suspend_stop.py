"""The stop of a worker in uWSGI's async mode: its clients are told, then uWSGI ends the process.

uWSGI's own handlers of the stop signals end it at once. So the signals are Python's while
WebSockets are open: of these each wakes once a second, which is when Python gets to know.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..connection.worker import INTERRUPT_TIME, Worker
from ..process.signals import STOP_SIGNALS, action_of, set_action


class CooperativeStop:
    """The stop of this process, for the engine whose requests suspend."""

    def __init__(self, worker: Callable[[], Worker]) -> None:
        self._worker = worker
        self._requests = 0  # that are, or become, WebSockets
        self._theirs: dict[int, Any] = {}  # what uWSGI does on the signals
        #: The signal that has come.
        self.signum: int | None = None

    @contextmanager
    def request(self) -> Iterator[None]:
        """Surround a request that becomes a WebSocket: the stop waits for it."""
        self._requests += 1
        if self._requests == 1 and self.signum is None:
            self._take_signals()
        try:
            yield
        finally:
            self._requests -= 1
            if not self._requests:
                self._end()

    def heed(self) -> None:
        """Tell all clients, once the signal has come: in a request, which holds no lock."""
        signum, worker = self.signum, self._worker()
        if signum is not None and worker.stopping is None:
            # uWSGI's own handler, in C: nothing that a request of the app does holds it up.
            set_action(signal.SIGALRM, self._theirs[signum])
            signal.setitimer(signal.ITIMER_REAL, worker.grace + INTERRUPT_TIME)
            worker.close_all(worker.code_for(signum))

    def _take_signals(self) -> None:
        with suppress(ValueError):  # a sub-interpreter, or another thread
            for signum in STOP_SIGNALS:
                theirs = action_of(signum)
                signal.signal(signum, self._note)
                self._theirs[signum] = theirs

    def _note(self, signum: int, frame: Any) -> None:
        # Nothing else: what it interrupts may be half-way through a frame.
        self.signum = self.signum or signum

    def _end(self) -> None:
        """Let uWSGI have its signals again, and the one that has come."""
        if self.signum is not None:
            self._worker().run_at_end()
        for signum, theirs in self._theirs.items():
            set_action(signum, theirs)
        self._theirs.clear()
        if self.signum is not None:
            os.kill(os.getpid(), self.signum)
