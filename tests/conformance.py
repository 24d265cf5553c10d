"""What a server must do with what a client may send: RFC 6455 and RFC 7692 as a table.

Each :class:`Case` is a connection to an echo server (it sends each message back as it came): the
chunks that the client sends, and what must come back. Nothing here knows pytest, the package under
test, or how a server is reached. Who runs a case

1. connects, offering ``case.offer`` as ``Sec-WebSocket-Extensions`` if it is not ``None``;
2. makes a ``Peer(case, answer)`` with the server's ``Sec-WebSocket-Extensions`` (or ``None``);
3. sends ``case.chunks``, each as a write of its own, with a short pause between where the network
   would join them, and feeds the peer what arrives, until ``peer.done``: at the server's Close, or
   once all that is expected is there;
4. if the case's ``close`` is ``None`` sends ``GOODBYE`` then, and feeds until the server's Close;
5. finds nothing in ``peer.problems()``.

The server needs compression switched on with the default settings, and a limit of
``MAX_MESSAGE_SIZE`` octets for a message.

:data:`HANDSHAKES` are opening handshakes and the answers to them.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from tests.rawclient import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    close_frame,
    frame,
)

MAX_MESSAGE_SIZE = 1 << 20

#: Close code and reason of the Close that ends a connection on which nothing went wrong.
GOODBYE = close_frame(1000, "goodbye")

#: A plain offer of permessage-deflate, and what a server with the default settings answers to it.
DEFLATE = "permessage-deflate"

RSV1 = 4  # of the three reserved bits


@dataclass(frozen=True)
class Case:
    """One connection.

    :param name: class of cases, then what this one is about: ``"utf8/invalid/..."``.
    :param chunks: what the client writes.
    :param messages: the echoes to come, in order. A server that fails the connection may drop
        those that it had not sent yet.
    :param pongs: payloads of the pongs to come; the last must come, others may be left out
        (RFC 6455 5.5.3).
    :param close: the code of the server's Close (1005: a Close without one); ``None`` when it
        stays open.
    :param offer: the client's ``Sec-WebSocket-Extensions``.
    :param answer: what the server must agree to; ``None`` for no extension.
    """

    name: str
    chunks: tuple[bytes, ...]
    messages: tuple[str | bytes, ...] = ()
    pongs: tuple[bytes, ...] = ()
    close: int | None = None
    offer: str | None = None
    answer: str | None = None

    @property
    def fails(self) -> bool:
        """Whether the server is to fail the connection, not to answer the client's Close."""
        return self.close in (1002, 1003, 1007, 1009) and not self.name.startswith("close/code")


def parse_frames(data: bytes) -> tuple[list[Frame], bytes]:
    """The whole frames in what a server sent, and the rest.

    :raises ValueError: for what a server must not send.
    """
    frames: list[Frame] = []
    while len(data) >= 2:
        first, second = data[0], data[1]
        if second & 0x80:
            raise ValueError("the server masks")
        begin, length = 2, second
        if second == 126:
            begin = 4
        elif second == 127:
            begin = 10
        if len(data) < begin:
            break
        if begin > 2:
            length = int.from_bytes(data[2:begin], "big")
            if length < (126 if begin == 4 else 65536):
                raise ValueError("the server does not use the shortest length")
        if len(data) < begin + length:
            break
        frames.append(
            Frame(first & 0xF, data[begin : begin + length], bool(first >> 7), first >> 4 & 7)
        )
        data = data[begin + length :]
    return frames, data


class Peer:
    """The client's memory of one connection: what came, and what is wrong with it."""

    def __init__(self, case: Case, answer: str | None) -> None:
        self.case = case
        self.messages: list[str | bytes] = []
        self.pongs: list[bytes] = []
        self.close: int | None = None
        self.reason = ""
        self._wrong: list[str] = []
        self._rest = b""
        self._opcode = 0
        self._compressed = False
        self._fragments: list[bytes] = []
        self._inflate = Inflater(answer) if answer else None
        if answer != case.answer:
            self._wrong.append(f"extension {answer!r} instead of {case.answer!r}")

    @property
    def done(self) -> bool:
        """Whether the server's Close came, or, where none is expected yet, everything else."""
        if self.close is not None or self.case.close is not None:
            return self.close is not None
        pongs_came = self.pongs[-1:] == list(self.case.pongs[-1:])
        return pongs_came and len(self.messages) >= len(self.case.messages)

    def feed(self, data: bytes) -> None:
        """Take what the server sent."""
        if self.close is not None and data:
            self._wrong.append("data after the server's Close")
            return
        try:
            frames, self._rest = parse_frames(self._rest + data)
        except ValueError as error:
            self._wrong.append(str(error))
            return
        for received in frames:
            if self.close is not None:
                self._wrong.append(f"{received} after the server's Close")
            elif received.opcode >= CLOSE:
                self._control(received)
            else:
                self._data(received)

    def _control(self, frame: Frame) -> None:
        if not frame.fin or frame.rsv or len(frame.payload) > 125 or frame.opcode > PONG:
            self._wrong.append(f"malformed control frame {frame}")
        elif frame.opcode == PONG:
            self.pongs.append(frame.payload)
        elif frame.opcode == CLOSE:
            self.close = frame.code if frame.code is not None else 1005
            self.reason = frame.reason

    def _data(self, frame: Frame) -> None:
        opens = frame.opcode in (TEXT, BINARY)
        if opens == bool(self._opcode) or frame.opcode > BINARY:
            self._wrong.append(f"misplaced {frame}")
            return
        if frame.rsv and not (frame.rsv == RSV1 and opens and self._inflate):
            self._wrong.append(f"reserved bits in {frame}")
            return
        if opens:
            self._opcode, self._compressed = frame.opcode, bool(frame.rsv)
        self._fragments.append(frame.payload)
        if frame.fin:
            data = b"".join(self._fragments)
            if self._compressed and self._inflate:
                data = self._inflate(data)
            self.messages.append(data.decode() if self._opcode == TEXT else data)
            self._opcode, self._fragments = 0, []

    def problems(self) -> list[str]:
        """What was not as the case says; empty when all is well."""
        case, problems = self.case, list(self._wrong)
        expected, came = list(case.messages), self.messages
        if came != expected[: len(came)] or (len(came) < len(expected) and not case.fails):
            problems.append(f"messages {_short(came)} instead of {_short(expected)}")
        pongs = iter(case.pongs)
        if not all(pong in pongs for pong in self.pongs):
            problems.append(f"pongs {_short(self.pongs)} instead of {_short(case.pongs)}")
        elif self.pongs[-1:] != list(case.pongs[-1:]) and not case.fails:
            problems.append(f"no pong {_short(case.pongs[-1:])}")
        close = 1000 if case.close is None else case.close
        if self.close != close:
            problems.append(f"close code {self.close} ({self.reason}) instead of {close}")
        if self._rest or self._opcode:
            problems.append("ended within a frame or a message")
        return problems


