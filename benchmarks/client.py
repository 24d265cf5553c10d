"""The load: a client in C (picows on uvloop), a process of its own.

Reads one task for each line of its standard input, as JSON, and answers each with a line: the
figures, or ``{"error": ...}``. Replies are checked: the first of each connection octet by octet,
then type and size of all; with compression each is compared after decompression.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

import picows
import uvloop

from benchmarks.processes import cpu_seconds, machine_cpu_seconds, resident_bytes

TEXT = picows.WSMsgType.TEXT
CONTINUATION = picows.WSMsgType.CONTINUATION
CLOSE = picows.WSMsgType.CLOSE

#: Connections that are opened at the same time: the backlog of uWSGI and others is 100.
AT_ONCE = 50

#: Seconds for a handshake, or for what has been sent to come back.
PATIENCE = 20.0

#: Seconds for a task beyond those of its measurement.
LIMIT = 40.0

#: Seconds of load before the measurement.
WARM_UP = 0.3

#: A measurement is prolonged, up to so many seconds, until it has seen so many messages in all and
#: for each connection: some servers read from all connections before they answer one.
PROLONGED = 6.0
FEWEST_MESSAGES = 50
FEWEST_OF_EACH = 4

#: Ticks come so many seconds after each other, and are watched for so many at least: they cost
#: little CPU time.
TICK, TICKS_SECONDS = 0.5, 4.0

#: Messages to all that are under way at a time: the server has always the next one to send.
FAN_OUT_DEPTH = 2

#: Connections that are open before the memory for more of them is measured.
WARM_CONNECTIONS = 100

OFFER = "permessage-deflate; client_max_window_bits"
DEFLATE_TAIL = b"\x00\x00\xff\xff"


class Failed(Exception):
    """The server did not do what it ought to."""


@dataclass
class Task:
    """What to do.

    :param action: a key of `ACTIONS`.
    :param pid: the server's first process.
    :param size: octets in a message.
    :param depth: messages that a connection has under way.
    """

    action: str
    port: int
    path: str
    pid: int
    seconds: float
    dialect: str = "websocket"
    connections: int = 1
    size: int = 32
    depth: int = 1
    compression: bool = False

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}{self.path}"


def text_of(size: int, varied: bool = False) -> bytes:
    """ASCII text; varied text compresses to about a fifth, like much JSON."""
    if not varied:
        return (b"Hello, world! " * (size // 14 + 1))[:size]
    words = bytearray()
    number = 1
    while len(words) < size:
        number = number * 48271 % 2147483647  # as std::minstd_rand does
        words += b'{"id": %d, "name": "user %d", "online": true}, ' % (number, number % 97)
    return bytes(words[:size])


class Load:
    """What all connections of a task share."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.text = text_of(task.size, varied=task.compression)
        self.payload = self.reply = self.text
        if task.dialect == "socket.io":
            self.payload = self.reply = b'42["echo","%s"]' % self.text
        self.count = 0
        self.outstanding = 0
        self.running = False
        self.failure: str | None = None
        self.replied: asyncio.Future[None] | None = None
        self.connections: list[Connection] = []

    def fail(self, why: str) -> None:
        self.failure = self.failure or why
        self.running = False
        self.wake()

    def wake(self) -> None:
        """For those who wait for a single reply."""
        if self.replied and not self.replied.done():
            self.replied.set_result(None)

    def check(self) -> None:
        if self.failure:
            raise Failed(self.failure)


