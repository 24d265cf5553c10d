"""A message in, a message out, in one call: the same in C and in Python."""

from __future__ import annotations

import signal
import socket
import struct
import sys
import threading
import time
from _socket import socket as Socket
from collections import deque
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flask_uwsgi_websocket.codec import fast_path
from flask_uwsgi_websocket.codec.frames import BINARY, FIN, MASK, RSV1, TEXT, frame
from flask_uwsgi_websocket.connection import _socket_speedups, fast_io

KEY = b"\x80\x01\x7f\xff"
LIMIT = 1 << 20
#: What the C keeps on the stack.
ON_STACK = 8192

in_python = SimpleNamespace(
    receive=fast_io.receive_in_python,
    wait_and_receive=fast_io.wait_and_receive_in_python,
    send=fast_io.send_in_python,
)
Pair = tuple[Socket, Socket]


@pytest.fixture(params=[_socket_speedups, in_python], ids=["C", "Python"])
def io(request: pytest.FixtureRequest) -> Any:
    return request.param


def make_pair() -> Pair:
    ends = [Socket(fileno=end.detach()) for end in socket.socketpair()]
    return ends[0], ends[1]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Ours, which blocks, and the peer's."""
    ours, peer = make_pair()
    yield ours, peer
    ours.close()
    peer.close()


def fill(sock: Socket) -> int:
    """Send until nothing more is taken; how many bytes were."""
    total = 0
    try:
        while True:
            total += sock.send(b"x" * 4096, fast_io.SEND_FLAGS)
    except BlockingIOError:
        return total


def drain(sock: Socket) -> bytes:
    data = b""
    try:
        while more := sock.recv(1 << 20, fast_io.MSG_DONTWAIT):
            data += more
    except BlockingIOError:
        pass
    return data


def test_c_is_used_where_it_is() -> None:
    for name in ("receive", "wait_and_receive", "send", "send_to_idle"):
        assert getattr(fast_io, name) is getattr(_socket_speedups, name)


# Receiving

CASES: list[str | bytes] = [
    *("", "x" * 125, "x" * 126, "\N{EURO SIGN}" * 1000, "x" * (ON_STACK - 8), "x" * (ON_STACK - 7)),
    *(b"", b"\xff" * 125, bytes(126), bytes(ON_STACK - 8), bytes(ON_STACK - 7), bytes(65535)),
]


@pytest.mark.parametrize("message", CASES, ids=lambda message: f"{type(message)} {len(message)}")
@pytest.mark.parametrize("name", ["receive", "wait_and_receive"])
def test_a_message(io: Any, pair: Pair, name: str, message: str | bytes) -> None:
    ours, peer = pair
    for sock in pair:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    payload = message.encode() if isinstance(message, str) else message
    peer.sendall(frame(FIN | (TEXT if isinstance(message, str) else BINARY), payload, KEY))
    received = getattr(io, name)(ours, 1 << 17, LIMIT)
    assert received == message
    assert type(received) is type(message)
    assert io.receive(ours, 1 << 17, LIMIT) is None