def _short(values: object) -> str:
    text = repr(values)
    return text if len(text) < 200 else f"{text[:200]}..."


class Inflater:
    """Inflates as the server's answer allows, and no more: a window too large is an error."""

    def __init__(self, answer: str) -> None:
        parameters = dict(_parameters(answer))
        self._bits = int(parameters.get("server_max_window_bits") or 15)
        self._takeover = "server_no_context_takeover" not in parameters
        self._inflate = zlib.decompressobj(-self._bits)

    def __call__(self, data: bytes) -> bytes:
        message = self._inflate.decompress(data + b"\x00\x00\xff\xff")
        if not self._takeover:
            self._inflate = zlib.decompressobj(-self._bits)
        return message


class Deflater:
    """Compresses as the server's answer allows."""

    def __init__(self, answer: str, level: int = 6, strategy: int = zlib.Z_DEFAULT_STRATEGY):
        parameters = dict(_parameters(answer))
        bits = int(parameters.get("client_max_window_bits") or 15)
        self._how = (level, zlib.DEFLATED, -max(bits, 9), 8, strategy)
        self._takeover = "client_no_context_takeover" not in parameters
        self._deflate = zlib.compressobj(*self._how)

    def __call__(self, data: bytes | str) -> bytes:
        octets = data.encode() if isinstance(data, str) else data
        packed = self._deflate.compress(octets) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        if not self._takeover:
            self._deflate = zlib.compressobj(*self._how)
        return packed[:-4]


def _parameters(answer: str) -> Iterator[tuple[str, str]]:
    for parameter in answer.split(";")[1:]:
        name, _, value = parameter.strip().partition("=")
        yield name, value


# The table

_random = random.Random(6455)


def _cut(data: bytes, size: int) -> tuple[bytes, ...]:
    return tuple(data[i : i + size] for i in range(0, len(data), size))


def _fragments(opcode: int, parts: list[bytes], rsv: int = 0) -> bytes:
    """A message of so many frames."""
    return b"".join(
        frame(
            CONTINUATION if i else opcode,
            part,
            fin=i == len(parts) - 1,
            rsv=0 if i else rsv,
            mask=_random.randbytes(4),
        )
        for i, part in enumerate(parts)
    )


