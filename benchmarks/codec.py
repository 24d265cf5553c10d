"""What a message costs the codec, beside the codecs of other libraries.

::

    pip install -e .[bench]
    python -m benchmarks.codec                       # the tables
    python -m benchmarks.codec --chart codec.svg     # and a chart (.svg or .png)
    python -m benchmarks.codec --check               # exit status 1 when a bar is missed

Measured is CPU time: to parse a chunk of masked text frames into messages, and to encode a text
reply. No sockets. All contenders take turns in each round and the tables show medians over the
rounds, so that a busy machine slows them alike; ratios are medians of the rounds' ratios.

What is alike and what is not:

- Each contender checks and decodes UTF-8 and gives ``str``. The text is ASCII; with ``--text`` of
  other characters Python's decoder, which all of them share, takes several times as long.
- ``websockets`` and ``wsproto`` are protocols without I/O as ours is. ``aiohttp`` is its reader (C,
  by Cython) with the queue that its users read from, and its writer. ``picows`` (Cython) is fed
  through the buffer that asyncio would read into, gives frames, not messages, and hands what it
  writes to a transport that drops it.
- What is encoded is one ``bytes``, header and payload, with ours and ``websockets``: for a large
  message a copy more than the others make.
- ``ours, Python`` is ours as it is where no C could be compiled.

Large messages measure the allocator more than the codec unless it keeps the memory: the benchmark
sets ``MALLOC_TRIM_THRESHOLD_`` and ``MALLOC_MMAP_THRESHOLD_`` and starts itself again with them.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from flask_uwsgi_websocket.codec import SERVER, Protocol, fast_path, protocol
from flask_uwsgi_websocket.codec.frames import FIN, TEXT, frame

#: (octets in a message, messages in a chunk)
LOADS = (
    *((16, 1), (16, 64), (128, 1), (128, 64), (4096, 1), (4096, 64)),
    *((1 << 16, 1), (1 << 16, 64), (1 << 20, 1)),
)

LIMIT = 1 << 23
MASK = b"\x37\xfa\x21\x3d"
KEEP_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": str(1 << 28),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 26),
}


@dataclass(frozen=True)
class Bar:
    """A ratio of times that must not be exceeded."""

    task: str
    size: int
    contender: str
    ratio: float


BARS = (
    Bar("parse", 16, "websockets", 0.16),
    Bar("parse", 128, "websockets", 0.16),
    Bar("parse", 4096, "websockets", 0.28),
    Bar("parse", 1 << 16, "websockets", 0.70),
    Bar("parse", 1 << 20, "websockets", 0.75),
    Bar("encode", 16, "websockets", 0.16),
    Bar("encode", 4096, "websockets", 0.35),
    Bar("parse", 16, "picows", 0.70),
)


class Contender:
    """A library: how it parses a chunk into a list of ``str``, how it encodes a ``str``."""

    name: str
    parse: Callable[[bytes], list[Any]]
    encode: Callable[[str], object]


class Ours(Contender):
    name = "ours"

    def __init__(self) -> None:
        codec = Protocol(SERVER, max_message_size=LIMIT)
        self.parse, self.encode = codec.receive_data, codec.text


class OursInPython(Contender):
    name = "ours, Python"

    def __init__(self) -> None:
        # A second copy of the package, which does not find the C.
        package = protocol.__name__.rpartition(".")[0]
        ours = {name: sys.modules.pop(name) for name in list(sys.modules) if package in name}
        sys.modules[f"{package}._speedups"] = None  # type: ignore[assignment]
        module = importlib.import_module(package)
        for name in [name for name in sys.modules if package in name]:
            del sys.modules[name]
        sys.modules.update(ours)
        codec = module.Protocol(module.SERVER, max_message_size=LIMIT)
        self.parse, self.encode = codec.receive_data, codec.text


class Websockets(Contender):
    name = "websockets"

    def __init__(self) -> None:
        from websockets.protocol import Protocol, Side, State

        self._codec = Protocol(Side.SERVER, state=State.OPEN, max_size=LIMIT)

    def parse(self, chunk: bytes) -> list[Any]:
        self._codec.receive_data(chunk)
        return [event.data.decode() for event in self._codec.events_received()]  # type: ignore[union-attr]

    def encode(self, message: str) -> object:
        self._codec.send_text(message.encode())
        return b"".join(self._codec.data_to_send())


class Wsproto(Contender):
    name = "wsproto"

    def __init__(self) -> None:
        from wsproto.connection import Connection, ConnectionType
        from wsproto.events import TextMessage

        self._codec: Any = Connection(ConnectionType.SERVER)
        self._message = TextMessage

    def parse(self, chunk: bytes) -> list[Any]:
        # One message may be several events.
        self._codec.receive_data(chunk)
        messages, parts = [], []
        for event in self._codec.events():
            parts.append(event.data)
            if event.message_finished:
                messages.append("".join(parts) if len(parts) > 1 else parts[0])
                parts = []
        return messages

    def encode(self, message: str) -> object:
        return self._codec.send(self._message(data=message))


class _Dropped:
    """A transport and a protocol of asyncio that nothing goes through."""

    _reading_paused = False
    _paused = False

    def is_closing(self) -> bool:
        return False

    def write(self, data: object) -> None: ...
    def writelines(self, buffers: object) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 1  # so that picows hands over what it writes and does not write it itself

    def get_extra_info(self, name: str) -> Any:
        return self if name == "socket" else None

    def fileno(self) -> int:
        return -1

    def setsockopt(self, *options: object) -> None: ...

    def getsockopt(self, *options: object) -> int:
        return 0


class Aiohttp(Contender):
    name = "aiohttp"

    def __init__(self) -> None:
        from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
        from aiohttp._websocket.writer import WebSocketWriter

        dropped: Any = _Dropped()
        self._queue = WebSocketDataQueue(dropped, LIMIT, loop=asyncio.get_running_loop())
        self._reader = WebSocketReader(self._queue, LIMIT, compress=False, decode_text=True)
        self._writer = WebSocketWriter(dropped, dropped)

    def parse(self, chunk: bytes) -> list[Any]:
        self._reader.feed_data(chunk)
        messages = []
        while self._queue._buffer:
            messages.append(_result(self._queue.read()).data)
        return messages

    def encode(self, message: str) -> object:
        return _result(self._writer.send_frame(message.encode(), TEXT))


def _result(coroutine: Any) -> Any:
    """What a coroutine returns that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise RuntimeError("it waits")


