"""The stop of a worker whose requests run in threads: its clients are told, then uWSGI goes on.

uWSGI's own handlers of the stop signals end the process, or have it wait for requests that do not
end. So the signals are ours while WebSockets are open, and a thread waits for them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress

from ..connection.worker import INTERRUPT_TIME, Worker
from ..helpers.threads import wait_until
from ..process.server_process import ServerProcess
from ..process.signals import (
    RELOAD_SIGNAL,
    StopSignals,
    stop_signals_blocked,
    stop_signals_unblocked,
)

#: Seconds after which a worker that begins to serve has uWSGI's handlers of signals for certain.
_SETTLED = 1.0


class GracefulStop:
    """The stop of this process, for the engine of threads."""

    def __init__(self, process: ServerProcess, worker: Callable[[], Worker]) -> None:
        self._process = process
        self._worker = worker
        self.signals: StopSignals | None = None
        self._stopped_by: int | None = None
        self._stopped_at: float | None = None
        self._handlers: list[int] = []  # the threads of requests that are, or become, WebSockets
        self._has_tasks = False
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Be ready for the signals, in the main thread of a worker."""
        if self.signals is not None or not self._process.gives_signals:
            return
        with suppress(ValueError):  # a sub-interpreter: its main thread belongs to the first app's
            # An app that is loaded for a request comes late: uWSGI has its handlers.
            self.signals = StopSignals(serving=self._process.is_busy())
            run = self._wait_for_signal
            with stop_signals_blocked():  # uWSGI's handlers want its thread
                threading.Thread(target=run, name="websocket-stop", daemon=True).start()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Surround a request that becomes a WebSocket: the stop waits for it."""
        signals = self.signals
        thread = threading.get_ident()
        with self._lock:
            self._handlers.append(thread)
        self._take_signals()
        try:
            # uWSGI's threads block all of them: programs that are started here would inherit it.
            with stop_signals_unblocked() if signals is not None else nullcontext():
                yield
        finally:
            self._end_request(signals, thread)

    def _end_request(self, signals: StopSignals | None, thread: int) -> None:
        if self._stopped_by is not None and self._handlers == [thread]:
            self._worker().run_at_end()  # uWSGI exits after it, and may do so without hooks
        with self._lock:
            self._handlers.remove(thread)
            if signals is None or not self._gives_signals_back():
                return
            signals.give_back()
            stopped_by = self._stopped_by
        if stopped_by is not None:
            os.kill(os.getpid(), stopped_by)

    def expect_tasks(self) -> None:
        """Stop background work too, from the first on."""
        with self._lock:
            is_first, self._has_tasks = not self._has_tasks, True
        if is_first and self._process.gives_signals:
            self._process.at_exit(self._end_tasks)
            self._worker().call_later(_SETTLED, self._take_signals)

    def _end_tasks(self) -> None:
        """Tell background work that the process exits, and wait for it."""
        self._worker().close_all(1012)
        self._wait_for_tasks(self._stopped_at or time.monotonic())

    def _has_one_thread(self) -> bool:
        return self._process.cores() <= 1

    def _gives_signals_back(self) -> bool:
        """Return whether uWSGI's handlers serve between two WebSockets, with the thread in C.

        Not with background work: where a request runs, uWSGI exits without its hooks.
        """
        return self._has_one_thread() and not self._has_tasks

    def _take_signals(self) -> None:
        with self._lock:
            if self.signals is not None and self._stopped_by is None:
                self.signals.take()

    def _wait_for_signal(self) -> None:
        assert self.signals is not None
        signum = self.signals.wait()
        self._stopped_at = time.monotonic()
        with self._lock:
            self._stopped_by = signum
            is_late = not self._handlers  # the last one has just ended
            gives_back = self._gives_signals_back()
        finishes = not self._has_one_thread() and self._process.drains
        self._end_early(signum)
        if finishes:
            # Whatever the signal was: uWSGI takes nothing new, and ends with its requests.
            self.signals.hand_back(RELOAD_SIGNAL)
        elif gives_back and is_late:
            os.kill(os.getpid(), signum)
        self._end_websockets(signum)
        self._wait_for_tasks(self._stopped_at)
        self._worker().run_at_end()
        self._exit_if_held(signum, self._stopped_at)
        if finishes:
            if signum != RELOAD_SIGNAL and self._process.is_busy():
                self._process.exit(signum)  # where uWSGI would have exited at once
        elif not gives_back:
            self.signals.hand_back(signum)

    def _end_early(self, signum: int) -> None:
        """Do the last things first where nobody replaces us: a stop is often told twice, by the
        master and by whoever signals all processes, and then uWSGI exits at once."""
        worker = self._worker()
        code = worker.code_for(signum)
        if code == 1001 and worker.at_end:
            worker.close_all(code)
            worker.run_at_end()

    def _end_websockets(self, signum: int) -> None:
        worker = self._worker()
        worker.close_all(worker.code_for(signum))
        # For the requests, not for connections: some may be in a handshake.
        began = time.monotonic()
        wait_until(lambda: not self._handlers or time.monotonic() >= began + worker.grace)
        # A handler that blocks in recv hears of our Close by its client's answer. Where none came,
        # the end of file lets it run its `finally` before the process goes.
        worker.interrupt_all()
        wait_until(lambda: not self._handlers, INTERRUPT_TIME)

    def _wait_for_tasks(self, since: float) -> None:
        """Wait for background work that was told to end ``since`` then."""
        worker = self._worker()
        wait_until(lambda: not worker.tasks or time.monotonic() >= since + worker.grace)

    def _exit_if_held(self, signum: int, since: float) -> None:
        """Exit where uWSGI would wait for what nothing can interrupt: handlers that sleep.

        An old uWSGI that has begun by itself waits in one thread for all others: its handler, in
        one of them, would wait for that.
        """
        if self._handlers or (self._worker().recycling and not self._process.drains):
            if signum == RELOAD_SIGNAL:
                self._wait_for_other_requests(since + self._process.mercy)
            self._process.exit(signum)

    def _wait_for_other_requests(self, deadline: float) -> None:
        """Wait until nothing but WebSockets keeps the threads busy, for a while: what a request
        sends between two steps of Python's is not seen."""
        busy_at = time.monotonic()

        def are_over() -> bool:
            nonlocal busy_at
            if self._process.busy_threads().difference(self._handlers):
                busy_at = time.monotonic()
            return time.monotonic() >= min(deadline, busy_at + INTERRUPT_TIME)

        wait_until(are_over)
