"""What a peer still sends when it is read no more, RFC 6455 section 7.1.7.

A server that ends its side of the connection while the peer is sending risks that a proxy, or the
peer's own TCP, cuts it and loses our Close. So the server has to know when the peer has finished.
"""

from __future__ import annotations

from .frames import CLOSE, MASK, payload_length


class FrameSkipper:
    """Skips frames, whatever is in them, up to and including the peer's Close.

    :param missing: octets that still belong to the frame which the next data begins in.
    """

    __slots__ = ("_held", "_in_close", "_missing", "found_close")

    def __init__(self, missing: int) -> None:
        self._missing = missing
        self._held = b""  # of a header: 9 octets at most
        self._in_close = False
        self.found_close = False

    @property
    def in_frame(self) -> bool:
        """Whether more must come for the frame that has begun."""
        return self._missing > 0 or bool(self._held)

    def skip(self, data: bytes) -> None:
        """Skip what the peer has sent."""
        data, self._held = self._held + data, b""
        pos, end = self._missing, len(data)
        while pos <= end and not self.found_close:
            self.found_close = self._in_close
            if pos == end:
                break
            size = _frame_size(data, pos, end)
            if size is None:
                self._held = data[pos:]
                pos = end
                break
            self._in_close = data[pos] & 0x0F == CLOSE
            pos += size
        self._missing = pos - end if pos > end else 0


def _frame_size(data: bytes, pos: int, end: int) -> int | None:
    """Count the octets of the frame at ``pos``; None where its header is cut off."""
    if end - pos < 2:
        return None
    length, begin = payload_length(data, pos)
    if begin > end:
        return None
    return begin - pos + (4 if data[pos + 1] & MASK else 0) + length