def _framing() -> Iterator[Case]:
    """RFC 6455 5.2 and 5.3: lengths, masks."""
    yield Case(
        "framing/RFC 5.7 masked Hello", (bytes.fromhex("818537fa213d7f9f4d5158"),), ("Hello",)
    )
    for size in (0, 1, 2, 7, 124, 125, 126, 127, 128, 129, 4096, 65535, 65536, 65537, 300_000):
        text = ("abcdefghijklmnopqrstuvwxyz" * (size // 26 + 1))[:size]
        data = _random.randbytes(size)
        yield Case(f"framing/text of {size}", (frame(TEXT, text),), (text,))
        yield Case(f"framing/binary of {size}", (frame(BINARY, data),), (data,))
        pieces = _cut(frame(BINARY, data), max(1, size // 7 + 1))
        yield Case(f"framing/binary of {size} in chunks", pieces, (data,))
    for size in (0, 1, 125, 126, 200):
        text = "x" * size
        yield Case(f"framing/text of {size} octet by octet", _cut(frame(TEXT, text), 1), (text,))
    many = tuple(f"message {i}" * (i % 40) for i in range(300))
    stream = b"".join(frame(TEXT, message, mask=_random.randbytes(4)) for message in many)
    yield Case("framing/300 messages in a chunk", (stream,), many)
    yield Case("framing/300 messages in chunks of 1000", _cut(stream, 1000), many)
    for mask in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\1\2\3\4"):
        yield Case(f"framing/mask {mask.hex()}", (frame(TEXT, "masked", mask=mask),), ("masked",))
    for opcode in (TEXT, BINARY, PING, CLOSE):
        wrong = frame(opcode, b"", mask=None)
        yield Case(f"framing/opcode {opcode} not masked", (wrong,), close=1002)
    wrong = frame(TEXT, "first") + frame(TEXT, "second", mask=None)
    yield Case("framing/second message not masked", (wrong,), ("first",), close=1002)
    wrong = frame(TEXT, "a", fin=False) + frame(CONTINUATION, "b", mask=None)
    yield Case("framing/continuation not masked", (wrong,), close=1002)
    for size, octets in ((0, 2), (125, 2), (124, 2), (0, 8), (126, 8), (65535, 8)):
        for opcode in (TEXT, BINARY):
            wrong = frame(opcode, b"x" * size, length_size=octets)
            yield Case(f"framing/opcode {opcode}, {size} in {octets} octets", (wrong,), close=1002)
    wrong = frame(BINARY, b"", length=1 << 63, length_size=8)
    yield Case("framing/length of 64 bits", (wrong,), close=1002)


def _control() -> Iterator[Case]:
    """RFC 6455 5.5.2 and 5.5.3: pings and pongs."""
    yield Case("control/ping", (frame(PING),), pongs=(b"",))
    for size in (1, 5, 124, 125):
        payload = _random.randbytes(size)
        yield Case(f"control/ping of {size}", (frame(PING, payload),), pongs=(payload,))
        pieces = _cut(frame(PING, payload), 1)
        yield Case(f"control/ping of {size} octet by octet", pieces, pongs=(payload,))
    yield Case("control/ping not UTF-8", (frame(PING, b"\xff\x00\xfe"),), pongs=(b"\xff\x00\xfe",))
    for opcode in (PING, PONG, CLOSE):
        wrong = frame(opcode, b"\x03\xe8" + b"x" * 124)
        yield Case(f"control/opcode {opcode} of 126", (wrong,), close=1002)
        wrong = frame(opcode, b"\x03\xe8", length_size=2)
        yield Case(f"control/opcode {opcode} with a long length", (wrong,), close=1002)
        wrong = frame(opcode, b"\x03\xe8", fin=False)
        yield Case(f"control/opcode {opcode} in fragments", (wrong,), close=1002)
    many = tuple(f"ping {i}".encode() for i in range(10))
    stream = b"".join(frame(PING, payload) for payload in many)
    yield Case("control/10 pings in a chunk", (stream,), pongs=many)
    yield Case("control/10 pings octet by octet", _cut(stream, 1), pongs=many)
    yield Case("control/pong unasked", (frame(PONG, b"unasked"), frame(TEXT, "on")), ("on",))
    yield Case("control/pong unasked and empty", (frame(PONG), frame(TEXT, "on")), ("on",))
    mixed = frame(PONG, b"unasked") + frame(PING, b"asked") + frame(TEXT, "on")
    yield Case("control/pong, ping, text", (mixed,), ("on",), pongs=(b"asked",))


def _reserved() -> Iterator[Case]:
    """RFC 6455 5.2: reserved bits and opcodes, without an extension."""
    for rsv in range(1, 8):
        for opcode in (TEXT, BINARY, PING, PONG, CLOSE):
            payload = b"\x03\xe8" if opcode == CLOSE else b"x"
            wrong = frame(opcode, payload, rsv=rsv)
            yield Case(f"reserved/bits {rsv:03b}, opcode {opcode}", (wrong,), close=1002)
        wrong = frame(TEXT, "a", fin=False) + frame(CONTINUATION, "b", rsv=rsv)
        yield Case(f"reserved/bits {rsv:03b}, continuation", (wrong,), close=1002)
        wrong = frame(TEXT, "first") + frame(TEXT, "second", rsv=rsv)
        yield Case(f"reserved/bits {rsv:03b} after a message", (wrong,), ("first",), close=1002)
        pieces = _cut(frame(TEXT, "x" * 200, rsv=rsv), 1)[:2]
        yield Case(f"reserved/bits {rsv:03b}, cut after two octets", pieces, close=1002)
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        for payload in (b"", b"payload"):
            wrong = frame(opcode, payload)
            yield Case(f"opcodes/{opcode} with {len(payload)} octets", (wrong,), close=1002)
        wrong = frame(TEXT, "first") + frame(opcode, b"x") + frame(PING)
        yield Case(f"opcodes/{opcode} after a message", (wrong,), ("first",), close=1002)
        wrong = frame(TEXT, "a", fin=False) + frame(opcode, b"x")
        yield Case(f"opcodes/{opcode} in a message", (wrong,), close=1002)


def _fragmentation() -> Iterator[Case]:
    """RFC 6455 5.4."""
    for opcode, parts in (
        (TEXT, [b"Hel", b"lo"]),
        (BINARY, [b"\xff\x00", b"\xfe"]),
        (TEXT, [b"", b"", b""]),
        (BINARY, [b"", b"x", b""]),
        (TEXT, [b"", b"all", b""]),
        (TEXT, [b"x" * 126, b"y" * 65536, b"z"]),
        (BINARY, [bytes([i % 256]) for i in range(1000)]),
    ):
        whole = b"".join(parts)
        message = whole.decode() if opcode == TEXT else whole
        stream = _fragments(opcode, parts)
        name = f"fragmentation/opcode {opcode}, {len(parts)} parts, {len(whole)} octets"
        yield Case(name, (stream,), (message,))
        yield Case(f"{name}, in chunks", _cut(stream, max(1, len(stream) // 50)), (message,))
        frames = [frame(opcode, parts[0], fin=False)]
        frames += [frame(CONTINUATION, part, fin=False) for part in parts[1:]]
        yield Case(
            f"{name}, pings between",
            (frame(PING, b"p").join(frames) + frame(CONTINUATION),),
            (message,),
            pongs=(b"p",) * (len(frames) - 1),
        )
    yield Case(
        "fragmentation/pong and ping between, in chunks",
        (
            frame(TEXT, "one ", fin=False),
            frame(PONG, b"no answer"),
            frame(CONTINUATION, "two ", fin=False),
            frame(PING, b"answer"),
            frame(CONTINUATION, "three"),
        ),
        ("one two three",),
        pongs=(b"answer",),
    )
    for fin in (True, False):
        wrong = frame(CONTINUATION, "alone", fin=fin)
        yield Case(f"fragmentation/continuation alone, FIN {fin}", (wrong,), close=1002)
        wrong = frame(TEXT, "first") + frame(CONTINUATION, "alone", fin=fin) + frame(TEXT, "more")
        yield Case(
            f"fragmentation/continuation after a message, FIN {fin}",
            (wrong,),
            ("first",),
            close=1002,
        )
        for opcode in (TEXT, BINARY):
            wrong = frame(TEXT, "begun", fin=False) + frame(opcode, "another", fin=fin)
            name = f"fragmentation/opcode {opcode} in a message, FIN {fin}"
            yield Case(name, (wrong,), close=1002)
    closing = frame(TEXT, "begun", fin=False) + close_frame(1000)
    yield Case("fragmentation/Close in a message", (closing,), close=1000)
    again = _fragments(TEXT, [b"one", b"two"]) + _fragments(BINARY, [b"three", b"four"])
    yield Case("fragmentation/two messages", (again,), ("onetwo", b"threefour"))


#: UTF-8 at its limits (RFC 3629 4): first and last of each length, around the surrogates, code
#: points that are no characters, a byte order mark, a null.
VALID_TEXTS = (
    "\x00",
    "\x7f",
    "\x80",
    "\u07ff",
    "\u0800",
    "\ud7ff",
    "\ue000",
    "\ufffd",
    "\ufffe",
    "\uffff",
    "\ufeff",
    "\U00010000",
    "\U0010ffff",
    "\U0001fffe",
    "\U0001ffff",
    "κόσμε",
    "Hello-µ@ßöäüàá-UTF-8!!",
    "日本語 🎉 e\u0301",
)

#: What is not UTF-8, each with the number of octets after which nothing can make it right.
INVALID_TEXTS = (
    (b"\x80", 1),  # continuation octets alone
    (b"\xbf", 1),
    (b"\x80\xbf\x80", 1),
    (b"\xc0\xaf", 1),  # longer than need be
    (b"\xc1\xbf", 1),
    (b"\xe0\x80\xaf", 2),
    (b"\xe0\x9f\xbf", 2),
    (b"\xf0\x80\x80\xaf", 2),
    (b"\xf0\x8f\xbf\xbf", 2),
    (b"\xf8\x88\x80\x80\x80", 1),  # five and six octets
    (b"\xfc\x84\x80\x80\x80\x80", 1),
    (b"\xf4\x90\x80\x80", 2),  # above U+10FFFF
    (b"\xf5\x80\x80\x80", 1),
    (b"\xf7\xbf\xbf\xbf", 1),
    (b"\xed\xa0\x80", 2),  # surrogates
    (b"\xed\xbf\xbf", 2),
    (b"\xed\xa0\x80\xed\xb0\x80", 2),
    (b"\xfe", 1),
    (b"\xff", 1),
    (b"\xc3A", 2),  # cut off by another character
    (b"\xe2\x82A", 3),
    (b"\xf0\x9f\x8eA", 4),
    (b"\xe2(\xa1", 2),
    (b"\xf0\x28\x8c\xbc", 2),
)


def _utf8() -> Iterator[Case]:
    """RFC 6455 5.6 and 8.1; failing before the message ends is what an early check gives."""
    for text in VALID_TEXTS:
        data = f"<{text}>".encode()
        name = f"utf8/valid/{text.encode().hex()}"
        yield Case(f"{name}, whole", (frame(TEXT, data),), (f"<{text}>",))
        yield Case(f"{name}, octet by octet", _cut(frame(TEXT, data), 1), (f"<{text}>",))
        parts = [data[i : i + 1] for i in range(len(data))]
        yield Case(f"{name}, frame by frame", (_fragments(TEXT, parts),), (f"<{text}>",))
        for cut in range(1, len(data)):
            stream = _fragments(TEXT, [data[:cut], data[cut:]])
            yield Case(f"{name}, cut after {cut}", (stream,), (f"<{text}>",))
    for data, wrong_after in INVALID_TEXTS:
        name = f"utf8/invalid/{data.hex()}"
        stream = frame(TEXT, b"good " + data + b" more")
        yield Case(f"{name}, whole", (stream,), close=1007)
        yield Case(f"{name}, after a message", (frame(TEXT, "a") + stream,), ("a",), close=1007)
        yield Case(f"{name}, long", (frame(TEXT, b"x" * 20_000 + data + b"x"),), close=1007)
        yield Case(f"{name}, octet by octet", _cut(stream, 1), close=1007)
        for cut in range(1, len(data)):
            stream = _fragments(TEXT, [b"good" + data[:cut], data[cut:] + b"more"])
            yield Case(f"{name}, cut after {cut}", (stream,), close=1007)
        wrong = data[:wrong_after]
        stream = frame(TEXT, b"good" + wrong, fin=False)
        yield Case(f"{name}, early, in a message", (stream,), close=1007)
        stream = frame(TEXT, b"good" + wrong + b"?" * 1000)[: 8 + 4 + len(wrong)]
        yield Case(f"{name}, early, in a frame", (stream,), close=1007)
        yield Case(f"{name}, early, octet by octet", _cut(stream, 1), close=1007)
    for cut_off in (b"\xc3", b"\xe2\x82", b"\xf0\x9f\x8e", "é🎉".encode()[:-1]):
        name = f"utf8/cut off/{cut_off.hex()}"
        yield Case(f"{name}, whole", (frame(TEXT, cut_off),), close=1007)
        yield Case(f"{name}, octet by octet", _cut(frame(TEXT, cut_off), 1), close=1007)
        stream = _fragments(TEXT, [b"good", cut_off])
        yield Case(f"{name}, in the last fragment", (stream,), close=1007)
        stream = _fragments(TEXT, [cut_off, b""])
        yield Case(f"{name}, before an empty fragment", (stream,), close=1007)
    yield Case("utf8/binary is not text", (frame(BINARY, b"\xff\xc0"),), (b"\xff\xc0",))
    stream = (
        frame(TEXT, b"\xe2", fin=False) + frame(PING, b"\xff") + frame(CONTINUATION, b"\x82\xac")
    )
    yield Case("utf8/ping within a character", (stream,), ("€",), pongs=(b"\xff",))


#: Close codes of RFC 6455 7.4 and the registry that a Close frame may carry.
GOOD_CODES = (
    *(1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014),
    *(3000, 3001, 3999, 4000, 4001, 4999),
)
BAD_CODES = (
    *(0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1017, 1100, 2000, 2999, 5000, 65535),
)  # fmt: skip


def _close() -> Iterator[Case]:
    """RFC 6455 5.5.1 and 7."""
    for code in GOOD_CODES:
        yield Case(f"close/code {code}", (close_frame(code),), close=code)
        yield Case(f"close/code {code} and reason", (close_frame(code, "why"),), close=code)
    for code in BAD_CODES:
        yield Case(f"close/bad {code}", (close_frame(code),), close=1002)
        yield Case(f"close/bad {code} and reason", (close_frame(code, "why"),), close=1002)
    yield Case("close/without a code", (close_frame(None),), close=1005)
    yield Case("close/half a code", (frame(CLOSE, b"\x03"),), close=1002)
    yield Case("close/longest reason", (close_frame(1000, "x" * 123),), close=1000)
    yield Case("close/too long a reason", (close_frame(1000, "x" * 124),), close=1002)
    yield Case("close/reason in UTF-8", (close_frame(1000, "κόσμε 🎉"),), close=1000)
    for data, _ in INVALID_TEXTS:
        wrong = close_frame(1000, b"why " + data)
        yield Case(f"close/reason {data.hex()}", (wrong,), close=1007)
    yield Case("close/octet by octet", _cut(close_frame(1001, "gone"), 1), close=1001)
    stream = close_frame(1000) + frame(TEXT, "late") + frame(PING, b"late")
    yield Case("close/data after", (stream,), close=1000)
    yield Case("close/twice", (close_frame(1000) + close_frame(1001),), close=1000)
    yield Case("close/garbage after", (close_frame(1000) + b"\xff" * 100,), close=1000)
    stream = frame(TEXT, "begun", fin=False) + close_frame(1000) + frame(CONTINUATION, "late")
    yield Case("close/in a message", (stream,), close=1000)


def _limits() -> Iterator[Case]:
    """RFC 6455 10.4: a limit for the size of a frame, and of a message after reassembly."""
    size = MAX_MESSAGE_SIZE
    text, data = "x" * size, _random.randbytes(size)
    yield Case("limits/largest text", (frame(TEXT, text),), (text,))
    yield Case("limits/largest binary", _cut(frame(BINARY, data), 65536), (data,))
    half = size // 2
    stream = _fragments(BINARY, [data[:half], data[half:]])
    yield Case("limits/largest in fragments", _cut(stream, 65536), (data,))
    for announced in (size + 1, 1 << 32, (1 << 63) - 1):
        stream = frame(BINARY, b"", length=announced, length_size=8)
        yield Case(f"limits/header of {announced}", (stream,), close=1009)
        yield Case(f"limits/header of {announced} in chunks", _cut(stream, 1), close=1009)
    stream = frame(TEXT, "x" * half, fin=False) + frame(CONTINUATION, b"", length=half + 1)
    yield Case("limits/header of a fragment", _cut(stream, 65536), close=1009)
    stream = frame(TEXT, "a") + frame(BINARY, b"", length=size + 1)
    yield Case("limits/header after a message", (stream,), ("a",), close=1009)
    parts = [b"x" * 1024] * 1025
    yield Case("limits/many fragments", _cut(_fragments(TEXT, parts), 65536), close=1009)
    stream = _fragments(BINARY, [b""] * 5000 + [b"end"])
    yield Case("limits/5000 empty fragments", _cut(stream, 65536), (b"end",))


_LINES = "\n".join(
    f'{{"id": {_random.randrange(10**9)}, "user": "user{_random.randrange(99)}", '
    f'"text": "{_random.choice(("hello", "how are you?", "see you"))}"}}'
    for _ in range(5000)
)


def _json(size: int) -> str:
    """Text like that of an application, so long."""
    begin = _random.randrange(len(_LINES) - size)
    return _LINES[begin : begin + size]


#: Offers of permessage-deflate with what a server with the default settings answers.
OFFERS = (
    (DEFLATE, DEFLATE),
    (f"{DEFLATE}; client_max_window_bits", f"{DEFLATE}; client_max_window_bits=12"),
    (f"{DEFLATE}; client_max_window_bits=15", f"{DEFLATE}; client_max_window_bits=12"),
    (f"{DEFLATE}; client_max_window_bits=9", f"{DEFLATE}; client_max_window_bits=9"),
    (f"{DEFLATE}; client_max_window_bits=8", f"{DEFLATE}; client_max_window_bits=8"),
    (f'{DEFLATE}; client_max_window_bits="10"', f"{DEFLATE}; client_max_window_bits=10"),
    (f"{DEFLATE}; server_max_window_bits=9", f"{DEFLATE}; server_max_window_bits=9"),
    (f"{DEFLATE};server_max_window_bits=15", f"{DEFLATE}; server_max_window_bits=12"),
    (
        f"{DEFLATE}; server_no_context_takeover; server_max_window_bits=15",
        f"{DEFLATE}; server_no_context_takeover; server_max_window_bits=12",
    ),
    (
        f"{DEFLATE}; client_no_context_takeover",
        f"{DEFLATE}; client_no_context_takeover",
    ),
    (
        f"{DEFLATE}; server_no_context_takeover; client_no_context_takeover; "
        "server_max_window_bits=9; client_max_window_bits=9",
        f"{DEFLATE}; server_no_context_takeover; client_no_context_takeover; "
        "server_max_window_bits=9; client_max_window_bits=9",
    ),
)

#: Offers that cannot be taken (RFC 7692 7.1), so that no extension is in use.
DECLINED_OFFERS = (
    "x-webkit-deflate-frame",
    f"{DEFLATE}; unknown",
    f"{DEFLATE}; unknown=1",
    f"{DEFLATE}; server_no_context_takeover; server_no_context_takeover",
    f"{DEFLATE}; server_no_context_takeover=1",
    f"{DEFLATE}; client_no_context_takeover=true",
    f"{DEFLATE}; server_max_window_bits",
    f"{DEFLATE}; server_max_window_bits=7",
    f"{DEFLATE}; server_max_window_bits=8",
    f"{DEFLATE}; server_max_window_bits=16",
    f"{DEFLATE}; server_max_window_bits=09",
    f"{DEFLATE}; server_max_window_bits=x",
    f"{DEFLATE}; client_max_window_bits=7",
    f"{DEFLATE}; client_max_window_bits=16",
    f"{DEFLATE}; client_max_window_bits=010",
)


def _negotiation() -> Iterator[Case]:
    """RFC 7692 5 and 7.1."""
    for offer in DECLINED_OFFERS:
        yield Case(f"compression/declined/{offer}", (frame(TEXT, "a"),), ("a",), offer=offer)
        wrong = frame(TEXT, Deflater(DEFLATE)("a"), rsv=RSV1)
        yield Case(f"compression/declined and used/{offer}", (wrong,), close=1002, offer=offer)
        yield Case(
            f"compression/fallback from/{offer}",
            (frame(TEXT, Deflater(DEFLATE)("fallback"), rsv=RSV1),),
            ("fallback",),
            offer=f"{offer}, {DEFLATE}",
            answer=DEFLATE,
        )


def _compression() -> Iterator[Case]:
    """RFC 7692 6 and 7.2: each set of parameters, sizes from 16 octets to 128 KiB."""
    for offer, answer in OFFERS:
        for size in (16, 64, 256, 1024, 4096, 8192, 16384, 32768, 65536, 131072):
            count = 8 if size < 10_000 else 3
            texts = [_json(size) for _ in range(count)]
            deflate = Deflater(answer)
            stream = b"".join(frame(TEXT, deflate(text), rsv=RSV1) for text in texts)
            name = f"compression/{offer}/{count} of {size}"
            yield Case(name, (stream,), tuple(texts), offer=offer, answer=answer)
            deflate = Deflater(answer)
            all_packed = [deflate(text) for text in texts]
            stream = b"".join(
                _fragments(BINARY, list(_cut(packed, len(packed) // 3 + 1)), rsv=RSV1)
                for packed in all_packed
            )
            datas = tuple(text.encode() for text in texts)
            name += ", fragments, in chunks"
            pieces = _cut(stream, max(7, len(stream) // 20))
            yield Case(name, pieces, datas, offer=offer, answer=answer)
    for size in (16, 125, 126, 65536, 131072):
        data = _random.randbytes(size)
        deflate = Deflater(DEFLATE)
        stream = frame(BINARY, deflate(data), rsv=RSV1) + frame(BINARY, deflate(data), rsv=RSV1)
        yield _compressed(f"{size} random octets", stream, (data, data))
        for level, strategy in ((0, zlib.Z_DEFAULT_STRATEGY), (9, zlib.Z_FIXED), (1, zlib.Z_RLE)):
            packed = Deflater(DEFLATE, level, strategy)(data)
            stream = frame(BINARY, packed, rsv=RSV1)
            yield _compressed(f"{size} at level {level}, strategy {strategy}", stream, (data,))


def _compressed(
    name: str,
    stream: bytes | tuple[bytes, ...],
    messages: tuple[str | bytes, ...] = (),
    pongs: tuple[bytes, ...] = (),
    close: int | None = None,
) -> Case:
    chunks = stream if isinstance(stream, tuple) else (stream,)
    return Case(f"compression/{name}", chunks, messages, pongs, close, DEFLATE, DEFLATE)


def _compression_details() -> Iterator[Case]:
    # The examples of RFC 7692 7.2.3, each octet as printed there.
    for section, name, octets in (
        ("7.2.3.1", "a block", "f248cdc9c90700"),
        ("7.2.3.3", "a block without compression", "000500faff48656c6c6f00"),
        ("7.2.3.4", "a last block", "f348cdc9c9070000"),
        ("7.2.3.5", "two blocks", "f248050000 00ffffcac9c90700"),
    ):
        data = bytes.fromhex(octets)
        stream = frame(TEXT, data, rsv=RSV1)
        yield _compressed(f"RFC 7692 {section} {name}", stream, ("Hello",))
        yield _compressed(f"RFC 7692 {section} {name} in chunks", _cut(stream, 1), ("Hello",))
        stream = _fragments(TEXT, [data[:3], data[3:]], rsv=RSV1)
        yield _compressed(f"RFC 7692 {section} {name} in fragments", stream, ("Hello",))
        twice = frame(TEXT, data, rsv=RSV1) * 2
        yield _compressed(f"RFC 7692 {section} {name} twice", twice, ("Hello", "Hello"))
    stream = frame(TEXT, bytes.fromhex("f248cdc9c90700"), rsv=RSV1)
    stream += frame(TEXT, bytes.fromhex("f200110000"), rsv=RSV1)
    yield _compressed("RFC 7692 7.2.3.2 the window shared", stream, ("Hello", "Hello"))
    yield _compressed("RFC 7692 7.2.3.6 empty", frame(TEXT, b"\x00", rsv=RSV1), ("",))
    yield _compressed("final block alone", frame(TEXT, b"\x03\x00", rsv=RSV1), ("",))

    text = _json(3000)
    deflate = Deflater(DEFLATE)
    packed = deflate(text)
    mixed = frame(TEXT, packed, rsv=RSV1) + frame(TEXT, "plain") + frame(TEXT, deflate(text), rsv=4)
    yield _compressed("plain message between", mixed, (text, "plain", text))
    plain = _fragments(TEXT, [b"pl", b"ain"])
    yield _compressed("plain fragments", plain, ("plain",))
    stream = frame(TEXT, packed[:100], fin=False, rsv=RSV1) + frame(PING, b"?")
    stream += frame(CONTINUATION, packed[100:], fin=False) + frame(CONTINUATION)
    yield _compressed("ping between fragments", stream, (text,), (b"?",))
    yield _compressed("octet by octet", _cut(frame(TEXT, packed, rsv=RSV1), 1), (text,))

    stream = frame(TEXT, packed[:100], fin=False, rsv=RSV1)
    yield _compressed(
        "RSV1 in a continuation", stream + frame(CONTINUATION, packed[100:], rsv=RSV1), close=1002
    )
    for opcode in (PING, PONG, CLOSE):
        yield _compressed(f"RSV1 in opcode {opcode}", frame(opcode, b"", rsv=RSV1), close=1002)
    for rsv in (1, 2, 3, 5, 6, 7):
        yield _compressed(f"bits {rsv:03b}", frame(TEXT, packed, rsv=rsv), close=1002)
    yield _compressed("bad block", frame(TEXT, b"\xff\xff\xff\xff", rsv=RSV1), close=1007)
    yield _compressed("bad stored block", frame(TEXT, b"\x00\x05\x00\x00", rsv=RSV1), close=1007)
    yield _compressed("reference before the start", frame(TEXT, b"\x02\x06", rsv=4), close=1007)
    for data, _ in INVALID_TEXTS[::5]:
        stream = frame(TEXT, Deflater(DEFLATE)(b"good " + data), rsv=RSV1)
        yield _compressed(f"not UTF-8: {data.hex()}", stream, close=1007)
    for finals in (3, 10_000):
        stream = frame(TEXT, b"\x03\x00" * finals, rsv=RSV1)
        if finals == 3:
            yield _compressed(f"{finals} final blocks", stream, ("",))
        else:
            yield _compressed(f"{finals} final blocks", stream, close=1007)

    size = MAX_MESSAGE_SIZE
    stream = frame(TEXT, Deflater(DEFLATE)("x" * size), rsv=RSV1)
    yield _compressed("largest message", stream, ("x" * size,))
    stream = frame(TEXT, Deflater(DEFLATE)("x" * (size + 1)), rsv=RSV1)
    yield _compressed("above the limit by one", stream, close=1009)
    bomb = Deflater(DEFLATE, 9)(bytes(100 << 20))
    yield _compressed("bomb of 100 MiB", frame(BINARY, bomb, rsv=RSV1), close=1009)
    bombs = _fragments(BINARY, list(_cut(bomb, 300)), rsv=RSV1)
    yield _compressed("bomb in fragments", bombs, close=1009)
    yield _compressed("bomb in chunks", _cut(frame(BINARY, bomb, rsv=RSV1), 4096), close=1009)
    stream = frame(BINARY, b"", length=1 << 40, rsv=RSV1)
    yield _compressed("header above the limit", stream, close=1009)


def _cases() -> Iterator[Case]:
    yield from _framing()
    yield from _control()
    yield from _reserved()
    yield from _fragmentation()
    yield from _utf8()
    yield from _close()
    yield from _limits()
    yield from _negotiation()
    yield from _compression()
    yield from _compression_details()


CASES = tuple(_cases())


def _kind(case: Case) -> tuple[object, ...]:
    """Return all by which a server tells a case from others outside its codec: not the octets."""
    size = sum(map(len, case.chunks))
    return (
        case.name.partition("/")[0],
        case.close,
        bool(case.messages),
        bool(case.pongs),
        len(case.chunks) > 1,
        size > 65536,  # more than a read
        case.offer is None,
        case.answer is None,
    )


#: A case of each kind, for all servers that share a codec, and the others, for one of them.
SAMPLE = tuple({_kind(case): case for case in reversed(CASES)}.values())
REST = tuple(case for case in CASES if case not in SAMPLE)


@dataclass(frozen=True)
class Handshake:
    """An opening handshake (RFC 6455 4.2) and how it is answered.

    :param fields: header fields to add to a right request, to replace, or (``None``) to leave out.
    :param status: of the answer.
    :param answer: header fields that the answer has, or (``None``) must not have.
    """

    name: str
    fields: dict[str, str | None]
    status: int = 101
    answer: dict[str, str | None] | None = None
    method: str = "GET"


SAMPLE_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
RFC_KEY = "AQIDBAUGBwgJCgsMDQ4PEC=="

HANDSHAKES = (
    Handshake("right", {}),
    Handshake(
        "RFC 1.3 sample",
        {"Sec-WebSocket-Key": SAMPLE_KEY},
        answer={"Sec-WebSocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "Upgrade": "websocket"},
    ),
    Handshake("RFC 4.1 sample key, with spare bits", {"Sec-WebSocket-Key": RFC_KEY}),
    Handshake("Upgrade in capitals", {"Upgrade": "WebSocket"}),
    Handshake("Upgrade in a list", {"Upgrade": "h2c, websocket"}),
    Handshake("Connection of Firefox", {"Connection": "keep-alive, Upgrade"}),
    Handshake("Connection in small letters", {"Connection": "upgrade"}),
    Handshake("no subprotocol", {}, answer={"Sec-WebSocket-Protocol": None}),
    Handshake(
        "unknown extension",
        {"Sec-WebSocket-Extensions": 'x-y; z=1; q="1"'},
        answer={"Sec-WebSocket-Extensions": None},
    ),
    Handshake("POST", {}, 405, {"Allow": "GET"}, method="POST"),
    Handshake("version 8", {"Sec-WebSocket-Version": "8"}, 426, {"Sec-WebSocket-Version": "13"}),
    Handshake(
        "version 13, 8", {"Sec-WebSocket-Version": "13, 8"}, 426, {"Sec-WebSocket-Version": "13"}
    ),
    Handshake("no version", {"Sec-WebSocket-Version": None}, 426, {"Sec-WebSocket-Version": "13"}),
    Handshake("Connection without Upgrade", {"Connection": "keep-alive"}, 400),
    Handshake("no key", {"Sec-WebSocket-Key": None}, 400),
    Handshake("key of 15 octets", {"Sec-WebSocket-Key": "MTIzNDU2Nzg5MDEyMzQ1"}, 400),
    Handshake("key not in base64", {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=!"}, 400),
    Handshake("subprotocol no token", {"Sec-WebSocket-Protocol": "a b"}, 400),
    Handshake("subprotocol twice", {"Sec-WebSocket-Protocol": "a, a"}, 400),
    Handshake("extension cut off", {"Sec-WebSocket-Extensions": "permessage-deflate; "}, 400),
    Handshake("extension without a name", {"Sec-WebSocket-Extensions": "; a=1"}, 400),
    Handshake("extension with an open quote", {"Sec-WebSocket-Extensions": 'x; a="1'}, 400),
    Handshake("extension with a quoted space", {"Sec-WebSocket-Extensions": 'x; a="1 2"'}, 400),
)