class Connection(picows.WSListener):
    """One connection, with the handshake of its dialect."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.size = len(load.reply)
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closing = False
        self.parts = bytearray()
        self.transport: Any = None

    def on_ws_connected(self, transport: Any) -> None:
        self.transport = transport
        if self.load.task.dialect == "websocket":
            self.ready.set_result(None)

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        self.on_other_frame(frame)

    def on_other_frame(self, frame: Any) -> None:
        """A frame that is not simply the expected message."""
        if frame.msg_type is TEXT or frame.msg_type is CONTINUATION:
            self.parts += frame.get_payload_as_bytes()
            if frame.fin:
                text = bytes(self.parts)
                self.parts.clear()
                if self.load.task.dialect == "websocket" or not self.on_engine_io(text):
                    self.on_text(text)
        elif frame.msg_type is CLOSE:
            if not self.closing:
                self.load.fail(f"the server closed: {frame.get_close_message()!r}")
            self.transport.disconnect()

    def on_engine_io(self, text: bytes) -> bool:
        """Engine.IO 4 and Socket.IO 5: open, connect, pings. Whether it was one of these."""
        if text.startswith(b"0{"):
            self.transport.send(TEXT, b"40")
        elif text.startswith(b"40"):
            self.ready.set_result(None)
        elif text == b"2":
            self.transport.send(TEXT, b"3")
        else:
            return False
        return True

    def on_text(self, text: bytes) -> None:
        self.load.fail(f"an unexpected message of {len(text)} octets: {text[:40]!r}")

    def on_ws_disconnected(self, transport: Any) -> None:
        if not self.closing:
            self.load.fail("the server closed a connection")
        if not self.ready.done():
            self.ready.set_exception(Failed("closed in the handshake"))

    def close(self) -> None:
        self.closing = True
        if not self.transport.is_close_frame_sent:
            self.transport.send_close(picows.WSCloseCode.OK)


class Echoing(Connection):
    """Sends as long as the load runs, as many messages at a time as its depth."""

    def __init__(self, load: Load) -> None:
        super().__init__(load)
        self.seen = 0

    def start(self) -> None:
        self.load.outstanding += self.load.task.depth
        for _ in range(self.load.task.depth):
            self.transport.send(TEXT, self.load.payload)

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        load = self.load
        if frame.payload_size == self.size and frame.msg_type is TEXT and frame.fin and self.seen:
            load.count += 1
            if load.running:
                transport.send(TEXT, load.payload)
            else:
                load.outstanding -= 1
        else:
            self.on_other_frame(frame)

    def on_text(self, text: bytes) -> None:
        load = self.load
        if text != load.reply:
            super().on_text(text)
            return
        self.seen += 1
        load.count += 1
        load.wake()
        if load.running:
            self.transport.send(TEXT, load.payload)
        else:
            load.outstanding -= 1


class Timed(Echoing):
    """Also notes how long each message takes there and back."""

    def __init__(self, load: Load) -> None:
        super().__init__(load)
        self.times: list[float] = []
        self.sent = 0.0

    def start(self) -> None:
        super().start()
        self.sent = time.perf_counter()

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        now = time.perf_counter()
        self.times.append(now - self.sent)
        self.sent = now
        super().on_ws_frame(transport, frame)


class Compressing(Echoing):
    """Echo with permessage-deflate (RFC 7692)."""

    def __init__(self, load: Load) -> None:
        super().__init__(load)
        self._inflate = zlib.decompressobj(-15)

    def on_ws_connected(self, transport: Any) -> None:
        super().on_ws_connected(transport)
        agreed = transport.response.headers.get("Sec-WebSocket-Extensions") or ""
        if "permessage-deflate" not in agreed:
            self.load.fail(f"no compression agreed on: {agreed!r}")
            return
        # All messages are the same octets, compressed once and without reference to earlier ones.
        bits = re.search(r"client_max_window_bits=(\d+)", agreed)
        deflate = zlib.compressobj(wbits=-max(9, int(bits[1]) if bits else 15))
        data = deflate.compress(self.load.text) + deflate.flush(zlib.Z_SYNC_FLUSH)
        self.load.payload = data.removesuffix(DEFLATE_TAIL)

    def start(self) -> None:
        self.load.outstanding += self.load.task.depth
        for _ in range(self.load.task.depth):
            self.transport.send(TEXT, self.load.payload, rsv1=True)

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        if frame.msg_type is not TEXT:
            self.on_other_frame(frame)
            return
        load = self.load
        data = frame.get_payload_as_bytes()
        text = self._inflate.decompress(data + DEFLATE_TAIL) if frame.rsv1 else data
        if self._inflate.eof:
            self._inflate = zlib.decompressobj(-15)
        if text != load.reply or not frame.fin:
            load.fail(f"a wrong message of {len(text)} octets, compressed {frame.rsv1}")
            return
        load.count += 1
        if load.running:
            transport.send(TEXT, load.payload, rsv1=True)
        else:
            load.outstanding -= 1


class Listening(Connection):
    """Hears what one of them has the server say to all, and notes how long it took."""

    def __init__(self, load: Load) -> None:
        super().__init__(load)
        self.heard = False
        self.ticks: list[tuple[int, float]] = []

    def start(self) -> None:
        if self.load.task.dialect == "socket.io":
            self.transport.send(TEXT, b'42["listen",""]')

    def say(self, text: bytes) -> None:
        is_event = self.load.task.dialect == "socket.io"
        self.transport.send(TEXT, b'42["all","%s"]' % text if is_event else text)

    def say_now(self) -> None:
        self.say(b"%d" % time.monotonic_ns())

    def on_text(self, text: bytes) -> None:
        tick = re.search(rb"\d{6,}", text)
        if tick:
            self.heard = True
            self.load.count += 1
            sent = int(tick[0])
            self.ticks.append((sent, (time.monotonic_ns() - sent) / 1e9))


class Gathering(Listening):
    """Has the next message said when all have one."""

    def start(self) -> None:
        super().start()
        event = b'42["all","%s"]' if self.load.task.dialect == "socket.io" else b"%s"
        self.size = len(event % self.load.text)

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        if frame.payload_size != self.size or frame.msg_type is not TEXT or not frame.fin:
            self.on_other_frame(frame)
            return
        load = self.load
        load.count += 1
        if load.count % len(load.connections) == 0:
            if load.running:
                load.connections[0].say(load.text)
            else:
                load.outstanding -= 1


async def connect(load: Load, kind: Callable[[Load], Connection], number: int = 1) -> None:
    """Open more connections."""
    headers = [("Sec-WebSocket-Extensions", OFFER)] if load.task.compression else None

    async def one() -> None:
        try:
            connection = kind(load)
            await picows.ws_connect(
                lambda: connection,
                load.task.url,
                websocket_handshake_timeout=PATIENCE,
                extra_headers=headers,
            )
            await asyncio.wait_for(connection.ready, PATIENCE)
        except (OSError, picows.WSError, asyncio.TimeoutError) as error:
            raise Failed(f"no connection: {type(error).__name__} {error}"[:300]) from error
        load.connections.append(connection)

    for start in range(0, number, AT_ONCE):
        await asyncio.gather(*(one() for _ in range(min(AT_ONCE, number - start))))
    load.check()


async def close(load: Load) -> None:
    """End all connections, the rude way where the server does not answer."""
    for connection in load.connections:
        connection.close()
    leaving = [c.transport.wait_disconnected() for c in load.connections]
    with_limit = asyncio.gather(*leaving)
    try:
        await asyncio.wait_for(with_limit, 2)
    except asyncio.TimeoutError:
        for connection in load.connections:
            connection.transport.disconnect(graceful=False)
    load.connections.clear()


async def until(condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"not within {patience:.0f} s: {what}")
        await asyncio.sleep(0.01)


class Window:
    """The time in which figures are taken."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self._before = load.count
        self._server = cpu_seconds(load.task.pid)
        self._client = time.process_time()
        self._machine = machine_cpu_seconds()
        self._started = time.perf_counter()

    def age(self) -> float:
        return time.perf_counter() - self._started

    @property
    def count(self) -> int:
        return self.load.count - self._before

    def figures(self) -> dict[str, float]:
        """Messages for each second and the CPU time of both sides."""
        seconds, count = self.age(), self.count
        client = time.process_time() - self._client
        server = cpu_seconds(self.load.task.pid) - self._server
        machine = machine_cpu_seconds() - self._machine
        self.load.check()
        if not count:
            raise Failed(f"no reply within {seconds:.1f} s")
        return {
            "rate": count / seconds,
            "cpu_us": server / count * 1e6,
            "server_cpu": server / seconds,
            "client_cpu": client / seconds,
            "other_cpu": max(machine - server - client, 0) / seconds,
        }


