"""The package's logger, and how to log what may come often or go wrong."""

from __future__ import annotations

import logging
import sys
import time
import traceback
from contextlib import suppress

logger = logging.getLogger("flask_uwsgi_websocket")

#: Seconds between two warnings of the same kind.
WARNING_INTERVAL = 60.0


def level_of(value: str | int | None) -> int | None:
    """Return the number of a level that may be written as its name; ValueError for anything else.

    None is for no lines, and so is 0, which the environment can have.
    """
    level = logging.getLevelName(value.upper()) if isinstance(value, str) else value
    if level is not None and (not isinstance(level, int) or isinstance(level, bool) or level < 0):
        raise ValueError(f"{value!r} is no level of logging")
    return level or None


def log_exception(
    message: str, *arguments: object, error: BaseException, logger: logging.Logger = logger
) -> None:
    """Log an exception with its traceback, as of the module that calls this; never raise."""
    try:
        logger.error(message, *arguments, exc_info=error, stacklevel=2)
    except BaseException:  # of a filter or handler of the app's, or from the exception itself
        with suppress(BaseException):
            print(message % arguments, "(logging it has failed)", file=sys.__stderr__)
            traceback.print_exception(error, file=sys.__stderr__)


class RateLimit:
    """Limits warnings of what may happen with each connection.

    :param most: how many may follow within :data:`WARNING_INTERVAL` of the first.
    """

    def __init__(self, most: int = 1) -> None:
        self._most = most
        self._began = -WARNING_INTERVAL
        self._count = 0

    def passes(self) -> bool:
        """Count one more, and return whether to warn of it."""
        now = time.monotonic()
        if now - self._began >= WARNING_INTERVAL:
            self._began, self._count = now, 0
        self._count += 1
        return self._count <= self._most
