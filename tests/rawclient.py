"""A WebSocket client that does as it is told: RFC 6455 over a plain socket, right or wrong.

It shares nothing with the package under test, frames included, so that a mistake made twice the
same way cannot hide. Everything that it puts on the wire can be overridden; everything that it
reads has a deadline.
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(
    opcode: int = TEXT,
    payload: bytes | str = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = b"\x37\xfa\x21\x3d",
    length: int | None = None,
    length_size: int | None = None,
) -> bytes:
    """One frame as bytes (RFC 6455 5.2).

    :param rsv: the three reserved bits, 0 to 7.
    :param mask: the masking key; None leaves the frame unmasked.
    :param length: the payload length to claim, if not the true one.
    :param length_size: 0, 2 or 8 bytes of extended length, if not the shortest that fits.
    """
    data = payload.encode() if isinstance(payload, str) else payload
    claimed = len(data) if length is None else length
    if length_size is None:
        length_size = 0 if claimed < 126 else 2 if claimed < 65536 else 8
    short = {0: claimed, 2: 126, 8: 127}[length_size]
    head = bytes([fin << 7 | rsv << 4 | opcode, (mask is not None) << 7 | short])
    head += {0: b"", 2: struct.pack(">H", claimed & 0xFFFF), 8: struct.pack(">Q", claimed)}[
        length_size
    ]
    if mask is None:
        return head + data
    return head + mask + _xor(data, mask)


def _xor(data: bytes, mask: bytes) -> bytes:
    size = len(data)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def close_frame(code: int | None = 1000, reason: str | bytes = b"") -> bytes:
    text = reason.encode() if isinstance(reason, str) else reason
    return frame(CLOSE, b"" if code is None else struct.pack(">H", code) + text)


def accept_key(key: str) -> str:
    """What `Sec-WebSocket-Accept` must be (RFC 6455 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()


def opening(
    path: str = "/echo",
    host: str = "localhost",
    *,
    method: str = "GET",
    headers: Mapping[str, str | None] | None = None,
    extra: Iterable[tuple[str, str]] = (),
) -> bytes:
    """An opening handshake (RFC 6455 4.1).

    :param headers: fields to add or to replace; None leaves one out.
    :param extra: fields to add even if the name is there already.
    """
    fields: dict[str, str | None] = {
        "Host": host,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Version": "13",
    }
    fields.update(headers or {})
    lines = [f"{method} {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in fields.items() if value is not None]
    lines += [f"{name}: {value}" for name, value in extra]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@dataclass(frozen=True)
class Frame:
    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0

    @property
    def code(self) -> int | None:
        """The close code of a Close frame."""
        assert self.opcode == CLOSE, self
        return struct.unpack_from(">H", self.payload)[0] if self.payload else None

    @property
    def reason(self) -> str:
        assert self.opcode == CLOSE, self
        return self.payload[2:].decode()


@dataclass(frozen=True)
class Answer:
    """An HTTP response head, and the body if there was one."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""

    def all(self, name: str) -> list[str]:
        return [value for field, value in self.headers if field.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) <= 1, f"{name} is there {len(values)} times: {values}"
        return values[0] if values else None


class Refused(AssertionError):
    """The server did not upgrade; `answer` is what it said instead."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"not upgraded: {answer}")
        self.answer = answer


class RawClient:
    """One connection.

    :param patience: seconds after which a read is a failure (`TimeoutError`).
    :param tls: speak TLS; then one thread alone may send and read.
    :param source: the address to come from.
    """

    def __init__(
        self,
        address: tuple[str, int],
        patience: float,
        *,
        tls: ssl.SSLContext | None = None,
        source: str | None = None,
    ) -> None:
        self.patience = patience
        self.address = address
        self.socket = socket.create_connection(address, patience, source and (source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.answer: Answer | None = None
        self._buffer = bytearray()
        self._sending = threading.Lock()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # The handshake

    def handshake(
        self,
        path: str = "/echo",
        *,
        headers: Mapping[str, str | None] | None = None,
        extra: Iterable[tuple[str, str]] = (),
        method: str = "GET",
        then: bytes = b"",
    ) -> Answer:
        """Upgrade, or raise `Refused` with the server's answer.

        :param then: bytes to send after the request without waiting for the answer.
        """
        host = f"{self.address[0]}:{self.address[1]}"
        request = opening(path, host, method=method, headers=headers, extra=extra)
        self.send(request + then)
        self.answer = answer = self.read_answer()
        if answer.status != 101:
            raise Refused(answer)
        key = next(
            line.partition(": ")[2]
            for line in request.decode("latin-1").split("\r\n")
            if line.lower().startswith("sec-websocket-key:")
        )
        assert answer.get("Sec-WebSocket-Accept") == accept_key(key), answer
        assert (answer.get("Upgrade") or "").lower() == "websocket", answer
        assert (answer.get("Connection") or "").lower() == "upgrade", answer
        return answer

    def read_answer(self) -> Answer:
        """The next HTTP response; what follows a 101 stays to be read as frames."""
        deadline = time.monotonic() + self.patience
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            self._more(deadline)
        head = self._take(end + 4)[:-4].decode("latin-1").split("\r\n")
        status = int(head[0].split(" ")[1])
        fields = [(name, value.strip()) for name, _, value in (h.partition(":") for h in head[1:])]
        answer = Answer(status, fields)
        if status == 101:
            return answer
        length = answer.get("Content-Length")
        if length is None:
            return Answer(status, fields, self.read_to_end())
        while len(self._buffer) < int(length):
            self._more(deadline)
        return Answer(status, fields, self._take(int(length)))

    # Sending

    def send(self, data: bytes) -> None:
        with self._sending:
            self.socket.settimeout(self.patience)
            self.socket.sendall(data)

    def text(self, payload: str) -> None:
        self.send(frame(TEXT, payload))

    def binary(self, payload: bytes) -> None:
        self.send(frame(BINARY, payload))

    def _pong(self, payload: bytes) -> None:
        # A thread that is in the middle of a frame may be waiting for us to read.
        if self._sending.acquire(blocking=False):
            try:
                self.socket.sendall(frame(PONG, payload))
            finally:
                self._sending.release()

    # Reading

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _more(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"the server said nothing more; so far {bytes(self._buffer[:80])!r}")
        self.socket.settimeout(left)
        data = self.socket.recv(262144)
        if not data:
            raise EOFError(f"the server has closed; unread: {bytes(self._buffer[:80])!r}")
        self._buffer += data

    def _read(self, size: int, deadline: float) -> bytes:
        while len(self._buffer) < size:
            self._more(deadline)
        return self._take(size)

    def read_some(self) -> bytes:
        """Whatever comes next, as bytes. Raises EOFError at the end."""
        if not self._buffer:
            self._more(time.monotonic() + self.patience)
        return self._take(len(self._buffer))

    def read(self, patience: float | None = None) -> Frame:
        """The next frame. Raises EOFError at the end, TimeoutError after `patience` seconds."""
        deadline = time.monotonic() + (self.patience if patience is None else patience)
        first, second = self._read(2, deadline)
        assert not second & 0x80, "RFC 6455 5.1: a server MUST NOT mask"
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack(">H", self._read(2, deadline))
            assert size > 125, "RFC 6455 5.2: the minimal number of bytes for the length"
        elif size == 127:
            (size,) = struct.unpack(">Q", self._read(8, deadline))
            assert size > 65535, "RFC 6455 5.2: the minimal number of bytes for the length"
        payload = self._read(size, deadline)
        return Frame(first & 0x0F, payload, bool(first & 0x80), first >> 4 & 7)

    def message(self, patience: float | None = None) -> str | bytes:
        """The next message, its fragments joined; pings are answered, pongs passed over."""
        pieces: list[bytes] = []
        kind = None
        while True:
            found = self.read(patience)
            assert found.rsv == 0, found
            if found.opcode == PING:
                self._pong(found.payload)
                continue
            if found.opcode == PONG:
                continue
            assert found.opcode != CLOSE, f"closed with {found.code} {found.reason!r}"
            assert (found.opcode == CONTINUATION) == (kind is not None), found
            kind = found.opcode if kind is None else kind
            pieces.append(found.payload)
            if found.fin:
                data = b"".join(pieces)
                return data.decode() if kind == TEXT else data

    def read_close(self, patience: float | None = None) -> Frame:
        """The server's Close frame; messages and pings before it are passed over."""
        while True:
            found = self.read(patience)
            if found.opcode == CLOSE:
                return found

    def read_to_end(self) -> bytes:
        """Everything until the server closes the connection."""
        deadline = time.monotonic() + self.patience
        try:
            while True:
                self._more(deadline)
        except EOFError:
            return self._take(len(self._buffer))

    def ended(self, patience: float | None = None) -> bool:
        """Whether the server ends the connection, with nothing more to read, in time."""
        deadline = time.monotonic() + (self.patience if patience is None else patience)
        try:
            self._more(deadline)
        except (EOFError, ConnectionResetError):
            return True
        except TimeoutError:
            return False
        raise AssertionError(f"unexpected: {bytes(self._buffer[:80])!r}")

    def silent(self, seconds: float) -> bool:
        """Whether the server says nothing for so long, and keeps the connection."""
        if self._buffer:
            return False
        self.socket.settimeout(seconds)
        try:
            self._buffer += self.socket.recv(65536)
        except TimeoutError:
            return True
        return False

    # Both

    def echo(self, text: str) -> None:
        """Send a text, and have it back as the next message."""
        self.text(text)
        came = self.message()
        assert came == text, f"{came!r} instead of {text!r}"

    # Leaving

    def leave(self, code: int | None = 1000, reason: str = "") -> Frame:
        """The closing handshake from our side; the server's Close in return."""
        self.send(close_frame(code, reason))
        answer = self.read_close()
        assert self.ended()
        self.close()
        return answer

    def half_close(self) -> None:
        """A FIN while we still read."""
        self.socket.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """A RST instead of a farewell."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        """A FIN (a RST if something lies unread), without a Close frame."""
        self.socket.close()