async def echo_for_a_while(load: Load) -> dict[str, float]:
    seconds = load.task.seconds
    load.running = True
    for connection in load.connections:
        assert isinstance(connection, Echoing)
        connection.start()
    # Each connection has had a message through before anything is measured.
    await asyncio.sleep(min(WARM_UP, seconds))
    await until(lambda: load.count >= len(load.connections) or not load.running, "first replies")
    window = Window(load)
    for connection in load.connections:
        if isinstance(connection, Timed):
            connection.times.clear()
    await asyncio.sleep(seconds)
    enough = max(FEWEST_MESSAGES, FEWEST_OF_EACH * len(load.connections))
    while load.running and window.count < enough and window.age() < seconds + PROLONGED:
        await asyncio.sleep(0.05)
    figures = window.figures()
    load.running = False
    await until(lambda: load.outstanding <= 0 or bool(load.failure), "the last replies")
    load.check()
    return figures


async def echo(load: Load) -> dict[str, float]:
    await connect(load, Compressing if load.task.compression else Echoing, load.task.connections)
    return await echo_for_a_while(load)


async def latency(load: Load) -> dict[str, float]:
    await connect(load, Timed)
    figures = await echo_for_a_while(load)
    connection = load.connections[0]
    assert isinstance(connection, Timed)
    cuts = quantiles(connection.times, n=100)
    return figures | {"p50_us": cuts[49] * 1e6, "p99_us": cuts[98] * 1e6}


