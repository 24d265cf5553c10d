"""Messages in the making: those that arrive in more than one piece, RFC 6455 sections 5.4 and 8.1.

A piece is what one chunk from the network holds of one frame. Text is checked as it arrives, so
that a wrong octet is found with its piece and not at the end of the message, wherever frames and
chunks cut the characters.
"""

from __future__ import annotations

from codecs import utf_8_decode
from io import BytesIO, StringIO

__all__ = ["BinaryMessage", "TextMessage"]


class TextMessage:
    """A text message in the making.

    RFC 6455 8.1: "When an endpoint is to interpret a byte stream as UTF-8 but finds that the byte
    stream is not, in fact, a valid UTF-8 stream, that endpoint MUST _Fail the WebSocket
    Connection_." Both methods raise :exc:`UnicodeDecodeError` then.
    """

    __slots__ = ("_rest", "_text")

    def __init__(self) -> None:
        self._text: StringIO | None = None
        self._rest = b""  # a character that the last piece cut off: 3 octets at most

    def add(self, piece: bytes) -> None:
        """Take a piece that is not the last."""
        if self._text is None:
            self._text = StringIO()
        data = self._rest + piece
        text, used = utf_8_decode(data)
        self._text.write(text)
        self._rest = data[used:]
        if b"\xed\xa0" <= self._rest < b"\xee":
            # The only wrong start that Python's decoder keeps (it has a mode that allows
            # surrogates), so the third octet would decide what the second has decided.
            raise UnicodeDecodeError("utf-8", self._rest, 0, 2, "surrogate")

    def finish(self, piece: bytes) -> str:
        """Take the last piece and give the message."""
        if self._text is None:
            return piece.decode()
        self._text.write((self._rest + piece).decode())
        return self._text.getvalue()


class BinaryMessage:
    """A binary message in the making."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data: BytesIO | None = None

    def add(self, piece: bytes) -> None:
        """Take a piece that is not the last."""
        if self._data is None:
            self._data = BytesIO()
        self._data.write(piece)

    def finish(self, piece: bytes) -> bytes:
        """Take the last piece and give the message."""
        if self._data is None:
            return piece
        self._data.write(piece)
        return self._data.getvalue()
