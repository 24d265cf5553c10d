"""Messages in the making: those that arrive in more than one piece, RFC 6455 sections 5.4 and 8.1.

A piece is what one chunk from the network holds of one frame. Text is checked as it arrives, so
that a wrong octet is found with its piece and not at the end of the message, wherever frames and
chunks cut the characters.
"""

from __future__ import annotations

from codecs import utf_8_decode
from io import BytesIO

#: Bytes from which a piece is kept as it is: as an object in a list it costs 1 % more.
_LARGE = 4096
#: Bytes of smaller pieces that are put together.
_CHUNK = 65536


class _Pieces:
    """The pieces of a message that have come.

    In parts: one buffer would be there twice whenever it had to move in order to grow, and a
    message that never ends should not cost more than the limit.
    """

    __slots__ = ("_parts", "_small")

    def __init__(self) -> None:
        self._parts: list[bytes | str] = []
        self._small: BytesIO | None = None  # pieces that came after these parts

    def add(self, piece: bytes) -> None:
        """Take a piece that is not the last."""
        if len(piece) >= _LARGE:
            self._put(piece)
            return
        if self._small is None:
            self._small = BytesIO()
        self._small.write(piece)
        if self._small.tell() >= _CHUNK:
            self._join_small()

    def _put(self, part: bytes | str) -> None:
        """Add what is large enough to be a part."""
        self._join_small()
        self._parts.append(part)

    def _join_small(self) -> None:
        if self._small is not None:
            small, self._small = self._small, None
            self._parts.append(small.getvalue())


class BinaryMessage(_Pieces):
    """A binary message in the making."""

    __slots__ = ()

    def finish(self, piece: bytes) -> bytes:
        """Take the last piece and return the message."""
        self._join_small()
        if not self._parts:
            return piece
        return b"".join([*self._parts, piece])  # type: ignore[list-item]  # none of them a str


class TextMessage(_Pieces):
    """A text message in the making.

    RFC 6455 8.1: "When an endpoint is to interpret a byte stream as UTF-8 but finds that the byte
    stream is not, in fact, a valid UTF-8 stream, that endpoint MUST _Fail the WebSocket
    Connection_." Both methods raise :exc:`UnicodeDecodeError` then.
    """

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        super().__init__()
        self._rest = b""  # a character that the last piece cut off: 3 octets at most

    def add(self, piece: bytes) -> None:
        """Take a piece that is not the last."""
        data = self._rest + piece
        text, used = utf_8_decode(data)
        self._rest = data[used:]
        if b"\xed\xa0" <= self._rest < b"\xee":
            # The only wrong start that Python's decoder keeps (it has a mode that allows
            # surrogates), so the third octet would decide what the second has decided.
            raise UnicodeDecodeError("utf-8", self._rest, 0, 2, "surrogate")
        # One character can make a str four times as large as its UTF-8, which then is kept instead.
        if used >= _LARGE and text.__sizeof__() < used + _LARGE:
            self._put(text)
        else:
            super().add(data[:used])

    def finish(self, piece: bytes) -> str:
        """Take the last piece and return the message."""
        last = (self._rest + piece).decode()
        self._join_small()
        if not self._parts:
            return last
        parts = [part if isinstance(part, str) else part.decode() for part in self._parts]
        return "".join([*parts, last])
