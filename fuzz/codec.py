"""A fuzzer for the codec: ``python -m fuzz.codec``; README.rst here tells how."""

from __future__ import annotations

import argparse
import contextlib
import random
import resource
import signal
import socket
import sys
import time
from _socket import socket as Socket
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FrameType

from flask_uwsgi_websocket.codec import (
    CLIENT,
    SERVER,
    Close,
    Deflate,
    DeflateSettings,
    Event,
    Fail,
    Ping,
    Pong,
    Protocol,
    Role,
    fast_path,
    negotiate,
)
from flask_uwsgi_websocket.codec.frames import BINARY, FIN, TEXT, frame
from flask_uwsgi_websocket.codec.handshake import parse_extensions, parse_tokens
from flask_uwsgi_websocket.connection import fast_io
from flask_uwsgi_websocket.exceptions import HandshakeError, RemoteProtocolError
from tests.conformance import CASES, HANDSHAKES

FAILURES = Path(__file__).parent / "failures"

# An input is two octets that say what is tested and how it is cut, and then what the peer sends.
_AS_CLIENT = 1
_COMPRESSED = 2
_NO_TAKEOVER = 4
_SMALL_LIMIT = 8
_HANDSHAKE = 16


def run(data: bytes) -> None:
    """Make every check on one input.

    :raises AssertionError: when a rule is broken; whatever else is raised breaks one as well.
    """
    if len(data) < 2:
        return
    flags, seed, stream = data[0], data[1], data[2:]
    if flags & _HANDSHAKE:
        check_handshake(stream.decode("latin-1"))
    else:
        check_stream(
            stream,
            chunks(stream, seed),
            CLIENT if flags & _AS_CLIENT else SERVER,
            limit=100 if flags & _SMALL_LIMIT else 70_000,
            compressed=bool(flags & _COMPRESSED),
            takeover=not flags & _NO_TAKEOVER,
        )


