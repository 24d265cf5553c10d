"""A fuzzer for what reads and sends in C: ``python -m fuzz.connections``; README.rst tells how."""

from __future__ import annotations

import argparse
import random
import signal
import socket
import sys
import threading
import time
from _socket import socket as Socket
from collections.abc import Callable
from contextlib import suppress

from flask_uwsgi_websocket.codec import SERVER, Protocol
from flask_uwsgi_websocket.codec.frames import BINARY, FIN, TEXT, frame
from flask_uwsgi_websocket.connection import fast_io


class _Reads:
    read = fast_io.read


#: The method as a function.
read: Callable[[object], None] = _Reads.read

#: Sizes at which something changes: of headers, of the stack, of sends without the GIL.
SIZES = (0, 1, 125, 126, 8180, 8182, 8192, 65535, 65536, 300_000, 3_000_000)
#: Of the sockets' buffers, so that sends stop half way.
BUFFERS = (2048, 20_000, 1 << 20)
SOME_BYTES = random.Random(0).randbytes(SIZES[-1] + 100)


class Failed(Exception):
    """Raised by the queue of some, and by a handler of signals."""


class Connection:
    """As much of one as the C knows, with what its peer should get."""

    __slots__ = (
        *("_lock", "_messages", "_read_size", "_saw_traffic", "_unsent", "_waiter", "counted"),
        *("ended", "expected", "fails", "fd", "got", "peer", "protocol", "seen", "socket"),
        "traffic",
    )

    def __init__(self, dice: random.Random) -> None:
        ours, theirs = socket.socketpair() if dice.random() < 0.5 else tcp_pair()
        for sock in (ours, theirs):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, dice.choice(BUFFERS))
        theirs.setblocking(False)
        self.socket = Socket(fileno=ours.detach())
        self.peer = theirs
        self.fd = self.socket.fileno()
        self.ended = self.fails = False
        self.protocol = Protocol(SERVER)
        self.protocol.plain_below = dice.choice((sys.maxsize, sys.maxsize, 1000))
        self._read_size = dice.choice((1, 7, 8192, 8193, 65536))
        self._lock = fast_io.Lock()
        self._unsent: list[bytes | memoryview] = []
        self._waiter: Connection | None = None  # it stands for its own handler, too
        self._messages: list[str | bytes] = []
        self._saw_traffic = False
        self.traffic = fast_io.Traffic()
        self.counted: int | None = 0  # messages; None where nobody knows
        self.got: list[object] = []
        self.expected, self.seen = bytearray(), bytearray()

    def _queue_rest(self, rest: bytes | memoryview) -> bool:
        self._unsent.append(rest)
        if self.fails:
            raise Failed
        return len(rest) > 1000

    def switch(self, message: object) -> object:
        if len(self.got) % 2:
            return NotImplemented
        assert self._saw_traffic
        self.got.append(message)
        return None

    def _take_read(self, got: object) -> None:
        self.got.append(got)

    def read_peer(self, size: int) -> None:
        with suppress(BlockingIOError, ConnectionError, OSError):
            while size > 0 and (data := self.peer.recv(min(size, 1 << 20))):
                self.seen += data
                size -= len(data)

    def check(self) -> None:
        """What was said to be sent is with the peer, or under way to it, or queued."""
        queued = b"".join(self._unsent)
        self.read_peer(1 << 30)
        alive = self.fd >= 0 and self.peer.fileno() >= 0
        if alive and not queued:
            self.wait_for(len(self.expected))
        together = len(self.seen) + len(queued)
        assert self.expected.startswith(self.seen), "other octets came than were sent"
        assert self.expected.endswith(queued), "other octets are queued than were left"
        assert together <= len(self.expected), "something is doubled"
        assert self.counted in (None, self.traffic.messages_sent), "a message is miscounted"

    def wait_for(self, size: int) -> None:
        deadline = time.monotonic() + 10
        while len(self.seen) < size:
            self.read_peer(1 << 20)
            assert time.monotonic() < deadline, "something is lost"

    def close(self) -> None:
        self.socket.close()
        self.peer.close()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        return ours, server.accept()[0]


