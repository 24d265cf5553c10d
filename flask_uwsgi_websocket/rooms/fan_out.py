"""Frames for many connections, with as little as possible done for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..codec import Frames
from ..connection.connection import Connection
from ..connection.fast_io import send_to_idle

#: Connections to which frames go before other threads may run.
SENT_AT_ONCE = 256


def send_to_many(frames: Frames, connections: Sequence[Connection]) -> Iterator[list[Connection]]:
    """Send frames to connections, part by part; yield those of each part that are left to do.

    These have something queued, have ended, or compress what they send.
    """
    for begin in range(0, len(connections), SENT_AT_ONCE):
        part = connections[begin : begin + SENT_AT_ONCE]
        yield send_to_idle(frames.plain, frames.longest, frames.count, part)
