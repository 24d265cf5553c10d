"""One WebSocket connection after its opening handshake: bytes in, events and frames out.

RFC 6455 sections 5 (framing), 6 (sending and receiving), 7 (closing) and 8 (errors). No socket,
clock, thread or lock lives here: whoever owns the connection feeds :meth:`Protocol.receive_data`
and sends what the other methods return, in the order in which they returned it. One thread at a
time may receive and one at a time may send; the two need no lock between them.

**Closing.** Each side sends one Close and nothing but control frames after it. The connection is
*open* until the first Close; *closing* while one of the two is out; *closed* when both are. A
peer that breaks the protocol is read no more, as if it had sent its Close: our Close tells it why,
and then the connection is closed.

=====================  =====================  =====================
..                     peer still read        peer's Close, or Fail
=====================  =====================  =====================
our Close not sent     OPEN                   CLOSING: answer it
our Close sent         CLOSING: wait for it   CLOSED
=====================  =====================  =====================

**Messages and frames.** What the next frame may be depends on whether a message has begun
(RFC 6455 5.4); control frames may come between the frames of a message:

=================  ==========================  ==============  ===============
..                 text, binary                continuation    control
=================  ==========================  ==============  ===============
between messages   begins a message            error 1002      event at once
in a message       error 1002                  goes on with it event at once
=================  ==========================  ==============  ===============

A frame with FIN ends the message that it belongs to.

**Speed.** Most chunks are one whole small message, or many: ``straight.py`` and
:meth:`Protocol._read_whole_messages` take a straight path through these. Everything else, and
everything that is wrong, goes frame by frame through :meth:`Protocol._read_frame`. The paths obey
the same rules; the tests run one against the other.
"""

from __future__ import annotations

import os
from enum import Enum
from typing import Final

from ..exceptions import (
    InvalidPayload,
    LocalProtocolError,
    MessageTooBig,
    RemoteProtocolError,
)
from .deflate import Deflate
from .events import Close, Event, Fail, Ping, Pong
from .fast_path import VIEW_FROM, WHOLE_BINARY, WHOLE_TEXT, whole_frame, whole_message
from .frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    HEADER_16,
    HEADER_64,
    LENGTH_IN_16_BITS,
    MASK,
    MAX_CONTROL_PAYLOAD,
    MAX_LENGTH,
    PING,
    PONG,
    RSV1,
    RSV2,
    RSV3,
    SHORT_HEADER,
    TEXT,
    CloseCode,
    check_close,
    close_code_may_travel,
    frame,
    frame_header,
    masked_frame_header,
    unpack_header_16,
    unpack_header_64,
)
from .masking import apply_mask
from .messages import BinaryMessage, TextMessage
from .skipping import FrameSkipper

__all__ = ["CLIENT", "SERVER", "Protocol", "Role", "State"]


class Role(Enum):
    """Which end of the connection we are: a client masks its frames, a server must not (5.1)."""

    SERVER = "server"
    CLIENT = "client"


SERVER: Final = Role.SERVER
CLIENT: Final = Role.CLIENT


class State(Enum):
    """How far the closing handshake is (RFC 6455 7.1.2 to 7.1.4): the table above."""

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


# Said by a reader of frames where the chunk ends before the frame does.
_CUT_OFF: Final = -1