class Round:
    """Random calls on a few connections."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.connections = [Connection(self.dice) for _ in range(self.dice.randint(1, 6))]
        self.actions: list[Callable[[Connection], object]] = [
            *[self.send] * 6,
            *[self.send_to_some] * 6,
            *[self.receive] * 4,
            *[self.read] * 2,
            *(self.drain, self.flush, self.end, self.cut, self.fail, self.break_, self.hold),
            *(self.interrupt, self.wait),
        ]

    def run(self) -> None:
        for _ in range(self.dice.randint(1, 60)):
            self.dice.choice(self.actions)(self.dice.choice(self.connections))
        for one in self.connections:
            assert one._lock.acquire(False), "a lock is left behind"
            one.check()
            one.close()

    def message(self) -> str | bytes:
        size = max(self.dice.choice(SIZES) + self.dice.randint(-2, 2), 0)
        begin = self.dice.randrange(50)
        match self.dice.randrange(4):
            case 0:
                return SOME_BYTES[begin : begin + size]
            case 1:
                return SOME_BYTES[begin : begin + size].decode("latin-1")
            case 2:
                return "\N{EURO SIGN}\ud800"[: self.dice.randint(1, 2)] * (size // 3)
        return "x" * size

    def send(self, one: Connection) -> None:
        message, queued = self.message(), len(one._unsent)
        before = one.traffic.bytes_sent
        try:
            is_text = isinstance(message, str)
            data = message.encode() if isinstance(message, str) else message
            made = frame(FIN | (TEXT if is_text else BINARY), data)
        except UnicodeEncodeError:
            made = b""
        try:
            sent = fast_io.send(one, message)
        except Failed:
            sent = None
        if sent is False:
            assert len(one._unsent) == queued
        else:
            assert made, "a text was sent that is none"
            assert not queued
            assert not one.ended
            one.expected += made
            one.counted = None if one.counted is None else one.counted + 1
            left = sum(map(len, one._unsent))
            assert one.traffic.bytes_sent - before == len(made) - left, "octets are miscounted"

    def send_to_some(self, one: Connection) -> None:
        some = self.dice.sample(self.connections, self.dice.randint(1, len(self.connections)))
        size, count = self.dice.choice(SIZES), self.dice.randint(1, 5)
        data = frame(FIN | BINARY, SOME_BYTES[:size])
        failing = [each for each in some if each.fails]
        before = {each: len(each._unsent) for each in some}
        kind = self.dice.choice((list, tuple, iter))
        try:
            left = fast_io.send_to_idle(data, size, count, kind(some))
        except Failed:  # those before it have it, and so has the one that failed
            assert failing
            for each in some:
                each.expected.clear()  # who had it cannot be told
                each.seen.clear()
                each._unsent.clear()
                each.counted = None
                each.close()
                each.fd = -1
            return
        for each in some:
            if each in left:
                assert len(each._unsent) == before[each]
            else:
                assert not before[each]
                each.expected += data
                each.counted = None if each.counted is None else each.counted + count

    def receive(self, one: Connection) -> None:
        message = self.message()[: self.dice.choice((10, 9000, 30_000))]
        payload = message.encode("utf-8", "surrogatepass") if isinstance(message, str) else message
        opcode = TEXT if isinstance(message, str) else BINARY
        octets = frame(FIN | opcode, payload, self.dice.randbytes(4))
        end = self.dice.choice((len(octets), self.dice.randint(1, len(octets))))
        one.protocol.fast_limit = self.dice.choice((-1, 0, 100, 1 << 20))
        with suppress(OSError):
            sent = one.peer.send(octets[:end])
            seen, deadline = bytearray(), time.monotonic() + 10
            while len(seen) < sent:
                assert time.monotonic() < deadline, "something is lost"
                got = fast_io.receive(one)
                if isinstance(got, tuple):
                    assert octets.startswith(got[0], len(seen))
                    seen += got[0]
                    deadline = time.monotonic() + 10
                elif got is not None:
                    assert (got, seen, sent) == (message, b"", len(octets))
                    return

    def read(self, one: Connection) -> None:
        """Hand a message on to who waits for it, or to the connection."""
        one._waiter = None if one.fails else self.dice.choice((one, None))
        one._messages = self.dice.choice(([], [], ["x"]))
        one.got = [None] * self.dice.randrange(2)
        one.protocol.fast_limit = 1 << 20
        data = self.dice.choice((b"message", b"x" * 9000))
        octets = frame(FIN | BINARY, data, b"keys")
        with suppress(OSError):
            left = one.peer.send(octets)
            read(one)
            last = one.got[-1] if one.got else None
            assert last in (None, data) or isinstance(last, tuple)
            left -= len(last[0]) if isinstance(last, tuple) else len(octets) * bool(last)
            one.protocol.fast_limit, deadline = -1, time.monotonic() + 10
            while left > 0:
                assert time.monotonic() < deadline, "something is lost"
                got = fast_io.receive(one)
                left -= len(got[0]) if got else 0
        self._empty(one)

    def _empty(self, one: Connection) -> int:
        """Read what is there; tell how many octets that was, or 1 at the end."""
        one.protocol.fast_limit, read = -1, 0
        try:
            while isinstance(got := fast_io.receive(one), tuple):
                if not got[0]:
                    return max(read, 1)
                read += len(got[0])
        except OSError:
            return max(read, 1)
        return read

    def drain(self, one: Connection) -> None:
        one.read_peer(self.dice.choice((1, 1000, 1 << 30)))

    def flush(self, one: Connection) -> None:
        with suppress(OSError):
            while one._unsent:
                sent = one.socket.send(one._unsent[0], fast_io.SEND_FLAGS)
                one._unsent[0] = memoryview(one._unsent[0])[sent:]
                if not one._unsent[0]:
                    one._unsent.pop(0)

    def end(self, one: Connection) -> None:
        one.ended = self.dice.random() < 0.3

    def cut(self, one: Connection) -> None:
        """Close one of the ends, now and then; or the number only."""
        if self.dice.random() < 0.3:
            one.check()
            one.expected = bytearray(one.seen) + b"".join(one._unsent)
            match self.dice.randrange(3):
                case 0:
                    one.peer.close()
                case 1:
                    one.socket.close()
                    one.fd = -1
                case 2:
                    one.socket.close()  # and the number stays: nobody has it again in this round

    def fail(self, one: Connection) -> None:
        one.fails = self.dice.random() < 0.3

    def break_(self, one: Connection) -> None:
        """Take away a field, for one call, or put something else there."""
        names = "fd", "_lock", "_unsent", "protocol", "_read_size", "ended", "traffic"
        name = self.dice.choice(names)
        place, name = self.dice.choice(((one, name), (one.protocol, "plain_below")))
        before = getattr(place, name)
        if self.dice.random() < 0.5:
            delattr(place, name)
        else:
            setattr(place, name, self.dice.choice((None, "x", -1, 1 << 70, [1], object())))
        calls: list[Callable[[], object]] = [
            lambda: fast_io.send_to_idle(b"", 1 << 40, 1, [one]),
            lambda: fast_io.send(one, object()),
        ]
        if name in ("_lock", "_unsent", "protocol", "fd", "traffic"):
            calls.append(lambda: fast_io.send(one, "") if name != "fd" else None)
        for call in calls:
            with suppress(TypeError, AttributeError, OverflowError, OSError):
                call()
        setattr(place, name, before)

    def hold(self, one: Connection) -> None:
        """Send while another thread has the lock, and waits for it."""
        held, over = threading.Event(), threading.Event()

        def hold() -> None:
            with one._lock:
                held.set()
                over.wait(10)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(10)
        assert fast_io.send(one, "text") is False
        assert fast_io.send_to_idle(b"frame", 1, 1, [one]) == [one]
        threading.Timer(0.0005, over.set).start()
        with one._lock:
            assert one._lock.acquire(False)
            one._lock.release()
        thread.join(10)

    def interrupt(self, one: Connection) -> None:
        """Have a signal's handler end the wait for something to read."""
        self._wait(one, 0.001)

    def wait(self, one: Connection) -> None:
        sent: list[int] = []
        timer = threading.Timer(0.0005, lambda: sent.append(suppressed(one.peer.send, b"x")))
        timer.start()
        read = self._wait(one, 0.05)  # the peer may have no room for it
        timer.join()
        deadline = time.monotonic() + 10
        while read < sent[0]:
            assert time.monotonic() < deadline, "something is lost"
            read += self._empty(one)

    def _wait(self, one: Connection, seconds: float) -> int:
        """Wait for something to read; tell how many octets were, or 1 where it is broken."""
        before = signal.signal(signal.SIGALRM, _raise)
        try:
            read = self._empty(one)
            one.socket.setblocking(True)
            signal.setitimer(signal.ITIMER_REAL, seconds)
            got = fast_io.wait_and_receive(one)
            read += len(got[0]) if isinstance(got, tuple) else 0
        except OSError:
            read = 1
        except Failed:  # which may have struck right after the read: what was read is unknown
            time.sleep(0.1)
            self._empty(one)
            read = 1
        finally:
            with suppress(Failed):
                signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        return read


def suppressed(call: Callable[[bytes], int], data: bytes) -> int:
    try:
        return call(data)
    except OSError:
        return 0


def _raise(number: int, stack: object) -> None:
    raise Failed


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz what reads and sends in C.")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=None, help="of the first round")
    arguments = parser.parse_args()
    first = random.randrange(1 << 32) if arguments.seed is None else arguments.seed
    seed, end = first, time.monotonic() + arguments.seconds
    report = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            Round(seed).run()
        except BaseException:
            print(f"again: --seed {seed}", flush=True)
            raise
        seed += 1
        if time.monotonic() > report:
            print(f"{seed - first} rounds from {first}", flush=True)
            report += 60
    print(f"{seed - first} rounds from {first}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
