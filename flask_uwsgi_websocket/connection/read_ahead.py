"""Messages that have been read before the handler asks for them, and when reading pauses."""

from __future__ import annotations

from collections import deque
from typing import Any

from .base import NOTHING, BaseConnection, Message
from .states import LOST

#: Bytes of messages that wait for the handler before reading pauses.
READ_AHEAD = 256 * 1024
#: The same, in messages of the largest size, while a send waits. uWSGI's http router, and a
#: client that only writes, would deadlock if we did not go on reading then.
READ_AHEAD_WHILE_SENDING = 16


class ReadAhead(BaseConnection):
    """The messages that wait for the handler."""

    __slots__ = ("_messages", "_read_ahead", "_read_pausing", "_replying", "_senders")

    def __init__(self, *opened: Any) -> None:
        super().__init__(*opened)
        self._messages: deque[Message] = NOTHING
        self._replying = False  # the handler has a message that it may want to answer
        self._read_ahead = 0  # bytes of messages read since the handler had received all
        self._read_pausing = False
        self._senders = 0  # how many wait for the peer to read

    def take(self) -> Message | None:
        """Take a message that has been read already; None where there is none."""
        if not self._messages:
            return None
        try:
            message = self._messages.popleft()
        except IndexError:  # another thread was quicker
            return None
        self._replying = True
        return message

    def _read_ahead_limit(self) -> int:
        if self._senders:
            return READ_AHEAD_WHILE_SENDING * self.limits.max_message_size + READ_AHEAD
        return READ_AHEAD

    def _pause_reading(self) -> None:
        if not self._read_pausing:
            self._read_pausing = True
            self._watch_reading(False)

    def _resume_reading(self) -> None:
        """Read on, when the handler has received all, or a send waits."""
        if not self._messages:
            self._read_ahead = 0
        if self._read_pausing and self._read_ahead < self._read_ahead_limit():
            self._read_pausing = False
            if self.state < LOST:
                self._watch_reading(True)