class Picows(Contender):
    name = "picows"

    def __init__(self) -> None:
        import picows

        core: Any = importlib.import_module("picows.picows")
        messages: list[str] = []

        class Listener(picows.WSListener):
            def on_ws_frame(self, transport: Any, frame: Any) -> None:
                messages.append(frame.get_payload_as_utf8_text())

        logger = logging.getLogger("benchmarks.picows")
        logger.setLevel(logging.CRITICAL)
        self._messages = messages
        self._text = picows.WSMsgType.TEXT
        self._codec = core.WSProtocol(
            *(None, None, False, lambda request: Listener(), logger, True, None),
            *(False, None, None, picows.WSAutoPingStrategy.PING_WHEN_IDLE, True),
            *(LIMIT, None, LIMIT),
        )
        self._codec.connection_made(_Dropped())
        self.parse(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )

    def parse(self, chunk: bytes) -> list[Any]:
        size = len(chunk)
        self._codec.get_buffer(-1)[:size] = chunk
        self._codec.buffer_updated(size)
        messages = self._messages[:]
        self._messages.clear()
        return messages

    def encode(self, message: str) -> object:
        return self._codec.transport.send(self._text, message)


CONTENDERS: tuple[type[Contender], ...] = (
    *(Ours, OursInPython, Websockets, Wsproto, Aiohttp, Picows),
)


def contenders() -> Iterator[Contender]:
    """Those that are installed."""
    for contender in CONTENDERS:
        try:
            yield contender()
        except ImportError as error:
            print(f"{contender.name} is left out: {error}", file=sys.stderr)


#: task -> load -> contender -> microseconds for each message, one of each round
Times = dict[str, dict[tuple[int, int], dict[str, list[float]]]]
Calls = dict[str, Callable[[Any], object]]


def cpu_time(function: Callable[[Any], object], argument: object, times: int) -> float:
    """CPU microseconds of one call."""
    started = time.process_time()
    for _ in range(times):
        function(argument)
    return (time.process_time() - started) / times * 1e6


