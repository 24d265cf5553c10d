"""The load on rooms, a process of its own: Python makes the connections, C does the rest.

It takes tasks and gives figures as ``benchmarks.client`` does. Every message says who said it and
which of theirs it is, so that what is lost, comes twice or out of order is counted.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

from benchmarks.client import AT_ONCE, PATIENCE, WARM_UP, Failed
from benchmarks.processes import cpu_seconds, machine_cpu_seconds

SOURCE = Path(__file__).with_name("load.c")

#: Members of a room that speak, in turn: two in each worker.
PUBLISHERS = 8

#: A measurement is prolonged, up to so many seconds, until so many messages have reached all.
PROLONGED = 6.0
FEWEST_MESSAGES = 50

#: Seconds without a delivery after which what is missing at the end is lost.
QUIET = 3.0

#: The figures that tell of what ought not to be.
WRONG = ("lost", "twice", "disordered")

PING, PONG = 0x89, b"\x8a\x80" + bytes(4)
#: With the code 1000, and a key of zeros.
CLOSE = b"\x88\x82" + bytes(4) + (1000).to_bytes(2, "big")


@dataclass
class RoomTask:
    """What to do.

    :param ports: one for each worker.
    :param pids: the server's first processes; their CPU time and that of what they start counts.
    :param broker: the pid of the Redis between them, if there is one.
    :param size: octets in a message.
    :param depth: messages under way in each room.
    :param burst: so many at a time instead.
    """

    ports: list[int]
    pids: list[int]
    broker: int | None
    seconds: float
    dialect: str = "websocket"
    connections: int = 1000
    rooms: int = 1
    size: int = 200
    depth: int = 1
    burst: int = 0


def compiled() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "load.so")
        subprocess.run(
            ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE)], check=True
        )
        load = ctypes.CDLL(str(library))
    load.load_run.argtypes = [ctypes.c_double]
    load.load_time.restype = ctypes.POINTER(ctypes.c_double)
    load.load_failure.restype = ctypes.c_char_p
    for name in ("expected", "delivered", "completed", "twice", "late", "given_up", "heard"):
        getattr(load, f"load_{name}").restype = ctypes.c_uint64
    return load


class Handshake:
    """A connection until C takes it over, step by step: others do theirs meanwhile."""

    def __init__(self, port: int, room: str) -> None:
        self.room = room
        self.data = b""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(
            f"GET {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )

    @property
    def path(self) -> str:
        return f"/rooms/{self.room}"

    def _read(self) -> None:
        data = self.socket.recv(4096)
        if not data:
            raise Failed(f"closed in the handshake, after {self.data[:200]!r}")
        self.data += data

    def finish(self) -> None:
        while b"\r\n\r\n" not in self.data:
            self._read()
        head, _, self.data = self.data.partition(b"\r\n\r\n")
        if b" 101 " not in head.partition(b"\r\n")[0]:
            raise Failed(f"no handshake: {head[:200]!r}")

    #: What is around a text where it is sent, and where it arrives.
    def around(self) -> tuple[bytes, bytes]:
        return b"", b""

    ARRIVES = (b"", b"")


class SocketIO(Handshake):
    """Engine.IO 4 and Socket.IO 5: open, connect, and an event that joins the room."""

    ARRIVES = (b'42["said","', b'"]')
    path = "/socket.io/?EIO=4&transport=websocket"

    def finish(self) -> None:
        super().finish()
        self._expect(b"0{")
        self._send(b"40")
        self._expect(b"40")
        self._send(b'42["join","%s"]' % self.room.encode())

    def _expect(self, start: bytes) -> None:
        text = self._frame()
        if not text.startswith(start):
            raise Failed(f"{start!r} was to come, but {text[:200]!r}")

    def _frame(self) -> bytes:
        """The next text; uWSGI pings at once, and wants its answer."""
        while True:
            self._read_until(2)
            first, size, header = self.data[0], self.data[1], 2
            if size == 126:
                self._read_until(4)
                size, header = int.from_bytes(self.data[2:4], "big"), 4
            self._read_until(header + size)
            data, self.data = self.data[header : header + size], self.data[header + size :]
            if first != PING:
                return data
            self.socket.sendall(PONG)

    def _read_until(self, size: int) -> None:
        while len(self.data) < size:
            self._read()

    def _send(self, text: bytes) -> None:
        self.socket.sendall(bytes([0x81, 0x80 | len(text)]) + bytes(4) + text)

    def around(self) -> tuple[bytes, bytes]:
        return b'42["say","%s","' % self.room.encode(), b'"]'


DIALECTS = {"websocket": Handshake, "socket.io": SocketIO}


class Members:
    """All connections of a task, in C's hands."""

    def __init__(self, load: ctypes.CDLL, task: RoomTask) -> None:
        self.load = load
        self.task = task
        self.sockets: list[socket.socket] = []
        self._kind = DIALECTS[task.dialect]
        before, behind = map(len, self._kind.ARRIVES)
        assert load.load_new(task.connections, task.rooms, task.size, before, behind)

    def connect(self) -> None:
        number = self.task.connections
        for start in range(0, number, AT_ONCE):
            batch = range(start, min(start + AT_ONCE, number))
            try:
                opening = [self._open(index) for index in batch]
                for index, handshake in zip(batch, opening, strict=True):
                    handshake.finish()
                    self._hand_over(index, handshake)
            except OSError as error:
                raise Failed(f"no connection: {type(error).__name__} {error}") from error
            self.run(0)

    def _open(self, index: int) -> Handshake:
        place, room = divmod(index, self.task.rooms)
        # Rooms begin in different workers, so that also small ones load all alike.
        port = self.task.ports[(place + room) % len(self.task.ports)]
        handshake = self._kind(port, f"room-{room}")
        self.sockets.append(handshake.socket)
        return handshake

    def _hand_over(self, index: int, handshake: Handshake) -> None:
        place, room = divmod(index, self.task.rooms)
        if place == 0:
            before, behind = handshake.around()
            self.load.load_room(room, before, len(before), behind, len(behind))
        data = handshake.data
        self.load.load_add(handshake.socket.fileno(), room, place < PUBLISHERS, data, len(data))

    def run(self, seconds: float) -> None:
        self.load.load_run(seconds)
        self.check()

    def check(self) -> None:
        failure = self.load.load_failure()
        if failure:
            raise Failed(failure.decode())

    def hear(self) -> None:
        """Wait until each member hears all who speak in its room, and nothing is under way."""
        end, patience = time.monotonic() + PATIENCE, WARM_UP
        while self.load.load_deaf():
            if time.monotonic() > end:
                deaf = self.load.load_deaf()
                raise Failed(f"{deaf} of {self.task.connections} do not hear what is said")
            self.load.load_probe()
            heard_until = time.monotonic() + patience
            while self.load.load_deaf() and time.monotonic() < heard_until:
                self.run(0.02)
            patience *= 2  # for those that are slow, and would only get more to do
        heard = -1
        while heard != self.load.load_heard():
            heard = self.load.load_heard()
            self.run(WARM_UP)

    def close(self) -> None:
        for each in self.sockets:
            each.setblocking(False)
            with suppress(OSError):
                each.send(CLOSE)
        time.sleep(0.2)
        for each in self.sockets:
            each.close()


