"""One WebSocket connection after its opening handshake: bytes in, events and frames out.

RFC 6455 sections 5 (framing), 6 (sending and receiving), 7 (closing) and 8 (errors). No socket,
clock, thread or lock lives here: whoever owns the connection feeds :meth:`Protocol.receive_data`
and sends what the other methods return, in the order in which they returned it. One thread at a
time may receive and one at a time may send; the two need no lock between them.

Each side sends one Close and nothing but control frames after it, and nothing at all once both
have. A peer that breaks the protocol is read no more, as if it had sent its Close, and ours tells
it why. What else belongs to the end of a connection is its owner's business.
"""

from __future__ import annotations

import os
import sys
from enum import Enum
from typing import Any, Final

from ..exceptions import LocalProtocolError
from .deflate import Deflate
from .fast_path import whole_frame
from .frames import (
    BINARY,
    CLOSE,
    FIN,
    MAX_CONTROL_PAYLOAD,
    NO_STATUS_RECEIVED,
    PING,
    PONG,
    RSV1,
    TEXT,
    check_close,
    encode_text,
    frame,
)
from .receiving import Receiver


class Role(Enum):
    """Which end of the connection we are: a client masks its frames, a server must not (5.1)."""

    SERVER = "server"
    CLIENT = "client"


SERVER: Final = Role.SERVER
CLIENT: Final = Role.CLIENT


class Protocol(Receiver):
    """One end of one connection.

    :param role: :data:`SERVER` or :data:`CLIENT`.
    :param max_message_size: largest message taken, in octets of payload, all fragments together
        and after decompression. A larger one fails the connection with close code 1009, as soon
        as its announced length or its inflated size says so.
    :param deflate: the negotiated permessage-deflate extension (RFC 7692), or ``None``.
    :param fast: whether the fast path may be taken; not for who has to be told of all frames.
    """

    __slots__ = ("close_sent", "plain_below")

    def __init__(
        self,
        role: Role,
        *,
        max_message_size: int = 1 << 20,  # 1 MiB: uWSGI's own default for websocket-max-size
        deflate: Deflate | None = None,
        fast: bool = True,
    ) -> None:
        super().__init__(role is CLIENT, max_message_size, deflate, fast)
        self.close_sent = False
        #: Data smaller than this is sent as it is, in an unmasked frame; not so a client's, and
        #: nothing after our Close.
        self.plain_below = 0 if self._masks else sys.maxsize
        if deflate is not None:
            self.plain_below = min(self.plain_below, deflate.threshold)

    def encode(self, message: Any) -> bytes:
        """Make the frame of a message: as :meth:`text` for a str, as :meth:`binary` for bytes."""
        whole = whole_frame(message, self.plain_below)
        if whole is not None:
            return whole
        if isinstance(message, str):  # as text(), which would ask once more
            return self.data_frame(TEXT, encode_text(message))
        return self.binary(message)

    def text(self, message: str) -> bytes:
        """Make the frame of a text message; raises as :meth:`binary` and :func:`encode_text`."""
        whole = whole_frame(message, self.plain_below)
        return self.data_frame(TEXT, encode_text(message)) if whole is None else whole

    def binary(self, message: bytes | bytearray | memoryview) -> bytes:
        """Make the frame of a binary message; LocalProtocolError after our Close."""
        data = message if type(message) is bytes else bytes(memoryview(message))
        whole = whole_frame(data, self.plain_below)
        return self.data_frame(BINARY, data) if whole is None else whole

    def ping(self, data: bytes = b"") -> bytes:
        """Make a Ping frame (RFC 6455 5.5.2); LocalProtocolError above 125 octets or if closed."""
        return self._control_frame(PING, data)

    def pong(self, data: bytes = b"") -> bytes:
        """Make a Pong frame (RFC 6455 5.5.3), as :meth:`ping`.

        "A Pong frame sent in response to a Ping frame must have identical "Application data" as
        found in the message body of the Ping frame being replied to."
        """
        return self._control_frame(PONG, data)

    def close(self, code: int = 1000, reason: str = "") -> bytes:
        """Make our Close frame (RFC 6455 5.5.1), sent once and after all data.

        :param code: one that may be sent (7.4), or 1005 for a Close without a code, which answers
            such a one.
        :param reason: at most 123 octets of UTF-8.
        :raises LocalProtocolError: for another code, a longer reason, a second Close.
        """
        if self.close_sent:
            raise LocalProtocolError("Close was sent already")
        payload = b""
        if code != NO_STATUS_RECEIVED:
            check_close(code, reason)
            payload = code.to_bytes(2, "big") + encode_text(reason)
        elif reason:
            # 5.5.1: "If there is a body, the first two bytes of the body MUST be a 2-byte unsigned
            # integer [...] representing a status code"
            raise LocalProtocolError("a close reason needs a close code")
        close = self._control_frame(CLOSE, payload)
        self.close_sent = True
        self.plain_below = 0
        return close

    def data_frame(self, opcode: int, data: bytes) -> bytes:
        """Make the frame of a message, compressed where it should be; as :meth:`binary`."""
        if self.close_sent:
            # 5.5.1: "The application MUST NOT send any more data frames after sending a Close
            # frame."
            raise LocalProtocolError("no data may follow our Close")
        first = FIN | opcode
        if self.deflate is not None and len(data) >= self.deflate.threshold:
            # RFC 7692 6: RSV1 is the "Per-Message Compressed" bit.
            first |= RSV1
            data = self.deflate.compress(data)
        return self._frame(first, data)

    def _control_frame(self, opcode: int, data: bytes) -> bytes:
        if len(data) > MAX_CONTROL_PAYLOAD:
            raise LocalProtocolError(f"control frame above {MAX_CONTROL_PAYLOAD} bytes")
        if self.close_sent and self._over:
            raise LocalProtocolError("the connection is closed")
        return self._frame(FIN | opcode, bytes(data))

    def _frame(self, first: int, payload: bytes) -> bytes:
        # RFC 6455 5.3: "The masking key needs to be unpredictable", fresh for each frame.
        return frame(first, payload, os.urandom(4) if self._masks else None)


