"""A message for many connections, encoded once for all that send alike."""

from __future__ import annotations

from .frames import BINARY, FIN, RSV1, TEXT, encode_text, frame
from .protocol import Protocol


class Frames:
    """The frames of a message that servers send: plain, or compressed as a connection agreed to.

    :param opcode: TEXT or BINARY.
    :param data: the payload.
    """

    __slots__ = ("_compressed", "_data", "_opcode", "plain")

    def __init__(self, opcode: int, data: bytes) -> None:
        self._opcode = opcode
        self._data = data
        #: The frame for those that do not compress it.
        self.plain = frame(FIN | opcode, data)
        self._compressed: dict[tuple[int, ...], bytes] = {}

    def is_plain_for(self, protocol: Protocol) -> bool:
        """Tell whether one connection does not compress it."""
        return protocol.deflate is None or len(self._data) < protocol.deflate.threshold

    def for_(self, protocol: Protocol) -> bytes:
        """Return the frame for one connection, which is to be sent before its next is made."""
        if self.is_plain_for(protocol):
            return self.plain
        deflate = protocol.deflate
        assert deflate is not None
        # Whoever compresses refers to what went before; what is sent to all can refer to nothing.
        deflate.reset()
        made = self._compressed.get(deflate.compressor_settings)
        if made is None:
            made = frame(FIN | RSV1 | self._opcode, deflate.compress(self._data))
            self._compressed[deflate.compressor_settings] = made
        return made


def encode_message(message: str | bytes | bytearray | memoryview) -> Frames:
    """Encode a message for many connections: str as text, bytes as binary.

    :raises LocalProtocolError: for a lone surrogate, which UTF-8 cannot say.
    """
    if isinstance(message, str):
        return Frames(TEXT, encode_text(message))
    return Frames(BINARY, bytes(memoryview(message)))