@contextmanager
def cpu_of(task: RoomTask) -> Iterator[dict[str, float]]:
    """The CPU time that each side takes, and how long it all was, when it is over."""

    def taken() -> dict[str, float]:
        return {
            "seconds": time.perf_counter(),
            "servers": sum(map(cpu_seconds, task.pids)),
            "broker": cpu_seconds(task.broker) if task.broker else 0.0,
            "client": time.process_time(),
            "machine": machine_cpu_seconds(),
        }

    before = taken()
    result: dict[str, float] = {}
    yield result
    result.update({name: value - before[name] for name, value in taken().items()})


def measure(members: Members) -> dict[str, float]:
    """The figures of messages that go to all members, the next ones as all have them."""
    load, task = members.load, members.task
    load.load_start(task.depth, task.burst)
    members.run(min(WARM_UP, task.seconds))
    load.load_forget_times()
    delivered, completed = load.load_delivered(), load.load_completed()
    with cpu_of(task) as cpu:
        members.run(task.seconds)
        end = time.monotonic() + PROLONGED
        while load.load_completed() - completed < FEWEST_MESSAGES and time.monotonic() < end:
            members.run(0.05)
    delivered = load.load_delivered() - delivered
    if not delivered:
        raise Failed(f"nothing delivered within {cpu['seconds']:.1f} s")
    seconds = cpu["seconds"]
    cpu_all = cpu["servers"] + cpu["broker"]
    return {
        "rate": delivered / seconds,
        "messages": (load.load_completed() - completed) / seconds,
        **percentiles(load),
        "cpu_us": cpu_all / delivered * 1e6,
        "broker_us": cpu["broker"] / delivered * 1e6,
        "server_cpu": cpu_all / seconds,
        "client_cpu": cpu["client"] / seconds,
        "client_us": cpu["client"] / delivered * 1e6,
        "other_cpu": max(cpu["machine"] - cpu_all - cpu["client"], 0) / seconds,
    }


def percentiles(load: ctypes.CDLL) -> dict[str, float]:
    """Within how many ms a message has reached all members."""
    times = load.load_time()[: load.load_times()]
    if len(times) < 2:
        return {}
    cuts = quantiles(times, n=100)
    return {"p50_ms": cuts[49] * 1e3, "p99_ms": cuts[98] * 1e3}


def settle(members: Members) -> dict[str, float]:
    """Wait for what is under way, and count what never came, came twice or too late."""
    load = members.load
    load.load_stop()
    expected = load.load_expected()
    delivered, since = load.load_delivered(), time.monotonic()
    while delivered < expected and time.monotonic() - since < QUIET:
        members.run(0.02)
        if load.load_delivered() != delivered:
            delivered, since = load.load_delivered(), time.monotonic()
    members.run(0.1)  # what comes twice
    return {
        "expected": expected,
        "lost": expected - load.load_delivered(),
        "twice": load.load_twice(),
        "disordered": load.load_late(),
        "given_up": load.load_given_up(),
    }


def perform(load: ctypes.CDLL, task: RoomTask) -> dict[str, Any]:
    members = Members(load, task)
    try:
        members.connect()
        members.hear()
        return {**measure(members), **settle(members)}
    except Failed as error:
        return {"error": str(error)}
    finally:
        members.close()
        os.close(ctypes.c_int.in_dll(load, "load_poller").value)


def main() -> None:
    load = compiled()
    for line in sys.stdin:
        print(json.dumps(perform(load, RoomTask(**json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
