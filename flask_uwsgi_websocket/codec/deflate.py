"""permessage-deflate, RFC 7692 section 7: negotiation and the two directions.

Each direction is one stream of deflate (RFC 1951) that goes on from message to message, unless
"no context takeover" was agreed for it; then each message is a stream of its own. The end of a
message is where the stream was flushed, less the four octets that every flush ends with.

What it costs: a compressor of 12 window bits and memory level 5 holds about 50 KiB with its
inflater for each connection, 15 and 8 about 280 KiB. Without context takeover nothing is held
between messages.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

from ..exceptions import HandshakeError, InvalidPayload, MessageTooBig
from ..helpers.checks import BYTES_OR_NONE, SWITCH, whole
from .handshake import Extension

if TYPE_CHECKING:
    from zlib import _Compress, _Decompress

NAME: Final = "permessage-deflate"

#: RFC 7692 7.2.1: a sync flush ends with these, and the sender removes them "from the tail end".
_TAIL: Final = b"\x00\x00\xff\xff"

#: Streams that may end within one message: a stream ends with the block that is marked as its last
#: (BFINAL, 7.2.3.4). Each costs a new inflater and a copy of the rest, and nobody needs many.
_MAX_ENDED: Final = 16

#: zlib cannot write with a window of 8 bits, and does not inflate with one.
_SMALLEST_WINDOW: Final = 9
_LARGEST_WINDOW: Final = 15


@dataclass(frozen=True, slots=True)
class DeflateSettings:
    """The settings of permessage-deflate that one side wants.

    :param server_max_window_bits: window of what the server sends, 9 to 15.
    :param client_max_window_bits: window of what the client sends, 9 to 15.
    :param server_no_context_takeover: the server compresses each message by itself.
    :param client_no_context_takeover: the client compresses each message by itself.
    :param level: zlib's level, 0 to 9.
    :param mem_level: zlib's memory level, 1 to 9.
    :param threshold: octets from which on a message is worth compressing.
    """

    server_max_window_bits: int = 12
    client_max_window_bits: int = 12
    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    level: int = 6
    mem_level: int = 5
    threshold: int = 64

    def __post_init__(self) -> None:
        for name, kind in _SETTINGS.items():
            kind.check(name, getattr(self, name))


_WINDOW_BITS = whole(_SMALLEST_WINDOW, _LARGEST_WINDOW)
_SETTINGS = {
    "server_max_window_bits": _WINDOW_BITS,
    "client_max_window_bits": _WINDOW_BITS,
    "server_no_context_takeover": SWITCH,
    "client_no_context_takeover": SWITCH,
    "level": whole(0, 9),
    "mem_level": whole(1, 9),
    "threshold": BYTES_OR_NONE,
}


class Deflate:
    """permessage-deflate of one connection, as :func:`negotiate` or :func:`accept` agreed it.

    :param send_bits: window bits of what we send.
    :param receive_bits: window bits of what the peer sends.
    :param send_takeover: whether our messages share one stream.
    :param receive_takeover: whether the peer's messages share one stream.
    """

    __slots__ = (
        "_compressor",
        "_ended",
        "_inflater",
        "compressor_settings",
        "deflated",
        "deflated_to",
        "inflated",
        "inflated_from",
        "receive_bits",
        "receive_takeover",
        "send_bits",
        "send_takeover",
        "threshold",
    )

    def __init__(
        self,
        *,
        send_bits: int = _LARGEST_WINDOW,
        receive_bits: int = _LARGEST_WINDOW,
        send_takeover: bool = True,
        receive_takeover: bool = True,
        settings: DeflateSettings = DeflateSettings(),
    ) -> None:
        self.send_bits: Final = send_bits
        self.receive_bits: Final = max(receive_bits, _SMALLEST_WINDOW)
        self.send_takeover: Final = send_takeover
        self.receive_takeover: Final = receive_takeover
        self.threshold: Final = settings.threshold
        #: What zlib's compressor is made with: alike connections compress a message alike.
        self.compressor_settings = (settings.level, zlib.DEFLATED, -send_bits, settings.mem_level)
        #: Octets that have come out of :meth:`decompress` so far, and that have gone into it.
        self.inflated = self.inflated_from = 0
        #: Octets that have gone into :meth:`compress` so far, and that have come out of it.
        self.deflated = self.deflated_to = 0
        self._compressor: _Compress | None = None
        self._inflater: _Decompress | None = None
        self._ended = 0  # streams that ended within the open message

    def compress(self, data: bytes) -> bytes:
        """Compress one message, RFC 7692 7.2.1."""
        compressor = self._compressor or zlib.compressobj(*self.compressor_settings)
        if self.send_takeover:
            self._compressor = compressor
        compressed = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
        # 7.2.3.6: an empty message is one octet of 0x00; zlib flushes nothing when it has nothing.
        compressed = compressed[: -len(_TAIL)] or b"\x00"
        self.deflated += len(data)
        self.deflated_to += len(compressed)
        return compressed

    def reset(self) -> None:
        """Forget what was sent: the next message refers to nothing before it."""
        self._compressor = None

    def decompress(self, data: bytes, last: bool, room: int) -> bytes:
        """Inflate a piece of a message, RFC 7692 7.2.2.

        :param room: octets that the message may still grow by. Nothing is inflated beyond.
        :raises MessageTooBig: when it would be more.
        :raises InvalidPayload: for what is not deflate.
        """
        self.inflated_from += len(data)
        if last:
            # 7.2.2: "Append 4 octets of 0x00 0x00 0xff 0xff to the tail end of the payload"
            data += _TAIL
        inflated = b""
        # Skip the tail if its stream has ended: no other begins for it.
        while data and (self._inflater is not None or data != _TAIL):
            inflater = self._inflater or zlib.decompressobj(-self.receive_bits)
            try:
                inflated += inflater.decompress(data, room + 1 - len(inflated))
            except zlib.error:
                raise InvalidPayload("compressed data that does not inflate") from None
            if len(inflated) > room:
                raise MessageTooBig("message above the limit when inflated")
            data = inflater.unused_data
            self._inflater = inflater
            if inflater.eof:
                self._end_stream()
        self.inflated += len(inflated)
        if last:
            self._ended = 0
            if not self.receive_takeover:
                self._inflater = None
        return inflated

    def _end_stream(self) -> None:
        self._inflater = None
        self._ended += 1
        if self._ended > _MAX_ENDED:
            raise InvalidPayload("compressed data in too many streams")


@dataclass(slots=True)
class _Parameters:
    """The parameters of one offer or answer, RFC 7692 7.1; ``None``: not there."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int | None = None
    client_max_window_bits: int | None = None

    def __str__(self) -> str:
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        words = [name if value is True else f"{name}={value}" for name, value in values if value]
        return "; ".join([NAME, *words])