async def listen(load: Load, kind: type[Listening]) -> list[Listening]:
    """Connect, and wait until each hears what is said to all."""
    await connect(load, kind, load.task.connections)
    listeners = [c for c in load.connections if isinstance(c, Listening)]
    for listener in listeners:
        listener.start()
    deadline = time.monotonic() + PATIENCE
    while not all(listener.heard for listener in listeners):
        load.check()
        if time.monotonic() > deadline:
            raise Failed("not all of them hear what is said to all")
        listeners[0].say_now()
        await asyncio.sleep(WARM_UP)
    for listener in listeners:
        listener.ticks.clear()
    return listeners


async def ticks(load: Load) -> dict[str, float]:
    """How long after a tick's time the connections have it."""
    listeners = await listen(load, Listening)
    window = Window(load)
    while window.age() < max(load.task.seconds, TICKS_SECONDS):
        listeners[0].say_now()
        await asyncio.sleep(TICK)
    figures = window.figures()
    delays: dict[int, list[float]] = {}
    for listener in listeners:
        for sent, delay in listener.ticks:
            delays.setdefault(sent, []).append(delay)
    whole = [each for each in delays.values() if len(each) == len(listeners)]
    if not whole or len(delays) - len(whole) > 2:
        raise Failed(f"of {len(delays)} ticks {len(whole)} reached all {len(listeners)}")
    return figures | {
        "half_ms": median(median(each) for each in whole) * 1e3,
        "last_ms": median(max(each) for each in whole) * 1e3,
    }


async def fan_out(load: Load) -> dict[str, float]:
    """Messages to all, the next one when all have one; the figures are of their deliveries."""
    listeners = await listen(load, Gathering)
    load.running = True
    load.count = 0
    load.outstanding = FAN_OUT_DEPTH
    for _ in range(FAN_OUT_DEPTH):
        listeners[0].say(load.text)
    await asyncio.sleep(WARM_UP)
    window = Window(load)
    await asyncio.sleep(load.task.seconds)
    figures = window.figures()
    load.running = False
    await until(lambda: load.outstanding <= 0 or bool(load.failure), "the last of the messages")
    load.check()
    return figures


async def connect_and_close(load: Load) -> dict[str, float]:
    """Connections that come, send one message, and go; so many at a time."""
    load.running = True
    window = Window(load)
    done = 0

    async def one_after_another() -> None:
        nonlocal done
        while load.running:
            single = Load(load.task)
            await connect(single, Echoing)
            [connection] = single.connections
            assert isinstance(connection, Echoing)
            replied: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            single.replied = replied
            connection.start()
            await asyncio.wait_for(replied, PATIENCE)
            single.check()
            connection.close()
            await asyncio.wait_for(connection.transport.wait_disconnected(), PATIENCE)
            done += 1

    workers = [asyncio.create_task(one_after_another()) for _ in range(load.task.connections)]
    try:
        await asyncio.wait(workers, timeout=load.task.seconds, return_when="FIRST_EXCEPTION")
        load.count = done
        load.running = False
        figures = window.figures()
        await asyncio.gather(*workers)
    except asyncio.TimeoutError as error:
        raise Failed(f"a connection took more than {PATIENCE:.0f} s") from error
    finally:
        for worker in workers:
            worker.cancel()
    return figures


async def memory(load: Load) -> dict[str, float]:
    """What the server's processes grow by for each connection that has echoed one message."""

    async def grow(number: int) -> int:
        before = len(load.connections)
        await connect(load, Echoing, number - before)
        load.count = 0
        for connection in load.connections[before:]:
            assert isinstance(connection, Echoing)
            connection.start()
        await until(lambda: load.count >= number - before or bool(load.failure), "the echoes")
        await asyncio.sleep(0.3)
        load.check()
        return resident_bytes(load.task.pid)

    number = load.task.connections
    first = await grow(WARM_CONNECTIONS)
    return {"bytes": (await grow(number) - first) / (number - WARM_CONNECTIONS)}


ACTIONS = {
    "echo": echo,
    "latency": latency,
    "ticks": ticks,
    "fan-out": fan_out,
    "connect": connect_and_close,
    "memory": memory,
}


async def perform(task: Task) -> dict[str, Any]:
    load = Load(task)
    try:
        limit = LIMIT + task.seconds
        return await asyncio.wait_for(ACTIONS[task.action](load), limit)
    except asyncio.TimeoutError:
        return {"error": f"it took more than {limit:.0f} s"}
    except Failed as error:
        return {"error": load.failure or str(error)}
    finally:
        await close(load)


def main() -> None:
    gc.disable()
    for line in sys.stdin:
        print(json.dumps(uvloop.run(perform(Task(**json.loads(line))))), flush=True)
        gc.collect()


if __name__ == "__main__":
    main()
