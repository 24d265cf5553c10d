"""What an engine asks of the process that it runs in, and how a process is told to stop."""

from __future__ import annotations

import logging
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

logger = logging.getLogger("flask_uwsgi_websocket")


def log_exception(
    message: str, *arguments: object, error: BaseException, logger: logging.Logger = logger
) -> None:
    """Log an exception with its traceback. Nothing comes of it that the caller must deal with."""
    try:
        logger.error(message, *arguments, exc_info=error)
    except BaseException:  # of a filter or handler of the app's, or from the exception itself
        with suppress(BaseException):
            print(message % arguments, "(logging it has failed)", file=sys.__stderr__)
            traceback.print_exception(error, file=sys.__stderr__)


#: Seconds between two warnings of the same kind.
WARNING_INTERVAL = 60.0

#: Signals that stop a worker, and the close code that tells its clients (RFC 6455 7.4.1, and
#: IANA's registry for 1012): going away for good, or back in a moment.
STOP_SIGNALS = {signal.SIGINT: 1001, signal.SIGTERM: 1012}
if hasattr(signal, "SIGHUP"):  # not on Windows
    STOP_SIGNALS[signal.SIGHUP] = 1012

#: Has a worker end its requests and be replaced.
RELOAD_SIGNAL = getattr(signal, "SIGHUP", signal.SIGTERM)


class RateLimit:
    """Whether to warn again of what happens with each connection."""

    def __init__(self) -> None:
        self._warned_at = -WARNING_INTERVAL

    def passes(self) -> bool:
        """True once in :data:`WARNING_INTERVAL`."""
        now = time.monotonic()
        if now - self._warned_at < WARNING_INTERVAL:
            return False
        self._warned_at = now
        return True


class Host:
    """What the process that runs us must do for an engine. This one can nothing."""

    #: Whether the signals that stop a process are ours to take.
    gives_signals = False

    def suspend(self) -> None:
        """Park the calling request until its greenlet is switched to."""
        raise NotImplementedError

    def wait_for_descriptors(
        self, readable: tuple[int, ...], writable: tuple[int, ...], seconds: int = 0
    ) -> None:
        """Park the calling request until one of the descriptors is ready.

        :param seconds: at most; 0: for ever. Only after the handshake: when they have passed, uWSGI
            leaves a mark on the request for its next wait, which may be to send a response.
        """
        raise NotImplementedError

    def cores(self) -> int:
        """How many requests run at a time; 0 where nobody counts."""
        return 0

    def websockets_hold_cores(self) -> bool:
        """Whether a WebSocket counts as a request for as long as it is open."""
        return False

    def cores_flag(self) -> str:
        """The option that raises :meth:`cores`."""
        return ""

    def bind_request(self, greenlet: Any) -> None:
        """Let another greenlet use what serves the request of the calling one."""

    def unbind_request(self, greenlet: Any) -> None:
        """No longer."""

    def unwatch_request(self, epoll: int) -> None:
        """Take the descriptor of the calling request out of an epoll."""

    def listeners(self) -> list[int]:
        """Descriptors on which new connections arrive."""
        return []

    def count(self, connections: int) -> None:
        """Take note of how many WebSockets this process has open, or will have in a moment."""

    def is_serving(self) -> bool:
        """Tell whether the app has been imported."""
        return True

    def is_worn_out(self) -> bool:
        """Tell whether this process has served for as long, or grown as large, as it may."""
        return False

    def recycle(self) -> None:
        """Have another process take the place of this one, as a reload would."""

    def ends_for_good(self, signum: int) -> bool:
        """Tell whether nobody replaces this process, though the signal may mean a reload."""
        return False

    def is_busy(self) -> bool:
        """Tell whether a request is running, or a connection was accepted for one."""
        return False

    def busy_threads(self) -> set[int]:
        """Return the threads for requests in which Python is running now."""
        return set()

    @property
    def mercy(self) -> float:
        """Seconds that a process which is to end has for its requests."""
        return 0

    @property
    def finishes(self) -> bool:
        """Whether the process, told to reload, takes no new connections and exits when the requests
        of all threads have ended."""
        return False

    def exit(self, signum: int) -> None:
        """Exit at once, as a worker that the signal has stopped."""

    def at_exit(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` before the process exits."""
