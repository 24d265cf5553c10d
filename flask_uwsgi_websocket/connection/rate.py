"""How fast a client may send.

Two buckets of tokens fill up evenly. Each message takes a token of the first. While there is none,
the message whose frame has begun stays unread behind its header, and all that comes after it: so
nothing is lost, and the client's own TCP makes it wait. For that a read asks for no more bytes than
what is there of the open frame, and the shortest frame for each further token.

What carries no message takes a token of the second bucket, which is larger than anybody needs who
means well: control frames, but for answers to our pings, and fragments that are small, or empty,
and do not end a message. Nobody waits for these, since a Close may stand behind them: a client that
has used them up is closed.
"""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from contextlib import suppress

from ..codec import Event, Ping, Pong
from ..codec.frames import SHORT_HEADER
from ..helpers.threads import unpatched

#: Frames that carry no message: so many at a time, and in a second. As many as messages, where the
#: rate allows more of these.
OTHERS = 100
OTHERS_PER_SECOND = 10
#: Tokens of which one read may bring the frames: Python takes a millisecond for so many.
MOST_FRAMES = 512
#: Seconds for which reading pauses at least, where the bucket holds what comes meanwhile.
SHORTEST_PAUSE = 0.01


class Bucket:
    """A bucket of tokens, full at first.

    :param size: how many it holds.
    :param per_second: how many come in a second.
    """

    __slots__ = ("_at", "_left", "per_second", "size")

    def __init__(self, size: float, per_second: float) -> None:
        self.size = size
        self.per_second = per_second
        self._left = float(size)
        self._at = time.monotonic()

    def left(self) -> float:
        """Return how many are there; below 0 where more were taken."""
        return min(self.size, self._left + (time.monotonic() - self._at) * self.per_second)

    def take(self, count: int) -> float:
        """Take some, though they may not be there; return how many are left."""
        left = self._left = self.left() - count
        self._at = time.monotonic()
        return left

    def wait_for(self, count: float) -> float:
        """Return the seconds until so many are there; 0 or less where they are."""
        return (count - self.left()) / self.per_second


class Rate:
    """The rate of one connection. Who reads from it counts; others only ask.

    :param messages: how many may come at a time, and within ``seconds``.
    """

    __slots__ = ("_fragments", "_messages", "_needed", "_others", "gone_at", "limited", "timed")

    def __init__(self, messages: int, seconds: float) -> None:
        self._messages = Bucket(messages, messages / seconds)
        others = max(messages / seconds, OTHERS_PER_SECOND)
        self._others = Bucket(max(messages, OTHERS), others)
        self._fragments = 0  # of those that have been counted
        self._needed = 0.0  # tokens for messages, before anything is read
        #: Whether the peer has ever been ahead of it.
        self.limited = False
        #: Whether somebody looks again before long.
        self.timed = False
        #: When it was noticed that the peer sends nothing more than what is unread.
        self.gone_at: float | None = None

    def count(self, events: Sequence[Event], fragments: int, pinged: bytes | None) -> bool:
        """Count what has come; return False where it was too much to wait for.

        :param fragments: the small ones that have come in all.
        :param pinged: the payload of the ping whose answer is free.
        """
        messages = others = 0
        for event in events:
            if isinstance(event, (str, bytes)):
                messages += 1
            elif isinstance(event, Ping) or (isinstance(event, Pong) and event.data != pinged):
                others += 1
        others += fragments - self._fragments
        self._fragments = fragments
        # More at once than another bucket holds may come only together with the handshake.
        enough = self._messages.take(messages) >= -self._messages.size
        return enough and self._others.take(others) >= 0

    def fit(self, missing: int, held: int) -> int:
        """Return how many bytes the next read may bring, be that after a while: see :meth:`wait`.

        :param missing: those still to come of the payload that has begun.
        :param held: those that have come of a header, or of a control frame.
        """
        bucket = self._messages
        left = bucket.left()
        self._needed = 1.0 if missing else 0.0
        if left < self._needed:
            pause = min(SHORTEST_PAUSE * bucket.per_second, bucket.size)
            left = self._needed = max(self._needed, pause)
        frames = min(max(int(left), 1), MOST_FRAMES)
        begun = held if held < SHORT_HEADER else 0  # of more there is no message in a header
        return missing + SHORT_HEADER * (frames - bool(missing)) - begun

    def wait(self) -> float:
        """Return the seconds until something may be read; 0 or less where it may now."""
        return self._messages.wait_for(self._needed)


def has_gone(fd: int) -> bool:
    """Return whether a peer will send nothing more than what is unread, if the system knows it."""
    if not hasattr(select, "POLLRDHUP"):  # Linux has it
        return False
    poll = unpatched("select", "poll")()
    with suppress(OSError, ValueError):  # it has been closed just now
        poll.register(fd, select.POLLRDHUP)
        return bool(poll.poll(0))
    return False
