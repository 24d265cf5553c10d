"""The fast path: a whole small message that comes, or goes, in one frame.

Most messages are small, and come alone, in one frame. What reading and writing them costs is a good
part of what such a message costs at all, so ``_speedups.c`` does it, which setup.py compiles where
it can. Elsewhere nothing is taken here, and all goes the general path.
"""

from __future__ import annotations

from .events import Event

__all__ = ["COMPILED", "whole_frame", "whole_message", "whole_messages"]

try:
    from ._speedups import whole_frame, whole_message, whole_messages

    COMPILED = True
except ImportError:
    COMPILED = False

    def whole_message(data: bytes, max_size: int) -> str | bytes | None:
        """Return the message, where ``data`` is one masked frame that is all of a message.

        None for all else, also for what is wrong, above ``max_size`` or has a length in 64 bits.
        """
        return None

    def whole_messages(data: bytes, pos: int, max_size: int, events: list[Event]) -> int:
        """Add the messages that come from ``pos`` on, each as :func:`whole_message`, to the events.

        :return: where the first other thing begins.
        :raises UnicodeDecodeError: for a text that is not UTF-8.
        """
        return pos

    def whole_frame(message: str | bytes, below: int) -> bytes | None:
        """Return the unmasked frame of a message of less than ``below`` octets.

        None for all else, also for text that UTF-8 cannot encode, for other types than ``str`` and
        ``bytes``, and from 64 KiB on.
        """
        return None
