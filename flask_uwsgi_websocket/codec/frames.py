"""Frames and close codes, RFC 6455 sections 5.2, 5.3, 5.5 and 7.4: how to make, mask and skip them.

::

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-------+-+-------------+-------------------------------+
    |F|R|R|R| opcode|M| Payload len |    Extended payload length    |
    |I|S|S|S|  (4)  |A|     (7)     |             (16/64)           |
    |N|V|V|V|       |S|             |   (if payload len==126/127)   |
    | |1|2|3|       |K|             |                               |
    +-+-+-+-+-------+-+-------------+ - - - - - - - - - - - - - - - +
    |     Extended payload length continued, if payload len == 127  |
    + - - - - - - - - - - - - - - - +-------------------------------+
    |                               |Masking-key, if MASK set to 1  |
    +-------------------------------+-------------------------------+
    | Masking-key (continued)       |          Payload Data         |
    +-------------------------------- - - - - - - - - - - - - - - - +
"""

from __future__ import annotations

import struct
from typing import Final

from ..exceptions import LocalProtocolError

# The first octet: FIN, three reserved bits, the opcode (RFC 6455 5.2).
FIN: Final = 0x80
RSV1: Final = 0x40
RSV2: Final = 0x20
RSV3: Final = 0x10

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
# "Opcodes 0x3-0x7 are reserved for further non-control frames yet to be defined" (5.6)
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA
# "Opcodes 0xB-0xF are reserved for further control frames yet to be defined" (5.5)

# The second octet: MASK, and the payload length up to 125.
MASK: Final = 0x80
LENGTH_IN_16_BITS: Final = 126
LENGTH_IN_64_BITS: Final = 127

#: RFC 6455 5.5: "All control frames MUST have a payload length of 125 bytes or less"
MAX_CONTROL_PAYLOAD: Final = 125

#: RFC 6455 5.2: of a 64-bit length "the most significant bit MUST be 0".
MAX_LENGTH: Final = (1 << 63) - 1

_pack_header_16 = struct.Struct(">BBH").pack
_pack_header_64 = struct.Struct(">BBQ").pack

# Octets in front of the payload of a masked frame whose length is in the second octet.
SHORT_HEADER: Final = 6

#: RFC 6455 7.1.5: never sent, it says that a Close frame came without a code.
NO_STATUS_RECEIVED: Final = 1005


def close_code_may_travel(code: int) -> bool:
    """Return whether a Close frame may carry the code, in either direction.

    RFC 6455 7.4.1 defines 1000 to 1011, of which 1004 is reserved and 1005 and 1006 "MUST NOT be
    set as a status code in a Close control frame by an endpoint"; the registry adds 1012 to 1014,
    and 1015, which is not sent either. 7.4.2: "Status codes in the range 0-999 are not used", the
    other codes below 3000 are for future revisions, 3000-3999 for registered libraries and
    frameworks, 4000-4999 for private use.
    """
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def check_close(code: int, reason: str) -> None:
    """Check what somebody wants to close with.

    :raises LocalProtocolError: for a code that no Close frame may carry, 1005 and 1006 among them,
        and for what is neither code nor reason, or too long a one.
    """
    if not isinstance(code, int) or not close_code_may_travel(code):
        raise LocalProtocolError(
            f"close code {code!r} may not be sent: 1000 to 1003, 1007 to 1014 and 3000 to 4999 may "
            "(RFC 6455 7.4)"
        )
    if not isinstance(reason, str):
        raise LocalProtocolError(f"a close reason is a str, not {type(reason).__name__}")
    size = len(reason.encode("utf-8", "surrogatepass"))
    if size > MAX_CONTROL_PAYLOAD - 2:
        raise LocalProtocolError(
            f"a close reason has {MAX_CONTROL_PAYLOAD - 2} bytes at most, in UTF-8, not {size}"
        )


def encode_text(text: str) -> bytes:
    """Encode a text as UTF-8; LocalProtocolError for a lone surrogate, which UTF-8 cannot say."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"text that UTF-8 cannot encode: {error.reason}") from None


def payload_length(data: bytes, pos: int) -> tuple[int, int]:
    """Read the payload length of the frame at ``pos``, whose first two octets are there.

    :return: the length, and where its field ends; if that is after ``data``, it is cut off, and
        the length says nothing.
    """
    length = data[pos + 1] & 0x7F
    begin = pos + 2
    if length < LENGTH_IN_16_BITS:
        return length, begin
    end = begin + (2 if length == LENGTH_IN_16_BITS else 8)
    return int.from_bytes(data[begin:end], "big"), end


#: For each key octet the table that XORs with it, for ``bytes.translate``.
_XOR_TABLES = tuple(bytes(octet ^ key_octet for octet in range(256)) for key_octet in range(256))

#: From this size four table look-ups over strides beat one XOR of two big integers (measured).
_STRIDES_FROM = 2048


def apply_mask_in_python(data: bytes | memoryview, key: bytes) -> bytes:
    """XOR ``data`` with the masking key, repeated, which masks and unmasks (RFC 6455 5.3).

    "Octet i of the transformed data ("transformed-octet-i") is the XOR of octet i of the original
    data ("original-octet-i") with octet at index i modulo 4 of the masking key". Where setup.py
    could compile ``_speedups.c``, its :func:`apply_mask` gives the same.
    """
    size = len(data)
    if size < _STRIDES_FROM:
        whole_key = key * (size >> 2) + key[: size & 3]
        masked = int.from_bytes(data, "little") ^ int.from_bytes(whole_key, "little")
        return masked.to_bytes(size, "little")
    octets = bytearray(data)
    for i in range(4):
        octets[i::4] = octets[i::4].translate(_XOR_TABLES[key[i]])
    return bytes(octets)


try:
    from ._speedups import apply_mask as apply_mask
except ImportError:
    apply_mask = apply_mask_in_python


def frame(first: int, payload: bytes, key: bytes | None = None) -> bytes:
    """Make a whole frame, masked when there is a key, from its first octet: FIN, RSV bits, opcode.

    Nothing is checked: tests build wrong frames with it as well.
    """
    length = len(payload)
    mask = 0 if key is None else MASK
    # 5.2: "the minimal number of bytes MUST be used to encode the length"
    if length < LENGTH_IN_16_BITS:
        header = bytes((first, mask | length))
    elif length < 1 << 16:
        header = _pack_header_16(first, mask | LENGTH_IN_16_BITS, length)
    else:
        header = _pack_header_64(first, mask | LENGTH_IN_64_BITS, length)
    return header + payload if key is None else header + key + apply_mask(payload, key)


class FrameSkipper:
    """Skips what a peer still sends when it is read no more (7.1.7), up to and with its Close.

    A server that ends its side of the connection while the peer is sending risks that a proxy, or
    the peer's own TCP, cuts it and loses our Close: it has to know when the peer has finished.

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