#: 7.1.2: "a decimal integer value without leading zeroes between 8 to 15, inclusive"
_is_window_bits = re.compile("[89]|1[0-5]").fullmatch


def _parse(extension: Extension, *, is_offer: bool) -> _Parameters:
    """Read the parameters of an offer or an answer.

    :raises ValueError: for what section 7 has a server decline and a client refuse: an unknown
        parameter, a parameter twice, a wrong value.
    """
    seen = _Parameters()
    names = set()
    for name, value in extension.parameters:
        if name in names:
            raise ValueError(f"{name} twice")
        names.add(name)
        if name in ("server_no_context_takeover", "client_no_context_takeover"):
            if value is not None:
                raise ValueError(f"{name} takes no value")
            setattr(seen, name, True)
        elif name == "client_max_window_bits" and value is None and is_offer:
            # 7.1.2.2: an offer without a value only says that the client knows the parameter.
            seen.client_max_window_bits = _LARGEST_WINDOW
        elif name in ("server_max_window_bits", "client_max_window_bits"):
            if value is None or not _is_window_bits(value):
                raise ValueError(f"{name} must be from 8 to 15")
            setattr(seen, name, int(value))
        else:
            raise ValueError(f"unknown parameter {name}")
    return seen


def negotiate(
    offers: Iterable[Extension], settings: DeflateSettings
) -> tuple[Deflate | None, str | None]:
    """Take, as the server, the client's first offer that we can fulfil.

    :returns: the extension, and the value of the answer's ``Sec-WebSocket-Extensions``; both
        ``None`` when no offer is taken.
    """
    for extension in offers:
        if extension.name != NAME:
            continue
        try:
            offered = _parse(extension, is_offer=True)
        except ValueError:
            # 7: "A server MUST decline an extension negotiation offer for this extension if"
            # any of what _parse refuses is in it.
            continue
        if offered.server_max_window_bits == 8:
            continue  # zlib cannot
        answer = _answer(offered, settings)
        deflate = Deflate(
            send_bits=_server_bits(offered, settings),
            receive_bits=answer.client_max_window_bits or _LARGEST_WINDOW,
            send_takeover=not answer.server_no_context_takeover,
            receive_takeover=not answer.client_no_context_takeover,
            settings=settings,
        )
        return deflate, str(answer)
    return None, None


