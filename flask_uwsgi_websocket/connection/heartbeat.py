"""The clock of a connection: pings, and handlers that do not notice the end."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..exceptions import ConnectionClosed
from .closing import Closing
from .fast_io import MSG_DONTWAIT


class Heartbeat(Closing):
    """The part of a connection that the worker's clock drives."""

    __slots__ = ("_alive_at", "_ping_at", "_pinged", "interrupt", "latency")

    client: Any  # the whole connection has it

    def __init__(self, *opened: Any) -> None:
        super().__init__(*opened)
        #: Round trip of the last ping, in seconds.
        self.latency: float | None = None
        #: Breaks into the handler, wherever it waits. Set while the handler runs.
        self.interrupt: Callable[[], object] | None = None
        self._pinged: bytes | None = None  # the payload of the unanswered ping
        self._ping_at = self._alive_at = time.monotonic()

    def tick(self, now: float) -> None:
        """Look after the connection, whatever its handler does; for the worker's clock."""
        if self.ended:
            self._hurry(now)
        elif self.limits.ping_interval > 0:
            self._heartbeat(now)

    def _heartbeat(self, now: float) -> None:
        """Ping when due; cut the connection when nothing was heard for too long."""
        heard, self._saw_traffic = self._saw_traffic, False
        if self._pinged is None:
            self._ping_when_due(now)
        elif heard or self._read_pausing:
            # Whoever sends or reads is alive, and a pong that we do not read is not late. It gets
            # other pings all the same: proxies cut what is silent, and a reset shows in a write.
            self._alive_at = now
            if not self._unsent:
                self._ping_when_due(now)
        elif now - max(self._ping_at, self._alive_at) < self.limits.ping_timeout:
            pass
        elif self._has_input():
            self._alive_at = now  # its pong may be there, and nobody has got to read it
        else:
            with self._lock:
                if not self.ended:
                    frame = self.protocol.close(1011, "ping timeout")
                    self._send_close(frame, 1006, "ping timeout")
            self.abort()

    def _has_input(self) -> bool:
        """Return whether the peer has sent what nobody has read yet."""
        try:
            return bool(self.socket.recv(1, MSG_DONTWAIT | socket.MSG_PEEK))
        except OSError:
            return False

    def _ping_when_due(self, now: float) -> None:
        if now - self._ping_at >= self.limits.ping_interval:
            self._pinged = os.urandom(4)
            self._ping_at = now
            with self._lock:  # no Close comes between, which nothing may follow
                if not self.ended:
                    self._write_control(self.protocol.ping(self._pinged))
                    self._show_life()

    def _show_life(self) -> None:
        """Send what takes the place of a ping for a client whose program sees none, if any."""
        sign = getattr(self.client, "sign_of_life", None)
        if sign is not None:
            with suppress(ConnectionClosed):
                self.post(None, sign)

    def _ponged(self, data: bytes) -> None:
        if data == self._pinged:
            self._pinged = None
            self.latency = time.monotonic() - self._ping_at
            if self.route is not None:
                self.route.pinged(self.latency)

    def _hurry(self, now: float) -> None:
        """Interrupt a handler that does not notice the end, after ``timeout`` seconds."""
        if self._closers or (self._messages and self._replying):
            # It waits for the peer's Close, or still works through its messages.
            self._replying = False
            self._ended_at = now
        elif self.interrupt is not None and now - self._ended_at >= self.limits.timeout:
            self._ended_at = now
            self.interrupt()