class Frames:
    """The frames of what servers send: plain, or compressed as a connection agreed to.

    :param messages: the opcode and the payload of each; those of several go out together.
    """

    __slots__ = ("_compressed", "_messages", "longest", "plain")

    def __init__(self, *messages: tuple[int, bytes]) -> None:
        self._messages = messages
        if len(messages) == 1:  # most often: in few steps
            opcode, data = messages[0]
            longest, plain = len(data), frame(FIN | opcode, data)
        else:
            longest = max([len(data) for _, data in messages])
            plain = b"".join([frame(FIN | opcode, data) for opcode, data in messages])
        #: Bytes of the longest payload: whoever compresses none of that size compresses none.
        self.longest = longest
        #: The frames for those that compress none.
        self.plain = plain
        # With the octets that were compressed for them, and what these came to.
        self._compressed: dict[tuple[int, ...], tuple[bytes, int, int]] | None = None

    @property
    def count(self) -> int:
        """How many messages they are."""
        return len(self._messages)

    def apart(self) -> list[Frames]:
        """Return those of each message."""
        return [Frames(message) for message in self._messages]

    def is_plain_for(self, protocol: Protocol) -> bool:
        """Return whether one connection compresses none of them."""
        return protocol.deflate is None or self.longest < protocol.deflate.threshold

    def for_(self, protocol: Protocol) -> bytes:
        """Return the frames for one connection, which are to be sent before its next is made."""
        if self.is_plain_for(protocol):
            return self.plain
        deflate = protocol.deflate
        assert deflate is not None
        # Whoever compresses refers to what went before; what is sent to all can refer to nothing.
        deflate.reset()
        alike: tuple[int, ...] = deflate.compressor_settings
        if len(self._messages) > 1:
            alike = (deflate.send_takeover, deflate.threshold, *alike)
        if self._compressed is None:
            self._compressed = {}
        made = self._compressed.get(alike)
        if made is not None:
            frames, size, compressed = made
            deflate.deflated += size
            deflate.deflated_to += compressed
            return frames
        size, compressed = deflate.deflated, deflate.deflated_to
        frames = b"".join([protocol.data_frame(*message) for message in self._messages])
        size, compressed = deflate.deflated - size, deflate.deflated_to - compressed
        self._compressed[alike] = frames, size, compressed
        return frames


def encode_message(message: str | bytes | bytearray | memoryview) -> Frames:
    """Encode a message for many connections: str as :func:`encode_text` does, bytes as binary."""
    if isinstance(message, str):
        return Frames((TEXT, encode_text(message)))
    return Frames((BINARY, bytes(memoryview(message))))
