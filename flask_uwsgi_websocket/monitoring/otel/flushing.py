"""The last thing of a process: OpenTelemetry's SDK sends what it has."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from opentelemetry import metrics, trace

from .instruments import refresh

#: Seconds that it has for that.
FLUSH_TIME = 1.0


class Flush:
    """Has the SDK send what it has, and waits for that a second at most; for any thread.

    It would do so itself by ``atexit``, which uWSGI leaves out under gevent and asyncio. What it
    waits for, in a reload, are the spans of all connections that were open.
    """

    def __init__(self) -> None:
        self._done: threading.Event | None = None
        self._deadline = 0.0
        self._is_over = False

    def __call__(self, *, for_good: bool = False) -> None:
        """Send it, once an earlier call has; not where that got no answer within its second.

        :param for_good: whether the SDK ends with it: then its own threads send, and no other.
        """
        if self._is_over or self._hangs():
            return
        self._is_over = for_good
        providers = (trace.get_tracer_provider(), metrics.get_meter_provider())
        method = "shutdown" if for_good else "force_flush"
        # Those of the SDK have both, those of the API none.
        calls = [getattr(each, method) for each in providers if hasattr(each, method)]
        if calls:
            self._deadline = time.monotonic() + FLUSH_TIME
            self._done = threading.Event()  # with a late patch of gevent's join() may miss the end
            run = threading.Thread(target=_run, args=(calls, self._done), daemon=True)
            run.name = "websocket-flush"
            run.start()
            self._done.wait(FLUSH_TIME)

    def _hangs(self) -> bool:
        """Wait for an earlier call; return whether that has used up its time."""
        return self._done is not None and not self._done.wait(
            max(self._deadline - time.monotonic(), 0)
        )


def _run(calls: list[Callable[[], Any]], done: threading.Event) -> None:
    refresh()
    for call in calls:
        with suppress(Exception):
            call()
    done.set()


#: That of this process.
flush = Flush()
