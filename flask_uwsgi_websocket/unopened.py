"""A connection whose handshake waits for the handler's first use of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from .codec import Protocol
from .engines.base import Connection, Limits


class Unopened:
    """Stands for a :class:`~.engines.base.Connection` until somebody uses it.

    :param open_: answers the handshake and gives the connection; called once.
    """

    close_code = None
    close_reason = None
    latency = None

    def __init__(self, protocol: Protocol, limits: Limits, open_: Callable[[], Connection]) -> None:
        self.protocol = protocol
        self.limits = limits
        self.connection: Connection | None = None
        #: Called with the connection, which then takes the place of this.
        self.opened: Callable[[Connection], None] = lambda connection: None
        self._open = open_
        # Of threading, which gevent replaces: what opens may let other greenlets run.
        self._lock = threading.RLock()

    def open(self) -> Connection:
        """The connection; the handshake is answered, if it has not been.

        :raises ConnectionClosed: when the client has gone.
        """
        with self._lock:
            if self.connection is None:
                self.connection = self._open()
                self.opened(self.connection)
            return self.connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self.open(), name)
