"""The receiving half of the protocol: bytes in, events out.

RFC 6455 sections 5 (framing), 6.2 (receiving), 7.1.7 (failing) and 8 (errors).

What the next frame may be depends on whether a message has begun (5.4); control frames may come
between the frames of a message:

=================  ==========================  ==============  ===============
..                 text, binary                continuation    control
=================  ==========================  ==============  ===============
between messages   begins a message            error 1002      event at once
in a message       error 1002                  goes on with it event at once
=================  ==========================  ==============  ===============

A frame with FIN ends the message that it belongs to.

**Speed.** Most chunks are one whole small message, or many: ``fast_path.py`` takes these.
Everything else, and everything that is wrong, goes frame by frame through
:meth:`Receiver._read_frame`. The paths obey the same rules; the tests run one against the other.
"""

from __future__ import annotations

from typing import Final

from ..exceptions import InvalidPayload, MessageTooBig, RemoteProtocolError
from .deflate import Deflate
from .events import Close, Event, Fail, Ping, Pong
from .fast_path import COMPILED, whole_message, whole_messages
from .frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    LENGTH_IN_16_BITS,
    MASK,
    MAX_CONTROL_PAYLOAD,
    MAX_LENGTH,
    NO_STATUS_RECEIVED,
    PING,
    PONG,
    RSV1,
    RSV2,
    RSV3,
    SHORT_HEADER,
    TEXT,
    FrameSkipper,
    apply_mask,
    close_code_may_travel,
    payload_length,
)
from .messages import BinaryMessage, TextMessage

# What a reader of frames returns where the chunk ends before the frame does.
_CUT_OFF: Final = -1

#: A fragment of less octets, with more to come, is one of :attr:`Receiver.small_fragments`.
SMALL_FRAGMENT: Final = 1024

#: From this size unmasking a view beats unmasking a slice, which is one copy more (measured).
_VIEW_FROM: Final = 16384