HOSTILE = {
    "not masked": frame(FIN | TEXT, b"text"),
    "not UTF-8": frame(FIN | TEXT, b"\xff\xfe", KEY),
    "UTF-8 cut off": frame(FIN | TEXT, b"x" * 200 + b"\xe2\x82", KEY),
    "large and not UTF-8": frame(FIN | TEXT, b"x" * ON_STACK + b"\xff", KEY),
    "a surrogate": frame(FIN | TEXT, b"\xed\xa0\x80", KEY),
    "a fragment": frame(TEXT, b"text", KEY),
    "reserved bit": frame(FIN | RSV1 | TEXT, b"text", KEY),
    "a ping": frame(FIN | 9, b"text", KEY),
    "cut off": frame(FIN | TEXT, b"text", KEY)[:-1],
    "more follows": frame(FIN | TEXT, b"text", KEY) + b"\x81",
    "two messages": 2 * frame(FIN | TEXT, b"text", KEY),
    "length in too many octets": b"\x81\xfe\x00\x7d" + KEY + bytes(125),
    "length in 64 bits": frame(FIN | TEXT, b"x" * 65536, KEY),
    "64 bits for a short one": b"\x81\xff" + bytes(7) + b"\x04" + KEY + b"text",
    "length that is not there": b"\x81\xfe\xff\xff" + KEY,
    "a negative length": b"\x82\xff" + b"\xff" * 8 + KEY,
    "header cut off": b"\x81\xfe\x01",
    "one octet": b"\x81",
    "too big": frame(FIN | BINARY, bytes(1001), KEY),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_message_comes_as_it_is(io: Any, pair: Pair, data: bytes) -> None:
    ours, peer = pair
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    peer.sendall(data)
    assert io.receive(ours, 1 << 17, 1000 if len(data) > 1001 else LIMIT) == (data,)


def test_no_message_is_looked_for_below_a_limit_of_0(io: Any, pair: Pair) -> None:
    ours, peer = pair
    data = frame(FIN | TEXT, b"", KEY)
    peer.sendall(data)
    assert io.receive(ours, 100, -1) == (data,)
    peer.sendall(data)
    assert io.receive(ours, 100, 0) == ""


@pytest.mark.parametrize("size", [1, 10, ON_STACK, ON_STACK + 1, 20_000])
def test_no_more_is_read_than_asked_for(io: Any, pair: Pair, size: int) -> None:
    ours, peer = pair
    data = frame(FIN | BINARY, bytes(range(256)) * 100, KEY)
    peer.sendall(data)
    assert io.receive(ours, size, LIMIT) == (data[:size],)
    assert drain(ours) == data[size:]


def test_a_message_that_fills_the_read_comes_as_it_is(io: Any, pair: Pair) -> None:
    """More may be there, and who gets a message need not look."""
    ours, peer = pair
    for size in (10, ON_STACK, ON_STACK + 1):
        data = frame(FIN | BINARY, bytes(size - (6 if size == 10 else 8)), KEY)
        assert len(data) == size
        peer.sendall(data)
        assert io.receive(ours, size, LIMIT) == (data,)
        peer.sendall(data)
        assert io.receive(ours, size + 1, LIMIT) == bytes(size - (6 if size == 10 else 8))


def test_nothing_there(io: Any, pair: Pair) -> None:
    assert io.receive(pair[0], 100, LIMIT) is None
    pair[0].setblocking(False)
    assert io.wait_and_receive(pair[0], 100, LIMIT) is None


@pytest.mark.parametrize("name", ["receive", "wait_and_receive"])
def test_the_end(io: Any, pair: Pair, name: str) -> None:
    ours, peer = pair
    peer.sendall(bytes(ON_STACK))
    peer.close()
    assert getattr(io, name)(ours, 2 * ON_STACK, LIMIT) == (bytes(ON_STACK),)
    assert getattr(io, name)(ours, 100, LIMIT) == (b"",)


@pytest.mark.parametrize("name", ["receive", "wait_and_receive"])
def test_a_reset(io: Any, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.create_connection(server.getsockname())
        ours = Socket(fileno=server.accept()[0].detach())
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    with pytest.raises(ConnectionResetError):
        getattr(io, name)(ours, 100, LIMIT)
    ours.close()


def test_waiting_lets_other_threads_run(io: Any, pair: Pair) -> None:
    ours, peer = pair

    def send_later() -> None:
        time.sleep(0.05)
        peer.sendall(frame(FIN | TEXT, b"text", KEY))

    thread = threading.Thread(target=send_later)
    thread.start()
    assert io.wait_and_receive(ours, 100, LIMIT) == "text"
    thread.join()


@pytest.fixture
def alarms() -> Iterator[list[int]]:
    """A timer whose signal comes again and again."""
    came: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: came.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    yield came
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_signals_are_handled_while_it_waits(io: Any, pair: Pair, alarms: list[int]) -> None:
    ours, peer = pair
    timer = threading.Timer(0.1, peer.sendall, [frame(FIN | TEXT, b"text", KEY)])
    timer.start()
    assert io.wait_and_receive(ours, 100, LIMIT) == "text"
    timer.join()
    assert len(alarms) > 1


def test_a_handler_of_signals_ends_the_wait(io: Any, pair: Pair, alarms: list[int]) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise InterruptedError("by a handler")

    signal.signal(signal.SIGALRM, interrupt)
    if io is in_python:  # whose caller looks again
        assert io.wait_and_receive(pair[0], 100, LIMIT) is None
    else:
        with pytest.raises(InterruptedError, match="by a handler"):
            io.wait_and_receive(pair[0], 100, LIMIT)


# Sending


@pytest.mark.parametrize("message", CASES, ids=lambda message: f"{type(message)} {len(message)}")
def test_a_message_is_sent(io: Any, pair: Pair, message: str | bytes) -> None:
    ours, peer = pair
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    assert io.send(ours, message, 1 << 17) is None
    assert drain(peer) == fast_path.whole_frame(message, 1 << 17)


@pytest.mark.parametrize(
    "message",
    [
        *("x" * 1000, "\N{EURO SIGN}" * 400, b"x" * 1000, "x" * 65536, b"x" * 65536, "\ud800"),
        *(None, 1, bytearray(b"x"), memoryview(b"x"), ["x"]),
    ],
    ids=lambda message: f"{type(message)}",
)
def test_what_is_not_sent_here(io: Any, pair: Pair, message: Any) -> None:
    below = 1 << 17 if isinstance(message, (str, bytes)) and len(message) > 1000 else 1000
    assert io.send(pair[0], message, below) is False
    assert io.send(pair[0], "", 0) is False
    assert drain(pair[1]) == b""


@pytest.mark.parametrize("room", [0, 1, 3, 4, 5, 5000])
@pytest.mark.parametrize("size", [3, 200, 5000, ON_STACK, 60_000])
def test_the_rest_comes_back(io: Any, size: int, room: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = Socket()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        ours.connect(server.getsockname())
        peer = Socket(fileno=server.accept()[0].detach())
    fill(ours)
    message = "\N{EURO SIGN}" * (size // 3)
    whole = fast_path.whole_frame(message, 1 << 17)
    assert whole is not None
    if room == 0:
        assert io.send(ours, message, 1 << 17) == whole
    else:
        before = drain(peer)
        assert before
        rest = io.send(ours, message, 1 << 17)
        assert rest is None or whole.endswith(bytes(rest))
    ours.close()
    peer.close()


def test_a_part_is_taken(io: Any) -> None:
    """Of a large frame, by a socket with a small buffer; whatever the part, nothing is lost."""
    for size in (ON_STACK - 4, ON_STACK, 30_000, 65_535):
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours = Socket()
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
            ours.connect(server.getsockname())
            peer = Socket(fileno=server.accept()[0].detach())
        message, sent, rest = bytes(range(256)) * (size // 256), b"", None
        while rest is None:
            sent += fast_path.whole_frame(message, 1 << 17) or b""
            rest = io.send(ours, message, 1 << 17)
        rest = bytes(rest)
        taken = sent[: len(sent) - len(rest)]
        received = b""
        while len(received) < len(taken):
            received += peer.recv(1 << 20)
        assert received == taken
        assert sent.endswith(rest)
        ours.close()
        peer.close()


def test_a_broken_pipe(io: Any, pair: Pair) -> None:
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # it would kill us
    try:
        pair[1].close()
        for message in ("text", "x" * 60_000, "\N{EURO SIGN}"):
            with pytest.raises(BrokenPipeError):
                io.send(pair[0], message, 1 << 17)
    finally:
        signal.signal(signal.SIGPIPE, before)


class Connection:
    """As much of one as send_to_idle knows."""

    def __init__(self, sock: Socket) -> None:
        self.socket = sock
        self.ended = False
        self._lock = threading.RLock()
        self._unsent: deque[bytes] = deque()

    def _queue_rest(self, rest: bytes) -> None:
        assert not acquired_elsewhere(self)
        self._unsent.append(rest)


def acquired_elsewhere(connection: Connection) -> bool:
    """Whether another thread could acquire the lock."""
    results: list[bool] = []

    def attempt() -> None:
        results.append(connection._lock.acquire(False))
        if results[0]:
            connection._lock.release()

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    return results[0]


def test_to_many() -> None:
    pairs = [make_pair() for _ in range(20)]
    connections = [Connection(ours) for ours, _ in pairs]
    fill(pairs[3][0])
    pairs[5][0].close()
    pairs[7][1].close()
    connections[8].ended = True
    connections[9]._unsent.append(b"before")
    held, enough = threading.Event(), threading.Event()

    def hold() -> None:
        with connections[10]._lock:
            held.set()
            enough.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    frame_ = b"\x81\x04text"
    left = _socket_speedups.send_to_idle(frame_, connections)
    assert [connections.index(each) for each in left] == [3, 5, 7, 8, 9, 10]
    for each, (_, peer) in zip(connections, pairs, strict=True):
        if each not in left:
            assert drain(peer) == frame_
        assert acquired_elsewhere(each) is (each is not connections[10])
    enough.set()
    thread.join()
    for place in (8, 9, 10):
        assert drain(pairs[place][1]) == b""
    assert _socket_speedups.send_to_idle(frame_, []) == []
    assert fast_io.send_to_idle_in_python(frame_, connections) == connections
    for ours, peer in pairs:
        ours.close()
        peer.close()


def test_to_many_in_part(pair: Pair) -> None:
    """The rest is queued while the lock is still held, so that nothing comes between."""
    ours, peer = pair
    connection = Connection(ours)
    large = bytes(range(256)) * (1 << 14)
    assert _socket_speedups.send_to_idle(large, [connection]) == []
    received = drain(peer)
    assert 0 < len(received) < len(large)
    assert received + b"".join(connection._unsent) == large


def test_an_error_while_the_lock_is_held(pair: Pair) -> None:
    class Broken(Connection):
        def _queue_rest(self, rest: bytes) -> None:
            raise RuntimeError("no room")

    connection = Broken(pair[0])
    with pytest.raises(RuntimeError, match="no room"):
        _socket_speedups.send_to_idle(bytes(1 << 22), [connection])
    assert acquired_elsewhere(connection)
    connection._unsent = None  # type: ignore[assignment]
    with pytest.raises(TypeError):
        _socket_speedups.send_to_idle(b"frame", [connection])
    assert acquired_elsewhere(connection)


# What is wrong


def test_a_closed_socket(io: Any, pair: Pair) -> None:
    pair[0].close()
    for call in (
        lambda: io.receive(pair[0], 100, LIMIT),
        lambda: io.wait_and_receive(pair[0], 100, LIMIT),
        lambda: io.send(pair[0], "text", 1000),
    ):
        with pytest.raises(OSError, match="Bad file descriptor"):
            call()


@pytest.mark.parametrize("size", [0, -1])
def test_a_read_of_nothing(io: Any, pair: Pair, size: int) -> None:
    for name in ("receive", "wait_and_receive"):
        with pytest.raises(ValueError, match="one byte"):
            getattr(io, name)(pair[0], size, LIMIT)


class NoSocket:
    def __init__(self, number: object) -> None:
        self.number = number

    def fileno(self) -> object:
        if isinstance(self.number, Exception):
            raise self.number
        return self.number


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (function, arguments)
        for function in (_socket_speedups.receive, _socket_speedups.wait_and_receive)
        for arguments in (
            *[(), (1,), (1, 2), (1, 2, 3, 4), (1, 2, 3), (None, 2, 3), (None, "2", 3)],
            *[(None, 2, "3"), (NoSocket("1"), 2, 3), (NoSocket(TypeError()), 2, 3)],
        )
    ]
    + [
        (_socket_speedups.send, arguments)
        for arguments in ((), (None, "x"), (None, "x", 1), (None, "x", "1"), (1, "x", 1, 1))
    ]
    + [
        (_socket_speedups.send_to_idle, arguments)
        for arguments in ((), (b"x",), ("x", []), (b"x", None), (b"x", [], 1))
    ],
)
def test_wrong_arguments(function: Any, arguments: tuple[object, ...]) -> None:
    with pytest.raises((TypeError, AttributeError)):
        function(*arguments)


def test_what_is_no_descriptor() -> None:
    for number in (-1, 1 << 40, -(1 << 40)):
        with pytest.raises(OSError, match="Bad file descriptor"):
            _socket_speedups.receive(NoSocket(number), 1, 1)  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        _socket_speedups.receive(NoSocket(1 << 80), 1, 1)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        _socket_speedups.send_to_idle(b"frame", [NoSocket(1)])


def test_nothing_is_leaked(pair: Pair) -> None:
    """References are counted; a forgotten one of these objects would show."""
    ours, peer = pair
    text, data = "\N{EURO SIGN}" * 100, bytes(300)
    masked = [frame(FIN | TEXT, b"x" * 500, KEY), frame(FIN | TEXT, b"\xff" * 500, KEY)]
    connections = [Connection(ours)]

    def work(times: int) -> int:
        for _ in range(times):
            for sent in masked:
                peer.send(sent)
                fast_io.receive(ours, 1000, LIMIT)
            fast_io.receive(ours, 1000, LIMIT)
            fast_io.send(ours, text, 1000)
            fast_io.send(ours, data, 1000)
            fast_io.send_to_idle(data, connections)
            drain(peer)
        return sys.getallocatedblocks()

    work(100)
    before = work(100)
    assert work(2000) - before < 200
    assert sys.getrefcount(ours) < 10


@given(
    pieces=st.lists(
        st.binary(max_size=20)
        | st.builds(
            frame,
            st.sampled_from([FIN | TEXT, FIN | BINARY, TEXT]),
            st.binary(max_size=300),
            st.just(KEY),
        ),
        min_size=1,
        max_size=3,
    ),
    size=st.sampled_from([1, 7, 100, 5000, 20_000]),
    limit=st.sampled_from([-1, 0, 125, 1000, LIMIT]),
)
@example([frame(FIN | TEXT, b"", KEY)], 6, 0)
@example([bytes([FIN | TEXT, MASK | 126, 0, 126]) + KEY + bytes(126)], 134, 126)
def test_both_receive_the_same(pieces: list[bytes], size: int, limit: int) -> None:
    data = b"".join(pieces) or b"x"
    results: list[list[fast_io.Received]] = []
    modules: list[ModuleType | SimpleNamespace] = [_socket_speedups, in_python]
    for module in modules:
        ours, peer = make_pair()
        peer.sendall(data)
        received: list[fast_io.Received] = []
        while (one := module.receive(ours, size, limit)) is not None:
            received.append(one)
        results.append(received)
        ours.close()
        peer.close()
    assert results[0] == results[1]
    assert [type(one) for one in results[0]] == [type(one) for one in results[1]]
