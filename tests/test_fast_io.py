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
from contextlib import contextmanager, suppress
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import ANY

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flask_uwsgi_websocket.clients import client as clients
from flask_uwsgi_websocket.codec import SERVER, Protocol
from flask_uwsgi_websocket.codec.frames import BINARY, FIN, MASK, RSV1, TEXT, frame
from flask_uwsgi_websocket.connection import _socket_speedups, fast_io, receiving, sending
from flask_uwsgi_websocket.connection.base import Limits
from flask_uwsgi_websocket.connection.receiving import REFUSED
from flask_uwsgi_websocket.engines.threads import ThreadsEngine
from flask_uwsgi_websocket.exceptions import ConnectionClosed
from flask_uwsgi_websocket.servers.sockets import PlainProcess
from fuzz import connections as fuzz
from tests.server import eventually

KEY = b"\x80\x01\x7f\xff"
LIMIT = 1 << 20
#: What the C keeps on the stack.
ON_STACK = 8192

in_python = SimpleNamespace(
    receive=fast_io.receive_in_python,
    wait_and_receive=fast_io.wait_and_receive_in_python,
)
Pair = tuple[Socket, Socket]


@pytest.fixture(params=[_socket_speedups, in_python], ids=["C", "Python"])
def io(request: pytest.FixtureRequest) -> Any:
    return request.param


class Connection:
    """As much of one as the C knows."""

    __slots__ = (
        *("_lock", "_messages", "_read_size", "_saw_traffic", "_unsent", "_waiter", "congested"),
        *("ended", "fd", "protocol", "socket", "traffic"),
    )

    def __init__(
        self, sock: Socket, size: int = 1 << 17, limit: int = LIMIT, below: int = 1 << 30
    ) -> None:
        self.socket = sock
        self.fd = sock.fileno()
        self.ended = False
        self.protocol = Protocol(SERVER)
        self.protocol.fast_limit = limit
        self.protocol.plain_below = below
        self._read_size = size
        self._lock = _socket_speedups.Lock()
        self._unsent: deque[bytes] = deque()
        self.congested = False
        self.traffic = _socket_speedups.Traffic()

    def _queue_rest(self, rest: bytes) -> bool:
        assert not acquired_elsewhere(self)
        self._unsent.append(rest)
        return self.congested


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
    for name in ("Lock", "Traffic", "read", "receive", "wait_and_receive", "send", "send_to_idle"):
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
    received = getattr(io, name)(Connection(ours, 1 << 17))
    assert received == message
    assert type(received) is type(message)
    assert io.receive(Connection(ours, 1 << 17)) is None


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
    assert io.receive(Connection(ours, limit=1000 if len(data) > 1001 else LIMIT)) == (data,)


def test_no_message_is_looked_for_below_a_limit_of_0(io: Any, pair: Pair) -> None:
    ours, peer = pair
    data = frame(FIN | TEXT, b"", KEY)
    peer.sendall(data)
    assert io.receive(Connection(ours, 100, -1)) == (data,)
    peer.sendall(data)
    assert io.receive(Connection(ours, 100, 0)) == ""


@pytest.mark.parametrize("size", [1, 10, ON_STACK, ON_STACK + 1, 20_000])
def test_no_more_is_read_than_asked_for(io: Any, pair: Pair, size: int) -> None:
    ours, peer = pair
    data = frame(FIN | BINARY, bytes(range(256)) * 100, KEY)
    peer.sendall(data)
    assert io.receive(Connection(ours, size)) == (data[:size],)
    assert drain(ours) == data[size:]


def test_a_message_that_fills_the_read_comes_as_it_is(io: Any, pair: Pair) -> None:
    """More may be there, and who gets a message need not look."""
    ours, peer = pair
    for size in (10, ON_STACK, ON_STACK + 1):
        data = frame(FIN | BINARY, bytes(size - (6 if size == 10 else 8)), KEY)
        assert len(data) == size
        peer.sendall(data)
        assert io.receive(Connection(ours, size)) == (data,)
        peer.sendall(data)
        assert io.receive(Connection(ours, size + 1)) == bytes(size - (6 if size == 10 else 8))


