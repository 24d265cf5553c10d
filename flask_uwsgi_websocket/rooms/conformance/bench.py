"""What the tests of a backplane stand on: workers in one loop, and what each was told."""

from __future__ import annotations

import asyncio
import inspect
import os
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, TypeVar

from ..backplane import Backplane, BackplaneOptions, Feature, Inbox, Published
from ..record import Kind, Record

#: Seconds in which what must not come would have come.
_A_WHILE = 0.1
#: Seconds that a test takes at most.
_DEADLINE = 60.0

_Suite = TypeVar("_Suite")


class Suite(Protocol):
    """Whoever tests a backplane: see :class:`BackplaneConformance`."""

    timeout: float
    patience: float
    instance: tuple[int, int] | None
    features: frozenset[Feature]

    def backplane(self, options: BackplaneOptions) -> Backplane: ...


class Listener(Inbox):
    """Keeps what a backplane tells its worker, and complains when that is not on its loop."""

    def __init__(self, patience: float) -> None:
        self.records: list[Record] = []
        self.gaps: list[Collection[str] | None] = []
        self.states: list[str | None] = []
        self.strange: list[str] = []
        self.patience = patience
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._news = asyncio.Event()

    def record(self, record: Record) -> None:
        """Keep a record."""
        self._keep(self.records, record)

    def gap(self, channels: Collection[str] | None = None, lost: int = 0) -> None:
        """Keep which channels may miss some."""
        self._keep(self.gaps, channels)

    def health(self, error: str | None) -> None:
        """Keep how the backplane does."""
        self._keep(self.states, error)

    def _keep(self, kept: list[Any], what: object) -> None:
        kept.append(what)
        if threading.get_ident() != self._thread:
            self.strange.append(f"told in another thread than the loop's: {what!r:.80}")
            self._loop.call_soon_threadsafe(self._news.set)
        self._news.set()

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until a condition holds, that only what is told here can change."""
        end = time.monotonic() + self.patience
        while not condition():
            self._news.clear()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), max(0.0, end - time.monotonic()))
            if time.monotonic() > end and not condition():
                raise AssertionError(f"not within {self.patience} s: {what}")


class Worker:
    """A worker: a backplane, and what that told."""

    def __init__(self, backplane: Backplane, patience: float) -> None:
        self.backplane = backplane
        self.inbox = Listener(patience)
        self.origin = secrets.token_bytes(8)
        self._number = 0

    @property
    def got(self) -> list[bytes]:
        """The payloads of the records that came."""
        return [record.data for record in self.inbox.records]

    def record(self, *channels: str, data: bytes = b"") -> Record:
        """Make the next record of this worker."""
        self._number += 1
        return Record(Kind.MESSAGE, channels, data, origin=self.origin, number=self._number)

    async def publish(self, *records: Record) -> list[Published]:
        """Publish records at once; return what the backplane says of each."""
        results = list(await self.backplane.publish(records))
        assert len(results) == len(records), "publish() gives one result for each record"
        return results

    async def send(self, channel: str, *payloads: bytes) -> None:
        """Publish messages one after the other, which must succeed."""
        for payload in payloads:
            results = await self.publish(self.record(channel, data=payload))
            assert results == [None], f"publish() to {channel!a} failed: {results}"

    async def receives(self, *payloads: bytes) -> None:
        """Wait until these have come, and see that they are all, and in this order."""
        wanted = list(payloads)
        await self.inbox.until(
            lambda: len(self.inbox.records) >= len(wanted),
            f"{len(wanted)} records ({len(self.inbox.records)} came)",
        )
        assert [data[:80] for data in self.got] == [data[:80] for data in wanted]
        assert self.got == wanted

    async def settle(self, *publishers: Worker) -> None:
        """Wait until all has come that these have published, and a while for what must not."""
        channel = f"room:settle {secrets.token_hex(8)}"
        await self.backplane.subscribe([channel])
        for publisher in publishers:
            mark = secrets.token_bytes(8)
            await publisher.send(channel, mark)
            await self.inbox.until(partial(self._has, mark), "a record for a new channel")
        await asyncio.sleep(_A_WHILE)
        await self.backplane.unsubscribe([channel])
        self.inbox.records = [r for r in self.inbox.records if channel not in r.channels]

    def _has(self, payload: bytes) -> bool:
        return any(record.data == payload for record in reversed(self.inbox.records))


class Bench:
    """The workers of one test, and what it breaks; all is well again when it ends."""

    def __init__(self, suite: Any) -> None:
        self.suite: Suite = suite
        self.timeout: float = suite.timeout
        #: Of this test's own, since what a server keeps it may keep from one to the next.
        self.prefix = f"conformance {secrets.token_hex(4)}"
        self._workers: list[Worker] = []
        self._broken = False

    def options(self, **changes: Any) -> BackplaneOptions:
        """Return the options of one more worker."""
        changes.setdefault("prefix", self.prefix)
        changes.setdefault("timeout", self.timeout)
        changes.setdefault("instance", self.suite.instance)
        return BackplaneOptions(worker=secrets.token_hex(8), **changes)

    def make(self, **options: Any) -> Worker:
        """Make a worker whose backplane is not started."""
        worker = Worker(self.suite.backplane(self.options(**options)), self.suite.patience)
        self._workers.append(worker)
        return worker

    async def worker(self, *channels: str, **options: Any) -> Worker:
        """Start a worker that subscribes to channels."""
        worker = self.make(**options)
        await worker.backplane.start(worker.inbox)
        if channels:
            await worker.backplane.subscribe(channels)
        return worker

    async def fault(self, name: str) -> None:
        """Have the suite make, or mend, a fault."""
        done: Awaitable[None] | None = getattr(self.suite, name)()
        self._broken = name in ("fail", "pause")
        if inspect.isawaitable(done):
            await done

    async def stop(self) -> None:
        """Stop all workers, and have the server back."""
        if self._broken:
            await self.fault("recover")
        for worker in self._workers:
            await worker.backplane.stop()

    def strange(self) -> list[str]:
        """Return what no backplane may do in any test."""
        return [what for worker in self._workers for what in worker.inbox.strange]


def promise(
    *faults: str, feature: Feature | None = None
) -> Callable[[Callable[[_Suite, Bench], Awaitable[None]]], Callable[[_Suite], None]]:
    """Make an ordinary test of a coroutine function, in a loop of its own.

    :param faults: those that the test needs.
    :param feature: that of backplanes which the test is about, where it is not about all.
    """

    def decorate(test: Callable[[_Suite, Bench], Awaitable[None]]) -> Callable[[_Suite], None]:
        # No functools.wraps: pytest would look for a fixture "bench".
        def run(self: _Suite) -> None:
            asyncio.run(asyncio.wait_for(_run(test, self), _DEADLINE))

        run.__name__ = getattr(test, "__name__", "test")
        run.__doc__ = test.__doc__
        run.__dict__["faults"] = frozenset({*faults, "recover"} if faults else ())
        run.__dict__["features"] = frozenset({feature} if feature else ())
        return run

    return decorate


async def _run(test: Callable[[_Suite, Bench], Awaitable[None]], suite: _Suite) -> None:
    bench = Bench(suite)
    try:
        await test(suite, bench)
    finally:
        await bench.stop()
    assert not bench.strange()


def belongings() -> set[object]:
    """Return what can be left behind: tasks, threads, and descriptors where they are known."""
    return {*_descriptors(), *asyncio.all_tasks(), *threading.enumerate()}


def _descriptors() -> Iterator[str]:
    with suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):  # that of the listing itself
                yield f"{name}: {os.readlink(f'/proc/self/fd/{name}')}"


async def left_behind(before: set[object], patience: float = 1.0) -> set[object]:
    """Return what is there after at most ``patience`` seconds that was not before."""
    end = time.monotonic() + patience
    while (left := belongings() - before) and time.monotonic() < end:
        await asyncio.sleep(0.02)
    return left