class Protocol:
    """One end of one connection.

    :param role: :data:`SERVER` or :data:`CLIENT`.
    :param max_message_size: largest message taken, in octets of payload, all fragments together
        and after decompression. A larger one fails the connection with close code 1009, as soon
        as its announced length or its inflated size says so.
    :param deflate: the negotiated permessage-deflate extension (RFC 7692), or ``None``.
    """

    __slots__ = (
        "_announced",
        "_compressed",
        "_final",
        "_goes_straight",
        "_held",
        "_key",
        "_masks",
        "_max_size",
        "_message",
        "_missing",
        "_over",
        "_plain_below",
        "_room",
        "_skipper",
        "_straight",
        "close_received",
        "close_sent",
        "deflate",
    )

    def __init__(
        self,
        role: Role,
        *,
        max_message_size: int = 1 << 20,  # 1 MiB: uWSGI's own default for websocket-max-size
        deflate: Deflate | None = None,
    ) -> None:
        self.deflate: Final = deflate
        self.close_sent = False
        self.close_received = False
        self._masks = role is CLIENT
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

        # Whether the straight paths are open to us at all: not to a client, whose peer does not
        # mask, nor where even a short frame may be above the limit. And whether one may be taken
        # now, between messages with nothing held.
        self._goes_straight = role is SERVER and max_message_size >= MAX_CONTROL_PAYLOAD
        self._straight = self._goes_straight

        # Data smaller than this is sent as it is, in an unmasked frame with a length of 7 or 16
        # bits; not so a client's, and nothing after our Close.
        self._plain_below = 0 if self._masks else 1 << 16
        if deflate is not None:
            self._plain_below = min(self._plain_below, deflate.threshold)

    @property
    def state(self) -> State:
        """How far the closing handshake is."""
        if self.close_sent and self._over:
            return State.CLOSED
        return State.CLOSING if self.close_sent or self._over else State.OPEN

    @property
    def incomplete(self) -> bool:
        """Whether a frame or a message has begun to arrive and has not ended."""
        return self._message is not None or bool(self._held)

    @property
    def is_sending(self) -> bool:
        """Whether the peer, which broke the protocol, is in the middle of a frame."""
        return self._skipper is not None and self._skipper.in_frame

    # Receiving

    def whole_message(self, data: bytes) -> str | bytes | None:
        """The message, where ``data`` is just that: one message, in one frame, and all of it.

        Changes nothing. For anything else it gives None, and :meth:`receive_frames` takes it.
        """
        return whole_message(data, self._max_size) if self._straight else None

    def receive_data(self, data: bytes) -> list[Event]:
        """Take what the peer sent and give the events that it completes.

        Nothing is raised for what the peer sent: the last event is a :class:`Fail` instead, and
        the messages before it are not lost. After :class:`Close` or :class:`Fail` nothing more
        is read (RFC 6455 1.4, 7.1.7), and the list is empty.
        """
        message = self.whole_message(data)
        return self.receive_frames(data) if message is None else [message]

    def receive_frames(self, data: bytes) -> list[Event]:
        """:meth:`receive_data`, for whoever has asked :meth:`whole_message` already."""
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
        self._straight = self._goes_straight and not (self._over or self.incomplete)
        return events

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
            if self._goes_straight and self._message is None:
                pos = self._read_whole_messages(data, pos, end, events)
                if pos == end:
                    break
            start = pos
            pos = self._read_frame(data, start, end, events)
            if pos == _CUT_OFF:
                self._held = data[start:]
                break

    def _read_whole_messages(self, data: bytes, pos: int, end: int, events: list[Event]) -> int:
        """Take messages of one whole frame, one after another; where the first other thing begins.

        Whatever is cut off, too big or wrong is left to :meth:`_read_frame`.
        """
        while end - pos >= HEADER_16:
            first = data[pos]
            if first != WHOLE_TEXT and first != WHOLE_BINARY:
                break
            length = data[pos + 1] - MASK
            if length < LENGTH_IN_16_BITS:
                if length < 0:
                    break
                begin = pos + SHORT_HEADER
                key = data[pos + 2 : begin]
            elif length == LENGTH_IN_16_BITS:
                _, _, length, key = unpack_header_16(data, pos)
                begin = pos + HEADER_16
                if not LENGTH_IN_16_BITS <= length <= self._max_size:
                    break
            else:
                if end - pos < HEADER_64:
                    break
                _, _, length, key = unpack_header_64(data, pos)
                begin = pos + HEADER_64
                if not 1 << 16 <= length <= self._max_size:
                    break
            stop = begin + length
            if stop > end:
                break
            payload = data[begin:stop] if length < VIEW_FROM else memoryview(data)[begin:stop]
            message = apply_mask(payload, key)
            events.append(message.decode() if first == WHOLE_TEXT else message)
            pos = stop
        return pos

    def _read_frame(self, data: bytes, pos: int, end: int, events: list[Event]) -> int:
        """Read a frame's header, and all of it if it is a control frame or empty.

        Gives where that ended, or ``_CUT_OFF`` when the chunk ends before.
        """
        if end - pos < 2:
            return _CUT_OFF
        first, second = data[pos], data[pos + 1]
        opcode = first & 0x0F
        self._check_bits(first, second)
        self._check_opcode(first, second)
        if opcode >= CLOSE:
            return self._read_control(data, pos, end, events)

        length = second & 0x7F
        pos += 2
        if length >= LENGTH_IN_16_BITS:
            octets = 2 if length == LENGTH_IN_16_BITS else 8
            if end - pos < octets:
                return _CUT_OFF
            length = int.from_bytes(data[pos : pos + octets], "big")
            _check_long_length(length, octets)
            pos += octets
        self._check_size(first, length)
        if second & MASK:
            if end - pos < 4:
                return _CUT_OFF
            self._key = data[pos : pos + 4]
            pos += 4

        if opcode != CONTINUATION:
            self._message = TextMessage() if opcode == TEXT else BinaryMessage()
            self._compressed = bool(first & RSV1)
            self._room = self._max_size
        self._announced += length
        self._final = bool(first & FIN)
        self._missing = length
        return pos if length else self._read_payload(data, pos, pos, events)

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
        """Take what the chunk has of the open frame's payload; where that ends."""
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
        """The payload from ``pos`` to ``stop``, and the key turned to the octet after it."""
        if self._masks:
            return data[pos:stop]
        key, size = self._key, stop - pos
        turn = size & 3
        self._key = key[turn:] + key[:turn]
        return apply_mask(data[pos:stop] if size < VIEW_FROM else memoryview(data)[pos:stop], key)

    def _read_control(self, data: bytes, pos: int, end: int, events: list[Event]) -> int:
        """Take a control frame, if it is whole; where it ends, or ``_CUT_OFF``."""
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
        self._straight = False
        self._message = None
        self._missing = 0
        self._held = b""

    # Sending

    def text(self, message: str, compress: bool = True) -> bytes:
        """The frame of a text message.

        :param compress: ``False`` sends it uncompressed whatever was negotiated.
        :raises LocalProtocolError: after our Close; for a lone surrogate, which UTF-8 cannot say.
        """
        whole = whole_frame(message, self._plain_below)
        if whole is not None:
            return whole
        return b"".join(self._data_frame(TEXT, _encode(message), compress))

    def binary(self, message: bytes | bytearray | memoryview, compress: bool = True) -> bytes:
        """The frame of a binary message; see :meth:`text`."""
        data = message if type(message) is bytes else bytes(memoryview(message))
        whole = whole_frame(data, self._plain_below)
        if whole is not None:
            return whole
        return b"".join(self._data_frame(BINARY, data, compress))

    def text_buffers(self, message: str, compress: bool = True) -> tuple[bytes, bytes]:
        """Header and payload of a text message apart, for ``sendmsg``: a big one is not copied."""
        return self._data_frame(TEXT, _encode(message), compress)

    def binary_buffers(
        self, message: bytes | bytearray | memoryview, compress: bool = True
    ) -> tuple[bytes, bytes]:
        """Header and payload of a binary message apart; see :meth:`text_buffers`."""
        data = message if type(message) is bytes else bytes(memoryview(message))
        return self._data_frame(BINARY, data, compress)

    def ping(self, data: bytes = b"") -> bytes:
        """A Ping frame (RFC 6455 5.5.2).

        :raises LocalProtocolError: for more than 125 octets; once the connection is closed.
        """
        return self._control_frame(PING, data)

    def pong(self, data: bytes = b"") -> bytes:
        """A Pong frame (RFC 6455 5.5.3), as :meth:`ping`.

        "A Pong frame sent in response to a Ping frame must have identical "Application data" as
        found in the message body of the Ping frame being replied to."
        """
        return self._control_frame(PONG, data)

    def close(self, code: int = 1000, reason: str = "") -> bytes:
        """Our Close frame (RFC 6455 5.5.1), sent once and after all data.

        :param code: one that may be sent (7.4), or 1005 for a Close without a code, which answers
            such a one.
        :param reason: at most 123 octets of UTF-8.
        :raises LocalProtocolError: for another code, a longer reason, a second Close.
        """
        if self.close_sent:
            raise LocalProtocolError("Close was sent already")
        payload = b""
        if code != CloseCode.NO_STATUS_RECEIVED:
            check_close(code, reason)
            payload = code.to_bytes(2, "big") + _encode(reason)
        elif reason:
            # 5.5.1: "If there is a body, the first two bytes of the body MUST be a 2-byte unsigned
            # integer [...] representing a status code"
            raise LocalProtocolError("a close reason needs a close code")
        close = self._control_frame(CLOSE, payload)
        self.close_sent = True
        self._plain_below = 0
        return close

    def _data_frame(self, opcode: int, data: bytes, compress: bool) -> tuple[bytes, bytes]:
        if self.close_sent:
            # 5.5.1: "The application MUST NOT send any more data frames after sending a Close
            # frame."
            raise LocalProtocolError("no data may follow our Close")
        first = FIN | opcode
        if compress and self.deflate is not None and len(data) >= self.deflate.threshold:
            # RFC 7692 6: RSV1 is the "Per-Message Compressed" bit.
            first |= RSV1
            data = self.deflate.compress(data)
        if not self._masks:
            return frame_header(first, len(data)), data
        # RFC 6455 5.3: "The masking key needs to be unpredictable", fresh for each frame.
        key = os.urandom(4)
        return masked_frame_header(first, len(data), key), apply_mask(data, key)

    def _control_frame(self, opcode: int, data: bytes) -> bytes:
        if len(data) > MAX_CONTROL_PAYLOAD:
            raise LocalProtocolError(f"control frame above {MAX_CONTROL_PAYLOAD} bytes")
        if self.state is State.CLOSED:
            raise LocalProtocolError("the connection is closed")
        return frame(FIN | opcode, bytes(data), os.urandom(4) if self._masks else None)


def _parse_close(payload: bytes) -> Close:
    """The peer's Close, RFC 6455 5.5.1, 7.1.5 and 7.1.6."""
    if not payload:
        return Close(CloseCode.NO_STATUS_RECEIVED.value, "")
    if len(payload) == 1:
        raise RemoteProtocolError("close code cut off")
    code = int.from_bytes(payload[:2], "big")
    if not close_code_may_travel(code):
        raise RemoteProtocolError(f"close code {code} may not be sent")
    return Close(code, payload[2:].decode())


def _check_long_length(length: int, octets: int) -> None:
    # 5.2: "the minimal number of bytes MUST be used to encode the length, for example, the length
    # of a 124-byte-long string can't be encoded as the sequence 126, 0, 124."
    if length < (LENGTH_IN_16_BITS if octets == 2 else 1 << 16):
        raise RemoteProtocolError("length not in the fewest bytes")
    if length > MAX_LENGTH:
        raise RemoteProtocolError("length above 63 bits")


def _not_utf_8(error: UnicodeDecodeError) -> InvalidPayload:
    # Only the reason: the error itself holds the payload.
    return InvalidPayload(f"not UTF-8: {error.reason}")


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"text that UTF-8 cannot encode: {error.reason}") from None
