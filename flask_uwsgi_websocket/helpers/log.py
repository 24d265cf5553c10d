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
    """Limits warnings of what happens with each connection to one in :data:`WARNING_INTERVAL`."""

    def __init__(self) -> None:
        self._warned_at = -WARNING_INTERVAL

    def passes(self) -> bool:
        """Tell whether to warn now."""
        now = time.monotonic()
        if now - self._warned_at < WARNING_INTERVAL:
            return False
        self._warned_at = now
        return True