class Receiver:
    """The receiving half of a :class:`~.protocol.Protocol`.

    :param is_client: whether the peer is a server, which masks nothing.
    :param max_message_size: see :class:`~.protocol.Protocol`.
    :param deflate: the negotiated permessage-deflate extension (RFC 7692), or ``None``.
    :param fast: whether the fast path may be taken; not for who has to be told of all frames.
    """

    __slots__ = (
        "_announced",
        "_compressed",
        "_final",
        "_has_fast_path",
        "_held",
        "_key",
        "_masks",
        "_max_size",
        "_message",
        "_missing",
        "_over",
        "_room",
        "_skipper",
        "close_received",
        "deflate",
        "fast_limit",
        "small_fragments",
    )

    def __init__(
        self, is_client: bool, max_message_size: int, deflate: Deflate | None, fast: bool = True
    ) -> None:
        self.deflate: Final = deflate
        #: How many came that did not end a message, and brought less than SMALL_FRAGMENT octets.
        self.small_fragments = 0
        self.close_received = False
        self._masks = is_client
        self._max_size = max_message_size
        self._over = False  # after the peer's Close or a Fail: nothing more is read
        self._skipper: FrameSkipper | None = None  # after a Fail

        # The header, or the whole control frame, that the last chunk cut off: 130 octets at most.
        self._held = b""

        # The open message: where it is gathered, what its frames announced so far.
        self._message: TextMessage | BinaryMessage | None = None
        self._announced = 0
        self._compressed = False
        self._room = 0  # octets that a compressed message may still inflate to

        # The open data frame: its FIN bit, the payload still to come, the key for the next octet.
        self._final = False
        self._missing = 0
        self._key = b""

        # Whether the fast path is open to us at all: not without C, nor to a client, whose peer
        # does not mask, nor where even a short frame may be above the limit.
        fast = COMPILED and fast and not is_client
        self._has_fast_path = fast and max_message_size >= MAX_CONTROL_PAYLOAD
        #: The largest message that may take the fast path now, between messages with nothing held;
        #: else -1. For who reads and parses in one call.
        self.fast_limit = max_message_size if self._has_fast_path else -1

    @property
    def incomplete(self) -> bool:
        """Whether a frame or a message has begun to arrive and has not ended."""
        return self._message is not None or bool(self._held)

    @property
    def missing(self) -> int:
        """The octets of payload still to come for the data frame that has begun to arrive."""
        return self._missing

    @property
    def held(self) -> int:
        """The octets that have come of a header, or of a control frame, that is not whole."""
        return len(self._held)

    @property
    def is_sending(self) -> bool:
        """Whether the peer, which broke the protocol, is in the middle of a frame."""
        return self._skipper is not None and self._skipper.in_frame

    def whole_message(self, data: bytes) -> str | bytes | None:
        """Return the message, where ``data`` is just that: one small message in one frame.

        Changes nothing. For anything else it returns None, and :meth:`receive_frames` takes it.
        """
        return whole_message(data, self.fast_limit)

    def receive_data(self, data: bytes) -> list[Event]:
        """Take what the peer sent and return the events that it completes.

        Nothing is raised for what the peer sent: the last event is a :class:`Fail` instead, and
        the messages before it are not lost. After :class:`Close` or :class:`Fail` nothing more
        is read (RFC 6455 1.4, 7.1.7), and the list is empty.
        """
        message = self.whole_message(data)
        return self.receive_frames(data) if message is None else [message]

    def receive_frames(self, data: bytes) -> list[Event]:
        """Do as :meth:`receive_data`, after :meth:`whole_message` has returned None."""
        events: list[Event] = []
        if self._over:
            self._skip(data)
            return events
        if self._held:
            data, self._held = self._held + data, b""
        missing = self._missing
        try:
            self._read_frames(data, events)
        except RemoteProtocolError as error:
            # Without the traceback, whose frames hold the data and these events.
            events.append(self._fail(error.with_traceback(None)))
        except UnicodeDecodeError as error:
            events.append(self._fail(_not_utf_8(error)))
        if self._over and not self.close_received:
            self._skipper = FrameSkipper(missing)
            self._skip(data)
        is_open = self._has_fast_path and not (self._over or self.incomplete)
        self.fast_limit = self._max_size if is_open else -1
        return events

    def fail(self, error: RemoteProtocolError) -> Fail:
        """Read nothing more of a peer that breaks a rule which is not the RFC's."""
        held, missing = self._held, self._missing
        event = self._fail(error)
        self._skipper = FrameSkipper(missing)
        self._skip(held)
        return event

    def _skip(self, data: bytes) -> None:
        if self._skipper is not None and not self.close_received:
            self._skipper.skip(data)
            self.close_received = self._skipper.found_close

    def _read_frames(self, data: bytes, events: list[Event]) -> None:
        pos, end = 0, len(data)
        while pos < end and not self._over:
            if self._missing:
                pos = self._read_payload(data, pos, end, events)
                continue
            if self._has_fast_path and self._message is None:
                pos = whole_messages(data, pos, self._max_size, events)
                if pos == end:
                    break
            start = pos
            pos = self._read_frame(data, start, end, events)
            if pos == _CUT_OFF:
                self._held = data[start:]
                break

    def _read_frame(self, data: bytes, pos: int, end: int, events: list[Event]) -> int:
        """Read a frame's header, and all of it if it is a control frame or empty.

        Returns where that ended, or ``_CUT_OFF`` when the chunk ends before.
        """
        if end - pos < 2:
            return _CUT_OFF
        first, second = data[pos], data[pos + 1]
        opcode = first & 0x0F
        self._check_bits(first, second)
        self._check_opcode(first, second)
        if opcode >= CLOSE:
            return self._read_control(data, pos, end, events)

        length, begin = payload_length(data, pos)
        if begin > end:
            return _CUT_OFF
        if begin - pos > 2:
            _check_length(length, begin - pos - 2)
        self._check_size(first, length)
        if not self._masks:
            begin += 4
            if begin > end:
                return _CUT_OFF
            self._key = data[begin - 4 : begin]
        if opcode != CONTINUATION:
            self._message = TextMessage() if opcode == TEXT else BinaryMessage()
            self._compressed = bool(first & RSV1)
            self._room = self._max_size
        self._announced += length
        self._final = bool(first & FIN)
        if length < SMALL_FRAGMENT and not self._final:
            self.small_fragments += 1
        self._missing = length
        return begin if length else self._read_payload(data, begin, begin, events)

    def _check_bits(self, first: int, second: int) -> None:
        if bool(second & MASK) is self._masks:
            # RFC 6455 5.1: "The server MUST close the connection upon receiving a frame that is
            # not masked." "A client MUST close a connection if it detects a masked frame."
            raise RemoteProtocolError("masked frame" if self._masks else "frame not masked")
        # 5.2: RSV1 to RSV3 "MUST be 0 unless an extension is negotiated that defines meanings for
        # non-zero values. If a nonzero value is received [...] the receiving endpoint MUST
        # _Fail the WebSocket Connection_."
        if first & (RSV2 | RSV3):
            raise RemoteProtocolError("reserved bit set")
        # RFC 7692 6: "An endpoint MUST NOT set the "Per-Message Compressed" bit of control frames
        # and non-first fragments of a data message. An endpoint receiving such a frame MUST _Fail
        # the WebSocket Connection_."
        if first & RSV1 and (self.deflate is None or first & 0x0F not in (TEXT, BINARY)):
            raise RemoteProtocolError("reserved bit set")

    def _check_opcode(self, first: int, second: int) -> None:
        opcode = first & 0x0F
        # 5.2: "If an unknown opcode is received, the receiving endpoint MUST _Fail the WebSocket
        # Connection_."
        if BINARY < opcode < CLOSE or opcode > PONG:
            raise RemoteProtocolError("unknown opcode")
        if opcode >= CLOSE:
            # 5.5: "All control frames MUST have a payload length of 125 bytes or less and MUST
            # NOT be fragmented."
            if not first & FIN:
                raise RemoteProtocolError("fragmented control frame")
            if second & 0x7F > MAX_CONTROL_PAYLOAD:
                raise RemoteProtocolError("control frame too long")
        # 5.4: a fragmented message is a first frame with "an opcode other than 0, followed by
        # zero or more frames with the FIN bit clear and the opcode set to 0, and terminated by a
        # single frame with the FIN bit set and an opcode of 0."
        elif opcode == CONTINUATION:
            if self._message is None:
                raise RemoteProtocolError("continuation frame outside a message")
        elif self._message is not None:
            raise RemoteProtocolError("new message inside a message")

    def _check_size(self, first: int, length: int) -> None:
        """Refuse a message by what its frames announce, before their payload is here."""
        compressed = first & RSV1 if self._message is None else self._compressed
        # What a compressed message inflates to is limited while it inflates. On the wire it may
        # be twice that: deflate makes data longer by an eighth at worst, and by some octets more
        # each time that it is flushed; the rest would be blocks that hold nothing.
        limit = 2 * self._max_size + 1024 if compressed else self._max_size
        if self._announced + length > limit:
            raise MessageTooBig(f"message above {self._max_size} bytes")

    def _read_payload(self, data: bytes, pos: int, end: int, events: list[Event]) -> int:
        """Take what the chunk has of the open frame's payload; return where that ends."""
        size = min(self._missing, end - pos)
        piece = self._unmask(data, pos, pos + size)
        self._missing -= size
        last = self._final and not self._missing
        if self._compressed:
            assert self.deflate is not None
            piece = self.deflate.decompress(piece, last, self._room)
            self._room -= len(piece)
        assert self._message is not None
        if last:
            events.append(self._message.finish(piece))
            self._message = None
            self._announced = 0
        else:
            self._message.add(piece)
        return pos + size

    def _unmask(self, data: bytes, pos: int, stop: int) -> bytes:
        """Unmask the payload from ``pos`` to ``stop``; turn the key to the octet after it."""
        if self._masks:
            return data[pos:stop]
        key, size = self._key, stop - pos
        turn = size & 3
        self._key = key[turn:] + key[:turn]
        return apply_mask(data[pos:stop] if size < _VIEW_FROM else memoryview(data)[pos:stop], key)

    def _read_control(self, data: bytes, pos: int, end: int, events: list[Event]) -> int:
        """Take a control frame, if it is whole; return where it ends, or ``_CUT_OFF``."""
        opcode, length = data[pos] & 0x0F, data[pos + 1] & 0x7F
        begin = pos + (2 if self._masks else SHORT_HEADER)
        stop = begin + length
        if stop > end:
            return _CUT_OFF
        payload = data[begin:stop]
        if not self._masks:
            payload = apply_mask(payload, data[pos + 2 : begin])
        if opcode == PING:
            events.append(Ping(payload))
        elif opcode == PONG:
            events.append(Pong(payload))
        else:
            events.append(_parse_close(payload))
            self.close_received = True
            self._stop_reading()
        return stop

    def _fail(self, error: RemoteProtocolError) -> Fail:
        self._stop_reading()
        return Fail(error)

    def _stop_reading(self) -> None:
        # 1.4: "after receiving a control frame indicating the connection should be closed, a peer
        # discards any further data received."
        # 7.1.7: "An endpoint MUST NOT continue to attempt to process data (including a responding
        # Close frame) from the remote endpoint after being instructed to _Fail the WebSocket
        # Connection_."
        self._over = True
        self.fast_limit = -1
        self._message = None
        self._missing = 0
        self._held = b""


def _parse_close(payload: bytes) -> Close:
    """Read the peer's Close, RFC 6455 5.5.1, 7.1.5 and 7.1.6."""
    if not payload:
        return Close(NO_STATUS_RECEIVED, "")
    if len(payload) == 1:
        raise RemoteProtocolError("close code cut off")
    code = int.from_bytes(payload[:2], "big")
    if not close_code_may_travel(code):
        raise RemoteProtocolError(f"close code {code} may not be sent")
    return Close(code, payload[2:].decode())


def _check_length(length: int, octets: int) -> None:
    """Check a length that has a field of its own, of 2 or 8 octets."""
    # 5.2: "the minimal number of bytes MUST be used to encode the length, for example, the length
    # of a 124-byte-long string can't be encoded as the sequence 126, 0, 124."
    if length < (LENGTH_IN_16_BITS if octets == 2 else 1 << 16):
        raise RemoteProtocolError("length not in the fewest bytes")
    if length > MAX_LENGTH:
        raise RemoteProtocolError("length above 63 bits")


def _not_utf_8(error: UnicodeDecodeError) -> InvalidPayload:
    # Only the reason: the error itself holds the payload.
    return InvalidPayload(f"not UTF-8: {error.reason}")