def measure(rounds: int, seconds: float, text: str) -> Times:
    """Everything, in so many rounds of about so many seconds for each measurement.

    :param text: what messages repeat.
    """
    field = list(contenders())
    times: Times = {"parse": {}, "encode": {}}
    for size, count in LOADS:
        message = (text * (size // len(text) + 1)).encode()[:size].decode("utf-8", "ignore")
        message += "!" * (size - len(message.encode()))
        chunk = frame(FIN | TEXT, message.encode(), MASK) * count
        for contender in field:
            assert contender.parse(chunk) == [message] * count, contender.name
        calls: Calls = {contender.name: contender.parse for contender in field}
        times["parse"][size, count] = take_turns(calls, chunk, rounds, seconds)
        for measured in times["parse"][size, count].values():
            measured[:] = [each / count for each in measured]
        if count == 1:
            calls = {contender.name: contender.encode for contender in field}
            times["encode"][size, 1] = take_turns(calls, message, rounds, seconds)
        print(".", end="", flush=True, file=sys.stderr)
    print(file=sys.stderr)
    return times


def take_turns(
    calls: Calls, argument: object, rounds: int, seconds: float
) -> dict[str, list[float]]:
    """CPU microseconds of a call, for each contender in each round."""
    repeats = {}
    for name, call in calls.items():
        cpu_time(call, argument, 3)
        repeats[name] = max(3, int(seconds * 1e6 / max(cpu_time(call, argument, 5), 0.1)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(cpu_time(call, argument, repeats[name]))
    return times


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of the rounds' ratios."""
    return median(a / b for a, b in zip(ours, theirs, strict=True))


def label(load: tuple[int, int]) -> str:
    size, count = load
    text = f"{size} B" if size < 1024 else f"{size >> 10} KiB" if size < 1 << 20 else "1 MiB"
    return f"{text} x {count}" if count > 1 else text


def table(times: Times) -> Iterator[str]:
    """Lines of text: microseconds, then ratios."""
    for task, loads in times.items():
        names = list(next(iter(loads.values())))
        yield f"{task}: CPU microseconds for each text message"
        yield "".join([f"{'':14}", *(f"{label(load):>13}" for load in loads)])
        for name in names:
            yield "".join(
                [f"{name:14}", *(f"{median(load[name]):13.3f}" for load in loads.values())]
            )
        yield ""
        yield f"{task}: time of ours / theirs"
        for name in names:
            if name != Ours.name:
                cells = (f"{ratio(load[Ours.name], load[name]):13.2f}" for load in loads.values())
                yield "".join([f"{name:14}", *cells])
        yield ""


def check(times: Times) -> Iterator[tuple[Bar, float]]:
    """The bars that can be judged, with what was measured."""
    for bar in BARS:
        measured = times[bar.task][bar.size, 1]
        if bar.contender in measured:
            yield bar, ratio(measured[Ours.name], measured[bar.contender])


def chart(times: Times, path: Path) -> None:
    """Draw the medians."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 1, figsize=(11, 8.5), constrained_layout=True)
    for axis, (task, loads) in zip(axes, times.items(), strict=True):
        names = list(next(iter(loads.values())))
        width = 0.8 / len(names)
        for i, name in enumerate(names):
            places = [at + (i - (len(names) - 1) / 2) * width for at in range(len(loads))]
            axis.bar(places, [median(load[name]) for load in loads.values()], width, label=name)
        axis.set_xticks(range(len(loads)), [label(load) for load in loads])
        axis.set_yscale("log")
        axis.set_ylabel("CPU microseconds for each message")
        axis.set_title(f"{task} a text message (less is better)")
        axis.grid(axis="y", alpha=0.3)
        axis.set_axisbelow(True)
    axes[0].legend(ncols=len(names))
    figure.savefig(path)


async def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.01, help="of each measurement")
    parser.add_argument("--text", default="Hello, world! ", help="what messages repeat")
    parser.add_argument("--chart", type=Path, help="write a chart to this file")
    parser.add_argument("--check", action="store_true", help="fail when a bar is missed")
    arguments = parser.parse_args()

    speedups = "on" if fast_path.COMPILED else "off"
    print(f"Python {platform.python_version()}, speedups {speedups}\n")
    times = measure(arguments.rounds, arguments.seconds, arguments.text)
    print("\n".join(table(times)))
    missed = 0
    print("bars: time of ours / theirs at most")
    for bar, measured in check(times):
        missed += measured > bar.ratio
        verdict = "met" if measured <= bar.ratio else "MISSED"
        print(
            f"{bar.task:7} {label((bar.size, 1)):>7} against {bar.contender:10} "
            f"{measured:5.2f} of {bar.ratio:.2f} {verdict}"
        )
    if arguments.chart:
        chart(times, arguments.chart)
    return 1 if missed and arguments.check else 0


if __name__ == "__main__":
    if not KEEP_MEMORY.keys() <= os.environ.keys():
        environment = {**os.environ, **KEEP_MEMORY}
        os.execve(
            sys.executable, [sys.executable, "-m", "benchmarks.codec", *sys.argv[1:]], environment
        )
    sys.exit(asyncio.run(main()))