def chunks(stream: bytes, seed: int) -> list[bytes]:
    """The stream in pieces: octet by octet for seed 0, else in few or many of uneven size."""
    if seed == 0 and len(stream) < 5000:
        return [stream[i : i + 1] for i in range(len(stream))]
    dice = random.Random(seed)
    largest = dice.choice([8, 200, 5000, 100_000])
    pieces, pos = [], 0
    while pos < len(stream):
        size = dice.randint(1, max(largest, len(stream) // 500))
        pieces.append(stream[pos : pos + size])
        pos += size
    return pieces


def check_stream(
    stream: bytes,
    pieces: list[bytes],
    role: Role,
    *,
    limit: int,
    compressed: bool = False,
    takeover: bool = True,
) -> None:
    """What must be so whatever a peer sends."""

    def connection(fast: bool = True) -> Protocol:
        deflate = Deflate(receive_takeover=takeover) if compressed else None
        protocol = Protocol(role, max_message_size=limit, deflate=deflate)
        if not fast:
            protocol._has_fast_path, protocol.fast_limit = False, -1
        return protocol

    protocol = connection()
    events: list[Event] = []
    for piece in pieces:
        received = protocol.receive_data(piece)
        if events and isinstance(events[-1], (Close, Fail)):
            assert received == [], "something follows Close or Fail"
        events += received
        # Kept between chunks: a header or a control frame, and one message.
        assert len(protocol._held) <= 131
        assert protocol._room >= 0
        assert protocol._announced <= (2 * limit + 1024 if compressed else limit)
        assert protocol.incomplete or not protocol._missing
    for event in events[:-1]:
        assert isinstance(event, (str, bytes, Ping, Pong)), event
    for event in events:
        match event:
            case str():
                assert len(event.encode()) <= limit
            case bytes():
                assert len(event) <= limit
            case Ping() | Pong():
                assert len(event.data) <= 125
            case Fail():
                assert isinstance(event.error, RemoteProtocolError)
                assert event.error.close_code in (1002, 1007, 1009)
                assert protocol.close(event.error.close_code, event.error.reason)
            case Close():
                assert protocol.close(event.code, event.reason)
    if not compressed:
        # Text that inflates may be too long and not UTF-8: the pieces say which is seen first.
        for fast in (True, False):
            assert comparable(connection(fast).receive_data(stream)) == comparable(events)
    for piece in (stream, *pieces):
        check_fast_path(piece, limit)
        if fast_path.COMPILED:
            check_io(piece[:50_000], limit)


def check_fast_path(data: bytes, limit: int) -> None:
    """Hold what the fast path takes to the general one."""
    message = fast_path.whole_message(data, limit)
    if message is not None:
        general = Protocol(SERVER, max_message_size=limit)
        general._has_fast_path, general.fast_limit = False, -1
        assert general.receive_data(data) == [message]
        assert not general.incomplete
        opcode, payload = (
            (BINARY, message) if isinstance(message, bytes) else (TEXT, message.encode())
        )
        assert fast_path.whole_frame(message, limit) in (None, frame(FIN | opcode, payload))


class Connection:
    """As much of one as reads and sends."""

    __slots__ = (
        "_lock",
        "_messages",
        "_read_size",
        "_saw_traffic",
        "_unsent",
        "_waiter",
        "ended",
        "fd",
        "protocol",
        "socket",
        "traffic",
    )

    def __init__(self, sock: Socket) -> None:
        self.socket = sock
        self.fd = sock.fileno()
        self.ended = False
        self.protocol = Protocol(SERVER)
        self._read_size = 20_000
        self.traffic = fast_io.Traffic()
        self._lock = fast_io.Lock()
        self._unsent: list[bytes | memoryview] = []

    def _queue_rest(self, rest: bytes | memoryview) -> bool:
        self._unsent.append(rest)
        return False


@cache
def ends() -> tuple[Connection, Socket]:
    ours, peer = (Socket(fileno=end.detach()) for end in socket.socketpair())
    return Connection(ours), peer


def check_io(data: bytes, limit: int) -> None:
    """What is read in one call must be the same in C and in Python, and be sent as it should."""
    ours, peer = ends()
    ours.protocol.fast_limit = limit
    results = []
    for receive in (fast_io.receive, fast_io.receive_in_python):
        peer.sendall(data)
        received = []
        while (one := receive(ours)) is not None:
            received.append(one)
        results.append(received)
    assert results[0] == results[1]
    for one in results[0]:
        if not isinstance(one, tuple):
            assert fast_io.send(ours, one) is None
            made = ours.protocol.encode(one)
            assert peer.recv(2 * len(made)) == made


def comparable(events: list[Event]) -> list[Event | int]:
    """The events; a failure is as good as another with the same code."""
    return [event.error.close_code if isinstance(event, Fail) else event for event in events]


def check_handshake(value: str) -> None:
    """What must be so whatever a header field holds."""
    with contextlib.suppress(HandshakeError):
        parse_tokens("Sec-WebSocket-Protocol", value)
    with contextlib.suppress(HandshakeError):
        deflate, answer = negotiate(parse_extensions(value), DeflateSettings())
        assert (deflate is None) == (answer is None)
        if answer is not None:
            [agreed] = parse_extensions(answer)
            assert agreed.name == "permessage-deflate"


# Where inputs come from


def seeds() -> list[bytes]:
    """The conformance table, as inputs."""
    inputs = []
    for case in CASES:
        stream = b"".join(case.chunks)
        if len(stream) <= 20_000:
            flags = _COMPRESSED if case.answer else 0
            flags |= _NO_TAKEOVER if "client_no_context" in (case.answer or "") else 0
            inputs.append(bytes([flags, 1]) + stream)
        if case.offer:
            inputs.append(bytes([_HANDSHAKE, 0]) + case.offer.encode())
    for handshake in HANDSHAKES:
        for value in handshake.fields.values():
            inputs.append(bytes([_HANDSHAKE, 0]) + (value or "").encode())
    return inputs


#: Octets at which a rule changes: headers, lengths, UTF-8, deflate.
_TELLING = bytes.fromhex("00010203057d7e7f8081828889 8a8bc0c1c2e0edf0f4f5feff")


def mutate(data: bytes, others: list[bytes], dice: random.Random) -> bytes:
    """A few changes, most of them near the start of something."""
    octets = bytearray(data)
    for _ in range(dice.choice((0, 1, 1, 2, 3, 8))):
        at = dice.randrange(2, max(3, min(len(octets), dice.choice((12, 40, 100_000)))) + 1)
        size = dice.choice((1, 1, 2, 4, 16, 200))
        match dice.randrange(8):
            case 0 | 1:
                octets[at : at + 1] = dice.choice(_TELLING).to_bytes(1, "big")
            case 2:
                if at < len(octets):
                    octets[at] ^= 1 << dice.randrange(8)
            case 3:
                del octets[at : at + size]
            case 4:
                octets[at:at] = octets[at : at + size] * dice.choice((1, 2, 50))
            case 5:
                octets[at:at] = dice.randbytes(size)
            case 6:
                octets += dice.choice(others)[2:]
            case 7:
                del octets[at + dice.randrange(1000) :]
    octets[0] ^= dice.choice((0, 0, 0, _AS_CLIENT, _COMPRESSED, _NO_TAKEOVER, _SMALL_LIMIT))
    octets[1] = dice.choice((0, dice.randrange(256)))
    if octets[0] & _AS_CLIENT and not octets[0] & _HANDSHAKE and dice.random() < 0.9:
        # What a server sends is not masked: take the masks off the headers that are told apart.
        octets[2:] = _unmasked(bytes(octets[2:]))
    return bytes(octets[:200_000])


def _unmasked(stream: bytes) -> bytes:
    frames, pos = b"", 0
    while pos + 6 <= len(stream) and stream[pos + 1] & 0x7F < 126:
        stop = pos + 6 + (stream[pos + 1] & 0x7F)
        frames += bytes([stream[pos], stream[pos + 1] & 0x7F]) + stream[pos + 6 : stop]
        pos = stop
    return frames + stream[pos:]


def inputs(seed: int) -> Iterator[bytes]:
    """Inputs without end: the seeds as they are, then mutations."""
    corpus = seeds()
    yield from corpus
    dice = random.Random(seed)
    while True:
        yield mutate(dice.choice(corpus), corpus, dice)


# Running


class Hang(Exception):
    """An input takes too long."""


def _hang(signum: int, frame: FrameType | None) -> None:
    raise Hang


def fuzz(seed: int, seconds: float, patience: float = 5) -> tuple[int, bytes | None]:
    """Run inputs for so long; how many ran, and the one that failed."""
    before = signal.signal(signal.SIGALRM, _hang)
    try:
        return _fuzz(seed, seconds, patience)
    finally:
        signal.signal(signal.SIGALRM, before)


def _fuzz(seed: int, seconds: float, patience: float) -> tuple[int, bytes | None]:
    end = time.monotonic() + seconds
    report = time.monotonic() + 60
    count = 0
    for data in inputs(seed):
        now = time.monotonic()
        if now >= end:
            break
        if now >= report:
            print(f"{count} inputs, {_memory()} MiB at most", flush=True)
            report = now + 60
        signal.setitimer(signal.ITIMER_REAL, patience)
        try:
            run(data)
        except Exception as error:
            print(f"input {count} of seed {seed}: {type(error).__name__}: {error}")
            return count, data
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        count += 1
    return count, None


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _atheris(arguments: list[str]) -> None:
    import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]

    atheris.Setup([sys.argv[0], *arguments], run)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz the codec.")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--patience", type=float, default=5, help="seconds for an input")
    parser.add_argument("--replay", type=Path, nargs="+", help="inputs that failed before")
    parser.add_argument("--atheris", nargs=argparse.REMAINDER, help="arguments for libFuzzer")
    arguments = parser.parse_args()
    if arguments.atheris is not None:
        _atheris(arguments.atheris)
        return 0
    if arguments.replay:
        for path in arguments.replay:
            run(path.read_bytes())
        return 0
    seed = random.randrange(1 << 32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    try:
        count, failed = fuzz(seed, arguments.seconds, arguments.patience)
    except KeyboardInterrupt:
        return 0
    print(f"{count} inputs, {_memory()} MiB at most")
    if failed is None:
        return 0
    FAILURES.mkdir(exist_ok=True)
    path = FAILURES / f"{seed}-{count}"
    path.write_bytes(failed)
    print(f"written to {path}; run(data) of it again: python -m fuzz.codec --replay {path}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
