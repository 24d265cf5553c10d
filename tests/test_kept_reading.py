"""How a worker reads what its kept rooms miss, with a log, a loop and clients that a test holds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from flask_uwsgi_websocket.rooms.backplane import BackplaneOptions, Log
from flask_uwsgi_websocket.rooms.channels import room_channel
from flask_uwsgi_websocket.rooms.kept import KeptRooms
from flask_uwsgi_websocket.rooms.memory import MemoryBackplane
from flask_uwsgi_websocket.rooms.metrics import RoomsMetrics
from flask_uwsgi_websocket.rooms.options import History
from flask_uwsgi_websocket.rooms.positions import Joined
from flask_uwsgi_websocket.rooms.record import KeptRecord, Kind
from flask_uwsgi_websocket.rooms.replay import NOTHING, Entry

from .server import PATIENCE

ROOM = room_channel("kept")
HISTORY = History()


class HeldLog(MemoryBackplane):
    """A log whose readers wait until they may go on."""

    def __init__(self) -> None:
        super().__init__("memory://reading", BackplaneOptions("reading", "0" * 16))
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.reading = 0
        #: What the next reading raises.
        self.error: Exception | None = None

    async def read(self, channel: str, after: int, limit: int, max_size: int) -> Log:
        self.reading += 1
        log = await super().read(channel, after, limit, max_size)
        await self.may_read.wait()
        error, self.error = self.error, None
        if error is not None:
            raise error
        return log

    async def send(self, *texts: str) -> list[KeptRecord]:
        """Append messages; return what would be told of them."""
        records = [KeptRecord(Kind.MESSAGE, (ROOM,), text.encode(), True) for text in texts]
        await self.publish(records)
        found = await super().read(ROOM, 0, 1000, 1 << 20)
        return list(found.entries[-len(texts) :])


class Worker:
    """A worker as its kept rooms see it: exchange, members and delivery in one."""

    def __init__(self) -> None:
        self.log = HeldLog()
        self.here: dict[Any, list[str]] = {}
        self.is_full = False
        self.kept: Any = KeptRooms(self, self, self, RoomsMetrics())  # type: ignore[arg-type]
        self._tasks: set[asyncio.Task[None]] = set()
        self.resyncs = 0

    # -- the exchange --

    async def call(self, feature: str, do: Callable[[Any], Awaitable[Any]]) -> Any:
        return await do(self.log)

    def run_soon(self, work: Callable[[], Any], delay: float = 0.0) -> None:
        if not delay:
            task = asyncio.ensure_future(work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def health(self, error: str | None) -> None:
        """Do nothing."""

    # -- the members --

    def members(self, channel: str) -> dict[Any, list[str]]:
        return self.here

    def admit(self, connection: Any, channel: str) -> bool:
        self.here[connection] = []
        return True

    # -- the delivery --

    def receive_anyway(self, record: KeptRecord) -> None:
        for got in self.here.values():
            got.append(record.data.decode())

    def do(self, step: Callable[[], object]) -> None:
        step()

    def welcome(self, connection: Any, entry: Entry) -> None:
        self.here[connection] += [each.data.decode() for each in entry.missed]

    def tell_to_resync(self, channel: str, position: object) -> None:
        self.resyncs += 1

    # -- what a test does --

    async def join(self, name: str) -> Joined:
        joined = await self.kept.join(name, ROOM, HISTORY, NOTHING)
        assert isinstance(joined, Joined)
        return joined

    async def leave(self, name: str) -> None:
        del self.here[name]
        self.kept.left(ROOM)
        await until(lambda: not self.kept.position(ROOM))


async def until(is_so: Callable[[], object]) -> None:
    async def wait() -> None:
        while not is_so():
            await asyncio.sleep(0.001)

    await asyncio.wait_for(wait(), PATIENCE)


def run(test: Callable[[Worker], Awaitable[None]]) -> None:
    async def main() -> None:
        worker: Any = Worker()
        await worker.log.start(worker)
        await test(worker)
        await worker.log.stop()

    asyncio.run(main())


def test_whoever_comes_after_a_reading_began_gets_nothing_of_it() -> None:
    async def test(worker: Worker) -> None:
        await worker.join("first")
        worker.log.may_read.clear()
        await worker.log.send("1", "2")
        worker.kept.miss()
        await until(lambda: worker.log.reading)
        await worker.leave("first")
        joined = await worker.join("second")
        assert str(joined.position).endswith(".2")
        worker.log.may_read.set()
        for hint in await worker.log.send("3"):
            worker.kept.hear(hint)
        await until(lambda: worker.here["second"])
        for _ in range(100):
            await asyncio.sleep(0)
        assert worker.here == {"second": ["3"]}

    run(test)


def test_what_the_loop_does_not_take_is_read_later() -> None:
    async def test(worker: Worker) -> None:
        await worker.join("first")
        hints = await worker.log.send(*map(str, range(10)))
        worker.is_full = True
        for hint in hints:
            worker.kept.hear(hint)
        await asyncio.sleep(0.1)
        assert worker.here == {"first": []}
        worker.is_full = False
        await until(lambda: len(worker.here["first"]) == 10)
        assert worker.here == {"first": list(map(str, range(10)))}
        assert not worker.resyncs

    run(test)


def test_a_log_that_cannot_be_read_is_read_again(caplog: Any) -> None:
    async def test(worker: Worker) -> None:
        await worker.join("first")
        worker.log.error = ValueError("no log")
        await worker.log.send("1")
        worker.kept.miss()
        await until(lambda: worker.here["first"])
        assert worker.here == {"first": ["1"]}

    run(test)
    assert "a kept room cannot be read on: no log" in caplog.text
