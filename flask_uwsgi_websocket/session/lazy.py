"""A connection whose handshake waits for the handler's first use of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..codec import Protocol
from ..connection.connection import Connection
from ..connection.limits import Limits
from ..exceptions import ConnectionClosed

#: Seconds after which the handshake waits no longer: a client must not wait for its answer, nor
#: a core be held by one that has left unseen, because a handler waits for something else first.
OPEN_TIME = 1.0


class Unopened:
    """Stands for a :class:`~.connection.connection.Connection` until somebody uses it.

    :param open_: answers the handshake and gives the connection; called once.
    """

    close_code = None
    close_reason = None
    latency = None

    def __init__(self, protocol: Protocol, limits: Limits, open_: Callable[[], Connection]) -> None:
        self.protocol = protocol
        self.limits = limits
        self.connection: Connection | None = None
        #: Why it cannot be opened, once that was tried.
        self.failed: BaseException | None = None
        #: Whether it was opened because :data:`OPEN_TIME` was over.
        self.opened_late = False
        self._withdrawn = False
        #: Called with the connection, which then takes the place of this.
        self.opened: Callable[[Connection], None] = lambda connection: None
        self._open = open_
        # Of threading, which gevent replaces: what opens may let other greenlets run.
        self._lock = threading.RLock()

    def open(self) -> Connection:
        """Return the connection; the handshake is answered, if it has not been.

        :raises ConnectionClosed: when the client has gone.
        :raises BaseException: what went wrong in answering.
        """
        with self._lock:
            if self._withdrawn:
                raise ConnectionClosed(1006, "the handler has refused it")
            if self.failed is not None:
                raise self.failed
            if self.connection is None:
                try:
                    self.connection = self._open()
                except BaseException as error:
                    self.failed = error
                    raise
                self.opened(self.connection)
            return self.connection

    def open_late(self) -> None:
        """Open it, unless that was done or will not be."""
        with self._lock:
            if self.connection is None and not self._withdrawn:
                self.opened_late = True
                with suppress(BaseException):  # the handler gets it when it opens
                    self.open()

    def withdraw(self) -> bool:
        """Give up opening it; False where it is open."""
        with self._lock:
            self._withdrawn = self.connection is None
            return self._withdrawn

    def __getattr__(self, name: str) -> Any:
        return getattr(self.open(), name)