def _answer(offered: _Parameters, settings: DeflateSettings) -> _Parameters:
    # Each parameter is agreed to by being in the answer. 7.1.2.2: "If a received extension
    # negotiation offer doesn't have the "client_max_window_bits" extension parameter, the
    # corresponding extension negotiation response to the offer MUST NOT include" it.
    answer = _Parameters(
        offered.server_no_context_takeover or settings.server_no_context_takeover,
        offered.client_no_context_takeover or settings.client_no_context_takeover,
    )
    # 7.1.2.1 lets the server name its window unasked, but there are clients that then fail the
    # connection. Nothing is lost by silence: any inflater reads what a smaller window wrote.
    if offered.server_max_window_bits is not None:
        answer.server_max_window_bits = _server_bits(offered, settings)
    if offered.client_max_window_bits is not None:
        client_bits = min(offered.client_max_window_bits, settings.client_max_window_bits)
        if client_bits < _LARGEST_WINDOW:
            answer.client_max_window_bits = client_bits
    return answer


def _server_bits(offered: _Parameters, settings: DeflateSettings) -> int:
    """Return the window bits of what the server sends, whether or not the answer names them."""
    return min(offered.server_max_window_bits or _LARGEST_WINDOW, settings.server_max_window_bits)


def offer(settings: DeflateSettings) -> str:
    """Make, as a client, the ``Sec-WebSocket-Extensions`` that asks for the settings."""
    asked = _Parameters(
        settings.server_no_context_takeover,
        settings.client_no_context_takeover,
        client_max_window_bits=settings.client_max_window_bits,
    )
    if settings.server_max_window_bits < _LARGEST_WINDOW:
        asked.server_max_window_bits = settings.server_max_window_bits
    return str(asked)


def accept(extensions: Iterable[Extension], settings: DeflateSettings | None) -> Deflate | None:
    """Take, as a client, what the server made of the :func:`offer`.

    :param settings: those offered; ``None`` when nothing was.
    :raises HandshakeError: for an answer that the offer did not allow (RFC 6455 4.1, RFC 7692
        7: "A client MUST _Fail the WebSocket Connection_").
    """
    agreed = None
    for extension in extensions:
        if settings is None or extension.name != NAME or agreed is not None:
            raise HandshakeError(101, f"extension {extension.name} was not offered")
        agreed = _accept(extension, settings)
    return agreed


def _accept(extension: Extension, settings: DeflateSettings) -> Deflate:
    try:
        answer = _parse(extension, is_offer=False)
    except ValueError as error:
        raise HandshakeError(101, f"wrong answer to {NAME}: {error}") from None
    server_bits = answer.server_max_window_bits or _LARGEST_WINDOW
    client_bits = answer.client_max_window_bits or _LARGEST_WINDOW
    if server_bits > settings.server_max_window_bits:
        raise HandshakeError(101, "server_max_window_bits above the offer")
    if settings.server_no_context_takeover and not answer.server_no_context_takeover:
        raise HandshakeError(101, "server_no_context_takeover not granted")
    if client_bits == 8:
        raise HandshakeError(101, "client_max_window_bits=8 is more than zlib can do")
    return Deflate(
        send_bits=min(client_bits, settings.client_max_window_bits),
        receive_bits=server_bits,
        send_takeover=not (
            answer.client_no_context_takeover or settings.client_no_context_takeover
        ),
        receive_takeover=not answer.server_no_context_takeover,
        settings=settings,
    )