def test_nothing_there(io: Any, pair: Pair) -> None:
    assert io.receive(Connection(pair[0], 100)) is None
    pair[0].setblocking(False)
    assert io.wait_and_receive(Connection(pair[0], 100)) is None


@pytest.mark.parametrize("name", ["receive", "wait_and_receive"])
def test_the_end(io: Any, pair: Pair, name: str) -> None:
    ours, peer = pair
    peer.sendall(bytes(ON_STACK))
    peer.close()
    assert getattr(io, name)(Connection(ours, 2 * ON_STACK)) == (bytes(ON_STACK),)
    assert getattr(io, name)(Connection(ours, 100)) == (b"",)


@pytest.mark.parametrize("name", ["receive", "wait_and_receive"])
def test_a_reset(io: Any, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.create_connection(server.getsockname())
        ours = Socket(fileno=server.accept()[0].detach())
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    with pytest.raises(ConnectionResetError):
        getattr(io, name)(Connection(ours, 100))
    ours.close()


def test_waiting_lets_other_threads_run(io: Any, pair: Pair) -> None:
    ours, peer = pair

    def send_later() -> None:
        time.sleep(0.05)
        peer.sendall(frame(FIN | TEXT, b"text", KEY))

    thread = threading.Thread(target=send_later)
    thread.start()
    assert io.wait_and_receive(Connection(ours, 100)) == "text"
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
    while (got := io.wait_and_receive(Connection(ours, 100))) is None:
        pass  # a signal came
    assert got == "text"
    timer.join()
    assert len(alarms) > 1


def test_a_handler_of_signals_may_close_what_is_waited_for(
    io: Any, pair: Pair, alarms: list[int]
) -> None:
    """Whoever gets the number then is not read from."""
    connection = Connection(pair[0])
    message = frame(FIN | TEXT, b"not for us", KEY)
    others: list[Socket] = []

    def close(number: int, frame: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        before, connection.fd = connection.fd, -1
        connection.socket.close()
        others.extend(make_pair())
        others[1].send(message)
        assert others[0].fileno() == before

    signal.signal(signal.SIGALRM, close)

    def wait() -> fast_io.Received:
        while (got := io.wait_and_receive(connection)) is None:
            pass
        return got

    with pytest.raises(OSError, match="Bad file descriptor"):
        wait()
    assert drain(others[0]) == message
    for other in others:
        other.close()


def test_a_handler_of_signals_ends_the_wait(io: Any, pair: Pair, alarms: list[int]) -> None:
    def interrupt(number: int, frame: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)  # another would strike whatever comes next
        raise InterruptedError("by a handler")

    signal.signal(signal.SIGALRM, interrupt)
    if io is in_python:  # whose caller looks again
        assert io.wait_and_receive(Connection(pair[0], 100)) is None
    else:
        with pytest.raises(InterruptedError, match="by a handler"):
            io.wait_and_receive(Connection(pair[0], 100))


# Handing on


class Handled(Connection):
    """A connection with a handler, and what came to either of them."""

    __slots__ = ("handled", "result", "taken")

    def __init__(self, sock: Socket) -> None:
        super().__init__(sock)
        self._waiter: Any = self
        self._messages: deque[str] = deque()
        self._saw_traffic = False
        self.result: Any = None
        self.handled: list[object] = []
        self.taken: list[object] = []

    read = _socket_speedups.read

    def switch(self, message: object) -> object:
        assert self._saw_traffic
        self.handled.append(message)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def _take_read(self, got: object) -> None:
        self.taken.append(got)


def test_who_waits_gets_the_message(pair: Pair) -> None:
    connection = Handled(pair[0])
    pair[1].sendall(frame(FIN | TEXT, b"text", KEY))
    assert connection.read() is None
    assert (connection.handled, connection.taken) == (["text"], [])
    assert connection.read() is None  # there is nothing
    assert (connection.handled, connection.taken) == (["text"], [])


def test_who_refuses_it_leaves_it_to_the_connection(pair: Pair) -> None:
    connection = Handled(pair[0])
    connection.result = REFUSED
    pair[1].sendall(frame(FIN | TEXT, b"text", KEY))
    connection.read()
    assert (connection.handled, connection.taken) == (["text"], ["text"])


def test_an_error_of_who_waits_is_raised(pair: Pair) -> None:
    connection = Handled(pair[0])
    connection.result = RuntimeError("in a handler")
    pair[1].sendall(frame(FIN | TEXT, b"text", KEY))
    with pytest.raises(RuntimeError, match="in a handler"):
        connection.read()
    assert connection.taken == []


@pytest.mark.parametrize(
    ("field", "value"), [("_waiter", None), ("ended", True), ("_messages", deque(["before"]))]
)
def test_what_is_not_for_who_waits(pair: Pair, field: str, value: object) -> None:
    connection = Handled(pair[0])
    setattr(connection, field, value)
    pair[1].sendall(frame(FIN | TEXT, b"text", KEY))
    connection.read()
    assert (connection.handled, connection.taken) == ([], ["text"])


@pytest.mark.parametrize("value", [None, 1, -1, object()])
def test_a_connection_without_its_messages(pair: Pair, value: Any) -> None:
    connection = Handled(pair[0])
    connection._messages = value
    pair[1].sendall(frame(FIN | TEXT, b"text", KEY))
    with pytest.raises(TypeError, match="len"):
        connection.read()
    assert (connection.handled, connection.taken) == ([], [])


def test_other_bytes_and_the_end_are_the_connection_s(pair: Pair) -> None:
    connection = Handled(pair[0])
    data = 2 * frame(FIN | TEXT, b"text", KEY)
    pair[1].sendall(data)
    connection.read()
    pair[1].close()
    connection.read()
    connection.fd = -1
    connection.read()
    assert (connection.handled, connection.taken) == ([], [(data,), (b"",), (b"",)])


@pytest.mark.parametrize("use", [fast_io.read, fast_io.read_in_python], ids=["C", "Python"])
def test_nothing_is_lost_between_two_turns(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in (
        (receiving, "READ_SIZE", 4096),
        (receiving, "TURN_TIME", 10),
        (receiving.Receiving, "read", use),
    ):
        monkeypatch.setattr(module, name, value)
    ours, peer = make_pair()
    connection: Any = ThreadsEngine(PlainProcess()).open(ours, Protocol(SERVER), Limits())
    message = bytes(range(256)) * 2000
    sender = threading.Thread(
        target=peer.sendall, args=(frame(FIN | BINARY, message, KEY) + frame(FIN | TEXT, b"", KEY),)
    )
    sender.start()
    received: list[object] = []
    deadline = time.monotonic() + 10
    while len(received) < 2 and time.monotonic() < deadline:
        connection.read()
        if (one := connection.take()) is not None:
            received.append(one)
    assert received == [message, ""]
    sender.join(10)
    connection.release()
    peer.close()


# Sending

LARGE: list[str | bytes] = [
    *("x" * 65535, "x" * 65536, "\N{EURO SIGN}" * 30_000, b"\xff" * 65536, bytes(1 << 20)),
]


def framed(message: str | bytes) -> bytes:
    opcode, payload = (TEXT, message.encode()) if isinstance(message, str) else (BINARY, message)
    return frame(FIN | opcode, payload)


def read_all(peer: Socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += peer.recv(1 << 20)
    return data


@pytest.mark.parametrize(
    "message", CASES + LARGE, ids=lambda message: f"{type(message)} {len(message)}"
)
def test_a_message_is_sent(pair: Pair, message: str | bytes) -> None:
    ours, peer = pair
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
    connection = Connection(ours)
    whole = framed(message)
    assert _socket_speedups.send(connection, message) is None
    rest = b"".join(connection._unsent)
    assert read_all(peer, len(whole) - len(rest)) + rest == whole


@pytest.mark.parametrize(
    "message",
    [
        *("x" * 1000, "\N{EURO SIGN}" * 400, b"x" * 1000, "\ud800"),
        *(None, 1, bytearray(b"x"), memoryview(b"x"), ["x"]),
    ],
    ids=lambda message: f"{type(message)}",
)
def test_what_is_not_sent_here(pair: Pair, message: Any) -> None:
    assert _socket_speedups.send(Connection(pair[0], below=1000), message) is False
    assert _socket_speedups.send(Connection(pair[0], below=0), "") is False
    assert drain(pair[1]) == b""


@pytest.mark.parametrize("message", ["text", b"bytes", "x" * 65536])
def test_what_is_not_sent_now(pair: Pair, message: str | bytes) -> None:
    connection = Connection(pair[0])
    connection._unsent.append(b"before")
    assert _socket_speedups.send(connection, message) is False
    connection._unsent.clear()
    connection.ended = True
    assert _socket_speedups.send(connection, message) is False
    connection.ended = False
    with held_elsewhere(connection):
        assert _socket_speedups.send(connection, message) is False
    assert drain(pair[1]) == b""
    with connection._lock:  # again, by its holder
        assert _socket_speedups.send(connection, message) is None
        assert not acquired_elsewhere(connection)
    assert acquired_elsewhere(connection)
    assert drain(pair[1]) == framed(message)


def test_what_is_yet_to_be_opened_is_not_sent_to() -> None:
    assert _socket_speedups.send(SimpleNamespace(fd=1), "text") is False
    assert _socket_speedups.send(None, "text") is False


@pytest.mark.parametrize("is_much", [True, False])
@pytest.mark.parametrize("size", [3, 200, 5000, ON_STACK, 60_000, 300_000])
def test_what_nobody_takes_is_queued(size: int, is_much: bool) -> None:
    ours, peer = make_pair()
    fill(ours)
    connection = Connection(ours)
    connection.congested = is_much
    message = "\N{EURO SIGN}" * (size // 3)
    assert _socket_speedups.send(connection, message) is (True if is_much else None)
    assert b"".join(connection._unsent) == framed(message)
    assert acquired_elsewhere(connection)
    ours.close()
    peer.close()


@pytest.mark.parametrize("kind", [str, bytes, "\N{EURO SIGN}"])
@pytest.mark.parametrize("size", [ON_STACK - 4, ON_STACK, 30_000, 65_535, 65_536, 1 << 20])
def test_a_part_is_taken(size: int, kind: Any) -> None:
    """Of a large frame, by a socket with a small buffer; whatever the part, nothing is lost."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = Socket()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
        ours.connect(server.getsockname())
        peer = Socket(fileno=server.accept()[0].detach())
    message: str | bytes = bytes(range(256)) * (size // 256)
    if kind is not bytes:
        assert isinstance(message, bytes)
        message = message.decode("latin-1")
        message = message.replace("\x80", kind) if kind is not str else "x" * len(message)
    connection, sent = Connection(ours), b""
    while not connection._unsent:
        sent += framed(message)
        assert _socket_speedups.send(connection, message) is None
    rest = b"".join(bytes(one) for one in connection._unsent)
    assert sent.endswith(rest)
    assert read_all(peer, len(sent) - len(rest)) + rest == sent
    ours.close()
    peer.close()


@pytest.mark.parametrize("message", ["text", "x" * 60_000, "x" * 70_000, "\N{EURO SIGN}", b"x"])
def test_a_broken_pipe(pair: Pair, message: str | bytes) -> None:
    """The general way tells of it."""
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # it would kill us
    try:
        pair[1].close()
        connection = Connection(pair[0])
        assert _socket_speedups.send(connection, message) is False
        assert not connection._unsent
        assert acquired_elsewhere(connection)
    finally:
        signal.signal(signal.SIGPIPE, before)


@pytest.mark.parametrize("use", [fast_io.send, fast_io.send_in_python], ids=["C", "Python"])
@pytest.mark.parametrize("message", CASES + LARGE, ids=lambda one: f"{type(one)} {len(one)}")
def test_both_send_the_same(
    use: Any, message: str | bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "send", use)
    monkeypatch.setattr(clients, "send", use)
    ours, peer = make_pair()
    limits = Limits(send_queue_size=1 << 24)
    connection: Any = ThreadsEngine(PlainProcess()).open(ours, Protocol(SERVER), limits)
    client = clients.WebSocketClient({}, connection)
    reader = Reader(peer)
    for one in (message, "between", message):
        client.send(one)
    eventually(lambda: not connection._unsent, "an empty queue")
    connection.release()
    assert reader.everything() == framed(message) + framed("between") + framed(message)
    with pytest.raises(ConnectionClosed):
        client.send(message)


class Reader(threading.Thread):
    """Reads all that comes."""

    def __init__(self, sock: Socket) -> None:
        super().__init__()
        self.socket = sock
        self.data = bytearray()
        self.start()

    def run(self) -> None:
        while data := self.socket.recv(1 << 20):
            self.data += data

    def everything(self) -> bytes:
        self.join(10)
        self.socket.close()
        return bytes(self.data)


@contextmanager
def held_elsewhere(connection: Connection) -> Iterator[None]:
    """Have another thread hold its lock."""
    held, enough = threading.Event(), threading.Event()

    def hold() -> None:
        with connection._lock:
            held.set()
            enough.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    yield
    enough.set()
    thread.join()


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
    connections[5].fd = -1
    pairs[7][1].close()
    connections[8].ended = True
    connections[9]._unsent.append(b"before")
    connections[11].protocol.plain_below = 4
    connections[12].protocol.plain_below = 5
    frame_ = b"\x81\x04text"
    with held_elsewhere(connections[10]):
        left = _socket_speedups.send_to_idle(frame_, 4, 1, connections)
        assert [connections.index(each) for each in left] == [3, 5, 7, 8, 9, 10, 11]
        for each, (_, peer) in zip(connections, pairs, strict=True):
            if each not in left:
                assert drain(peer) == frame_
            assert acquired_elsewhere(each) is (each is not connections[10])
    for place in (8, 9, 10, 11):
        assert drain(pairs[place][1]) == b""
    assert _socket_speedups.send_to_idle(frame_, 4, 1, []) == []
    assert fast_io.send_to_idle_in_python(frame_, 4, 1, connections) == connections
    for ours, peer in pairs:
        ours.close()
        peer.close()


def test_to_many_of_several_classes(pair: Pair) -> None:
    """Each has its slots elsewhere."""

    class Before:
        __slots__ = ("first", "second")

    class Moved(Before):
        __slots__ = Connection.__slots__
        __init__, _queue_rest = Connection.__init__, Connection._queue_rest  # type: ignore[assignment]

    ours, peer = pair
    connections: list[Any] = [Connection(ours), Moved(ours), Connection(ours), Moved(ours)]  # type: ignore[call-arg]
    assert _socket_speedups.send_to_idle(b"frame", 5, 1, connections) == []
    assert drain(peer) == b"frame" * 4


def test_to_many_in_part(pair: Pair) -> None:
    """The rest is queued while the lock is still held, so that nothing comes between."""
    ours, peer = pair
    connection = Connection(ours)
    large = bytes(range(256)) * (1 << 14)
    assert _socket_speedups.send_to_idle(large, 1, 1, [connection]) == []
    received = drain(peer)
    assert 0 < len(received) < len(large)
    assert received + b"".join(connection._unsent) == large


def test_an_error_while_the_lock_is_held(pair: Pair) -> None:
    class Broken(Connection):
        __slots__ = ()

        def _queue_rest(self, rest: bytes) -> bool:
            raise RuntimeError("no room")

    connection = Broken(pair[0])
    with pytest.raises(RuntimeError, match="no room"):
        _socket_speedups.send_to_idle(bytes(1 << 22), 1, 1, [connection])
    assert acquired_elsewhere(connection)
    for size in (4000, 70_000):
        with pytest.raises(RuntimeError, match="no room"):
            _socket_speedups.send(connection, bytes(size))
        assert acquired_elsewhere(connection)


# The lock


def test_a_lock_is_its_holder_s_as_often_as_acquired() -> None:
    connection = SimpleNamespace(_lock=_socket_speedups.Lock())
    lock = connection._lock
    assert lock.acquire() is True
    with lock:
        assert lock.acquire(False) is True
        lock.release()
        assert not acquired_elsewhere(connection)
    assert not acquired_elsewhere(connection)
    lock.release()
    assert acquired_elsewhere(connection)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="un-acquired"):
            lock.release()


def test_a_lock_is_released_by_its_holder_only() -> None:
    connection: Any = SimpleNamespace(_lock=_socket_speedups.Lock())
    with held_elsewhere(connection):
        assert connection._lock.acquire(False) is False
        with pytest.raises(RuntimeError, match="un-acquired"):
            connection._lock.release()
    with connection._lock:
        pass


def test_one_at_a_time_has_a_lock() -> None:
    lock = _socket_speedups.Lock()
    inside: list[int] = []
    most = total = 0

    def work(number: int) -> None:
        nonlocal most, total
        for turn in range(2000):
            with lock, lock:
                inside.append(number)
                most = max(most, len(inside))
                if turn % 100 == 0:
                    time.sleep(0.0002)
                total += 1
                inside.pop()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    finally:
        sys.setswitchinterval(before)
    assert (most, total) == (1, 16_000)
    assert lock.acquire(False)


def test_who_waits_for_a_lock_is_next() -> None:
    """Though another acquires it again at once, and gives up the GIL only while holding it."""
    lock = _socket_speedups.Lock()
    turns, over = 0, False

    def work() -> None:
        nonlocal turns
        while not over:
            with lock:
                time.sleep(0)
                turns += 1

    thread = threading.Thread(target=work)
    thread.start()
    waited = []
    for _ in range(20):
        before = turns
        with lock:
            waited.append(turns - before)
        time.sleep(0.001)
    over = True
    thread.join()
    assert sorted(waited)[10] < 100


def test_all_who_wait_for_a_lock_get_it() -> None:
    lock = _socket_speedups.Lock()
    order: list[int] = []

    def work(number: int) -> None:
        with lock, lock:
            order.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    with lock:
        for thread in threads:
            thread.start()
            time.sleep(0.1)  # more than it takes to begin to wait, mostly
        assert order == []
    for thread in threads:
        thread.join(30)
    assert sorted(order) == list(range(5))
    assert lock.acquire(False)


def test_a_lock_knows_no_timeout() -> None:
    with pytest.raises(TypeError, match="blocking"):
        _socket_speedups.Lock().acquire(True, 5)  # type: ignore[call-arg]


# What is wrong


def test_a_closed_socket(io: Any, pair: Pair) -> None:
    pair[0].close()
    connection = Connection(pair[0])
    for call in (io.receive, io.wait_and_receive):
        with pytest.raises(OSError, match="Bad file descriptor"):
            call(connection)
    assert _socket_speedups.send(connection, "text") is False


@pytest.mark.parametrize("size", [0, -1])
def test_a_read_of_nothing(io: Any, pair: Pair, size: int) -> None:
    for name in ("receive", "wait_and_receive"):
        with pytest.raises(ValueError, match="one byte"):
            getattr(io, name)(Connection(pair[0], size))


class Wrong(Connection):
    """A connection of which one thing is wrong."""

    __slots__ = ()

    def __init__(self, sock: Socket, name: str, value: object) -> None:
        super().__init__(sock)
        place: Any = self.protocol if name in ("fast_limit", "plain_below") else self
        if value is None:
            delattr(place, name)
        else:
            setattr(place, name, value)


class ByName:
    """A connection without slots."""

    fd = 1
    ended = False


def test_slots_of_another_class(pair: Pair) -> None:
    """They would be the place of something else."""

    class Lends:
        fd = Connection.fd
        _lock = Connection._lock

    for call in (_socket_speedups.receive, _socket_speedups.read):
        with pytest.raises(TypeError, match="no slot fd"):
            call(Lends())
    assert _socket_speedups.send(Lends(), "text") is False


def test_a_class_that_is_met_while_another_is_looked_at(pair: Pair) -> None:
    class Meta(type):
        def __getattribute__(cls, name: str) -> Any:
            if name == "_read_size":
                assert _socket_speedups.send(Connection(ours), "between") is None
            return super().__getattribute__(name)

    class Before:
        __slots__ = ("first", "second")

    class Other(Before, metaclass=Meta):
        __slots__ = Connection.__slots__
        __init__, _queue_rest = Connection.__init__, Connection._queue_rest  # type: ignore[assignment]

    ours, peer = pair
    connections: list[Any] = [Connection(ours), Other(ours), Connection(ours), Other(ours)]  # type: ignore[call-arg]
    for connection in connections:
        assert _socket_speedups.send(connection, "text") is None
    expected = ["text", "between", "text", "text", "between", "text"]
    assert drain(peer) == b"".join(map(framed, expected))


def test_a_queue_that_takes_the_lock_away(pair: Pair) -> None:
    class Queue:
        def __len__(self) -> int:
            connection._lock = _socket_speedups.Lock()
            return 0

    connection: Any = Handled(pair[0])
    connection._unsent = connection._messages = Queue()
    for _ in range(100):
        assert _socket_speedups.send(connection, "text") is None
        assert acquired_elsewhere(connection)


@pytest.mark.parametrize("value", [None, "text", 1.5, 1 << 80])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (_socket_speedups.receive, "fd"),
        (_socket_speedups.receive, "_read_size"),
        (_socket_speedups.receive, "fast_limit"),
        (_socket_speedups.receive, "protocol"),
        (_socket_speedups.receive, "traffic"),
        (_socket_speedups.wait_and_receive, "_read_size"),
        (lambda one: _socket_speedups.send(one, "text"), "plain_below"),
        (lambda one: _socket_speedups.send(one, "text"), "_unsent"),
        (lambda one: _socket_speedups.send(one, "text"), "_lock"),
        (lambda one: _socket_speedups.send(one, "text"), "traffic"),
        (lambda one: _socket_speedups.send_to_idle(b"frame", 1, 1, [one]), "_lock"),
        (lambda one: _socket_speedups.send_to_idle(b"frame", 1, 1, [one]), "traffic"),
        (lambda one: _socket_speedups.send_to_idle(b"frame", 1, 1, [one]), "_unsent"),
        (lambda one: _socket_speedups.send_to_idle(b"frame", 1, 1, [one]), "protocol"),
        (lambda one: _socket_speedups.send_to_idle(b"frame", 1, 1, [one]), "plain_below"),
    ],
)
def test_wrong_connections(pair: Pair, call: Any, name: str, value: object) -> None:
    if name == "_unsent" and value == "text":
        assert call(Wrong(pair[0], name, value)) in (False, [ANY])  # not empty
        return
    with pytest.raises((TypeError, AttributeError, OverflowError)):
        call(Wrong(pair[0], name, value))
    assert drain(pair[1]) == b""


@pytest.mark.parametrize("number", [-1, -5, 1 << 40, 1 << 80, "1", None])
def test_what_is_no_descriptor(pair: Pair, number: object) -> None:
    connection = Wrong(pair[0], "fd", number)
    with pytest.raises((OSError, OverflowError, TypeError, AttributeError)):
        _socket_speedups.receive(connection)
    assert _socket_speedups.send(connection, "text") is False
    assert _socket_speedups.send_to_idle(b"frame", 5, 1, [connection]) == [connection]
    assert acquired_elsewhere(connection)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (function, arguments)
        for function in (_socket_speedups.receive, _socket_speedups.wait_and_receive)
        for arguments in ((), (1, 2), (1,), (None,), (ByName(),), (ByName,))
    ]
    + [(_socket_speedups.send, arguments) for arguments in ((), (None,), (None, "x", 1))]
    + [
        (_socket_speedups.send_to_idle, arguments)
        for arguments in (
            *[(), (b"x",), (b"x", 1), (b"x", 1, 1), ("x", 1, 1, []), (b"x", "1", 1, [])],
            *[(b"x", 1, "1", []), (b"x", 1, 1, None), (b"x", 1, 1, [], 1)],
            *[(b"x", 1, 1, [1]), (b"x", 1, 1, [ByName()])],
        )
    ],
)
def test_wrong_arguments(function: Any, arguments: tuple[object, ...]) -> None:
    with pytest.raises((TypeError, AttributeError)):
        function(*arguments)


class Full(Connection):
    """Its queue takes nothing."""

    __slots__ = ()

    def _queue_rest(self, rest: bytes) -> bool:
        return False


def test_nothing_is_leaked(pair: Pair) -> None:
    """References are counted; a forgotten one of these objects would show."""
    ours, peer = pair
    text, data = "\N{EURO SIGN}" * 100, bytes(300)
    masked = [frame(FIN | TEXT, b"x" * 500, KEY), frame(FIN | TEXT, b"\xff" * 500, KEY)]
    connection = Connection(ours, 1000)
    connections = [connection, Connection(ours, below=0)]
    wrong = Wrong(ours, "_lock", 1)
    stuffed, other = make_pair()
    fill(stuffed)
    blocked = Full(stuffed)

    def work(times: int) -> int:
        for _ in range(times):
            for sent in masked:
                peer.send(sent)
                fast_io.receive(connection)
            fast_io.receive(connection)
            fast_io.send(connection, text)
            fast_io.send(connection, data)
            fast_io.send(connections[1], text)
            fast_io.send(ByName, text)
            with suppress(TypeError):
                fast_io.send(wrong, text)
            fast_io.send_to_idle(data, 1, 1, connections)
            fast_io.send(blocked, text)
            with _socket_speedups.Lock():
                drain(peer)
        return sys.getallocatedblocks()

    work(100)
    before = work(100)
    kept = [ours, connection._lock, connection.traffic]
    kept += [_socket_speedups.Lock, _socket_speedups.Traffic]
    counted = [sys.getrefcount(each) for each in kept]
    grown = work(2000) - before
    stuffed.close()
    other.close()
    # One forgotten in each turn would be 2,000; other threads of this process allocate a few.
    assert grown < 1000
    for each, count in zip(kept, counted, strict=True):
        assert sys.getrefcount(each) - count < 1000


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
        while (one := module.receive(Connection(ours, size, limit))) is not None:
            received.append(one)
        results.append(received)
        ours.close()
        peer.close()
    assert results[0] == results[1]
    assert [type(one) for one in results[0]] == [type(one) for one in results[1]]


@pytest.mark.parametrize("seed", range(20))
def test_the_fuzzer_of_connections_finds_nothing(seed: int) -> None:
    round_ = fuzz.Round(seed)
    # The others are about threads and signals, for which the time is short in a test.
    names = ("send", "send_to_some", "receive", "read", "drain", "flush", "end", "fail", "break_")
    round_.actions = [getattr(round_, name) for name in names]
    round_.run()
