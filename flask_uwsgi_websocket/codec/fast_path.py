"""The straight paths: a whole message that came in one frame, and the frame of a small one.

Most messages are small, and come alone, in one frame. What these two functions cost is a good part
of what such a message costs at all, so they are there twice: in C (``_speedups.c``, which setup.py
compiles where it can), and here. Both give the same for the same.
"""

from __future__ import annotations

from typing import Final

from .frames import (
    BINARY,
    FIN,
    HEADER_16,
    LENGTH_IN_16_BITS,
    MASK,
    MAX_CONTROL_PAYLOAD,
    SHORT_HEADER,
    TEXT,
    frame_header,
    pack_header_16,
    unpack_header_16,
)
from .masking import apply_mask

__all__ = ["whole_frame", "whole_frame_in_python", "whole_message", "whole_message_in_python"]

# The first octet of a message of one frame, without reserved bits.
WHOLE_TEXT: Final = FIN | TEXT
WHOLE_BINARY: Final = FIN | BINARY
_MASKED_16: Final = MASK | LENGTH_IN_16_BITS

# The second octet of a masked frame of up to 125 octets is the whole frame's size and this.
_SIZE_TO_SECOND_OCTET: Final = MASK - SHORT_HEADER
_LONGEST_SHORT_FRAME: Final = SHORT_HEADER + MAX_CONTROL_PAYLOAD

#: From this size unmasking a view beats unmasking a slice, which is one copy more (measured).
VIEW_FROM: Final = 16384

_TEXT_HEADERS: Final = tuple(frame_header(WHOLE_TEXT, length) for length in range(126))
_BINARY_HEADERS: Final = tuple(frame_header(WHOLE_BINARY, length) for length in range(126))


def whole_message_in_python(data: bytes, max_size: int) -> str | bytes | None:
    """The message, where ``data`` is one masked frame that is all of a message; else None.

    None also for what is wrong: a text that is not UTF-8, a message above ``max_size`` octets.
    Frames with a length of 64 bits are none of its business.
    """
    size = len(data)
    if size < SHORT_HEADER:
        return None
    try:
        if size <= _LONGEST_SHORT_FRAME:
            if data[1] == size + _SIZE_TO_SECOND_OCTET and size - SHORT_HEADER <= max_size:
                if data[0] == WHOLE_TEXT:
                    return apply_mask(data[SHORT_HEADER:], data[2:SHORT_HEADER]).decode()
                if data[0] == WHOLE_BINARY:
                    return apply_mask(data[SHORT_HEADER:], data[2:SHORT_HEADER])
        else:
            first, second, length, key = unpack_header_16(data)
            fits = LENGTH_IN_16_BITS <= length <= max_size
            if second == _MASKED_16 and fits and size == HEADER_16 + length:
                view = data if size < VIEW_FROM else memoryview(data)
                if first == WHOLE_TEXT:
                    return apply_mask(view[HEADER_16:], key).decode()
                if first == WHOLE_BINARY:
                    return apply_mask(view[HEADER_16:], key)
    except UnicodeDecodeError:
        pass
    return None


def whole_frame_in_python(message: str | bytes, below: int) -> bytes | None:
    """The unmasked frame of a message, if that has less than ``below`` octets; else None.

    None also for a text that UTF-8 cannot encode, for other types than ``str`` and ``bytes``, and
    from 64 KiB on.
    """
    headers = _TEXT_HEADERS
    if type(message) is str:
        try:
            data = message.encode()
        except UnicodeEncodeError:
            return None
    elif type(message) is bytes:
        data, headers = message, _BINARY_HEADERS
    else:
        return None
    size = len(data)
    if size >= below or size >= 1 << 16:
        return None
    if size < LENGTH_IN_16_BITS:
        return headers[size] + data
    return pack_header_16(headers[0][0], LENGTH_IN_16_BITS, size) + data


try:
    from ._speedups import whole_frame, whole_message
except ImportError:
    whole_message, whole_frame = whole_message_in_python, whole_frame_in_python
