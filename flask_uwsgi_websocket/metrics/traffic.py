"""What went over one connection."""

from __future__ import annotations

import time


class Traffic:
    """The counters of one connection; ``_traffic.h`` has the same in C, in 64 bytes.

    Bytes are those of whole frames, control frames included, as they went over the connection
    (before TLS): received once they were read, sent once the kernel took them. A message counts as
    received when its last frame was read, and as sent when a handler, or a room, has sent it, also
    while it is queued.

    Who writes holds what serialises reads, or sends, of the connection.
    """

    __slots__ = (
        "bytes_received",
        "bytes_sent",
        "error",
        "messages_received",
        "messages_sent",
        "opened",
    )

    def __init__(self) -> None:
        self.messages_received = self.messages_sent = 0
        self.bytes_received = self.bytes_sent = 0
        #: Seconds on the monotonic clock: somebody may set the other one.
        self.opened = time.monotonic()
        #: The name of the exception that ended the handler.
        self.error: str | None = None

    def add_received(self, messages: int, /) -> None:
        """Count messages that were received."""
        self.messages_received += messages

    def add_sent(self, messages: int, size: int, /) -> None:
        """Count messages that are sent, and bytes that the kernel took."""
        self.messages_sent += messages
        self.bytes_sent += size


#: Seconds that the epoch's clock may gain on the monotonic one before it counts as set anew.
_DRIFT = 1.0
_epoch = time.time() - time.monotonic()


def opened_at(traffic: Traffic) -> float:
    """Return when a connection was opened, in seconds since the epoch.

    It is the same whenever it is asked for, unless the clock was set meanwhile.
    """
    global _epoch
    epoch = time.time() - time.monotonic()
    if abs(epoch - _epoch) > _DRIFT:
        _epoch = epoch
    return _epoch + traffic.opened


def seconds_open(traffic: Traffic) -> float:
    """Return how long a connection has been open."""
    return time.monotonic() - traffic.opened
