"""What a publisher sends to a worker that listens: a greeting, then numbered frames. No I/O.

::

    greeting   magic, version of the frames, version of the records, number of the first frame
    frame      length, number, record
    mark       0, number of the next frame: what is missing before it will not come
    farewell   LEAVING, number of the next frame: the end of the stream is none by accident

The worker that listens answers with a greeting, whose number means nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .. import record as records
from ..record import BadRecord, Record, decode

#: Of the frames. Two releases that meet during a reload refuse each other.
VERSION = 1

_GREETING = struct.Struct("!4sBBQ")
_HEAD = struct.Struct("!IQ")
_MAGIC = b"\xf5fuw"
_LEAVING = 0xFFFFFFFF
#: A record beyond a worker's limit is skipped and counted, since its publisher may be configured
#: otherwise; a length beyond this one is none.
_LONGEST = 1 << 28


class Stranger(Exception):
    """A peer that does not speak as we do."""


def greeting(number: int = 0) -> bytes:
    """Return the bytes that begin a connection."""
    return _GREETING.pack(_MAGIC, VERSION, records.VERSION, number)


def head(number: int, record: bytes) -> bytes:
    """Return the bytes that stand before a record in its frame."""
    return _HEAD.pack(len(record), number)


def mark(number: int) -> bytes:
    """Return the bytes that say which frame comes next, whatever came before."""
    return _HEAD.pack(0, number)


def farewell(number: int) -> bytes:
    """Return the bytes that end a connection."""
    return _HEAD.pack(_LEAVING, number)


def check_greeting(data: bytes) -> int:
    """Return the number in a greeting.

    :raises Stranger: for one that is of another release, or none.
    """
    magic, version, of_records, number = _GREETING.unpack_from(data)
    if magic != _MAGIC:
        raise Stranger(f"it sent {data[:16]!r}, which is no greeting")
    if (version, of_records) != (VERSION, records.VERSION):
        raise Stranger(
            f"it is of another release: its format is {version}.{of_records}, ours "
            f"{VERSION}.{records.VERSION}. Until it ends, neither has what the other sends to rooms"
        )
    return int(number)


#: Bytes of a greeting.
GREETING_SIZE = _GREETING.size


class FrameReader:
    """Reads what one publisher sends, in pieces as they come.

    :param max_size: bytes of the largest record.
    """

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._rest = bytearray()
        self._needed = GREETING_SIZE  # bytes until there is more to read in them
        self._skip = 0  # bytes that still belong to a record that is too large
        self._next = -1  # number of the frame to come; below 0 before the greeting
        #: Whether the publisher has said that it ends.
        self.is_through = False

    @property
    def has_begun(self) -> bool:
        """Whether the greeting has come."""
        return self._next >= 0

    def feed(self, data: bytes) -> Iterator[Record | int]:
        """Yield the records in what has come; or numbers: of how many are lost.

        :raises Stranger: for what none of ours would send.
        """
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return
            data = bytes(self._rest)
            self._rest.clear()
        begin = 0
        if self._next < 0:
            if len(data) < GREETING_SIZE:
                self._rest += data
                return
            self._next = check_greeting(data)
            begin = GREETING_SIZE
        yield from self._frames(data, begin)

    def _frames(self, data: bytes, begin: int) -> Iterator[Record | int]:
        end = len(data)
        while True:
            if self._skip:
                skipped = min(self._skip, end - begin)
                self._skip -= skipped
                begin += skipped
            body = begin + _HEAD.size
            if body > end:
                self._needed = _HEAD.size
                break
            size, number = _HEAD.unpack_from(data, begin)
            is_record = 0 < size <= self._max_size
            if is_record and body + size > end:
                self._needed = _HEAD.size + size
                break
            if number != self._next:
                yield self._lost(number)
            begin = body
            if is_record:
                self._next = number + 1
                begin += size
                yield _decode(data[body:begin])
            elif size:
                yield from self._no_record(size, number)
        self._rest += memoryview(data)[begin:]

    def _lost(self, number: int) -> int:
        lost, self._next = number - self._next, number
        if lost < 0:
            raise Stranger(f"frame {number} came after frame {number - lost - 1}")
        return lost

    def _no_record(self, size: int, number: int) -> Iterator[int]:
        if size == _LEAVING:
            self.is_through = True
        elif size > _LONGEST:
            raise Stranger(f"a frame of {size} bytes")
        else:
            self._skip, self._next = size, number + 1
            yield 1


def _decode(data: bytes) -> Record:
    try:
        return decode(data)
    except BadRecord as error:
        raise Stranger(str(error)) from None
