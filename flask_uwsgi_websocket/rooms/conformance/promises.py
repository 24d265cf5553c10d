"""What is true of a backplane while its server is well."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from ..channels import ALL, room_channel
from ..record import Kind, Record
from .bench import Bench, Worker, belongings, left_behind, promise

ROOM, OTHER = room_channel("lobby"), room_channel("other")


def numbered(first: int, last: int) -> list[bytes]:
    """Return payloads that tell their order."""
    return [b"%d" % number for number in range(first, last)]


class Promises:
    """The promises of :class:`~.backplane.Backplane` but for names and faults."""

    # Delivery

    @promise()
    async def test_a_record_arrives_as_it_was(self, bench: Bench) -> None:
        """Every field of it, and every kind."""
        listener, publisher = await bench.worker(ROOM), await bench.worker()
        records = [
            Record(kind, (ROOM,), bytes(range(256)), True, ("ä", "b"), b"\0origin\n", 7, served)
            for kind in Kind
            for served in (False, True)
        ]
        assert await publisher.publish(*records) == [None] * len(records)
        await listener.receives(*(record.data for record in records))
        assert listener.inbox.records == records

    @promise()
    async def test_it_arrives_at_all_who_subscribe_and_at_nobody_else(self, bench: Bench) -> None:
        """On any number of workers."""
        listeners = [await bench.worker(ROOM, OTHER), await bench.worker(ROOM)]
        stranger, publisher = await bench.worker(OTHER), await bench.worker()
        await publisher.send(ROOM, b"hi")
        for listener in listeners:
            await listener.receives(b"hi")
        await stranger.settle(publisher)
        assert stranger.got == []

    @promise()
    async def test_a_publisher_gets_its_own_records(self, bench: Bench) -> None:
        """Where it subscribes to the channel."""
        worker = await bench.worker(ROOM)
        await worker.send(ROOM, b"1", b"2")
        await worker.receives(b"1", b"2")

    @promise()
    async def test_payloads_of_any_size_and_bytes(self, bench: Bench) -> None:
        """Empty, of line ends and NUL, of what is not UTF-8, and large."""
        listener, publisher = await bench.worker(ROOM), await bench.worker()
        payloads = [b"", b"\0", b"\r\n", b"\n\t", b"\xff\xfe", bytes(range(256)) * 4096, b"end"]
        await publisher.send(ROOM, *payloads)
        await listener.receives(*payloads)

    @promise()
    async def test_a_record_of_the_largest_size(self, bench: Bench) -> None:
        """Of ``max_size`` bytes; one above is refused, or comes, but harms none after it."""
        size = 1 << 16
        listener = await bench.worker(ROOM, max_size=size)
        publisher = await bench.worker(max_size=size)
        head = len(publisher.record(ROOM).encode())
        await publisher.send(ROOM, bytes(size - head))
        refused, fine = await publisher.publish(
            publisher.record(ROOM, data=b"x" * size), publisher.record(ROOM, data=b"end")
        )
        assert fine is None
        payloads = [bytes(size - head)] + [b"x" * size] * (refused is None) + [b"end"]
        await listener.receives(*payloads)

    @promise()
    async def test_nobody_need_listen(self, bench: Bench) -> None:
        """And who comes later gets what is published from then on, not what was before."""
        late, publisher = await bench.worker(OTHER), await bench.worker()
        await publisher.send(ROOM, b"early")
        await late.settle(publisher)
        await late.backplane.subscribe([ROOM])
        await publisher.send(ROOM, b"now")
        await late.receives(b"now")

    @promise()
    async def test_nothing_to_publish(self, bench: Bench) -> None:
        """An empty batch, and no channels, are no errors."""
        worker = await bench.worker()
        assert await worker.publish() == []
        await worker.backplane.subscribe([])
        await worker.backplane.unsubscribe([])

    # Order

    @promise()
    async def test_the_order_of_a_publisher_is_kept(self, bench: Bench) -> None:
        """In a batch, from one call to the next, and from channel to channel."""
        listener, publisher = await bench.worker(ROOM, OTHER), await bench.worker()
        channels = (ROOM, ROOM, OTHER)
        records = [publisher.record(channels[n % 3], data=b"%d" % n) for n in range(300)]
        assert await publisher.publish(*records) == [None] * 300
        for number in range(300, 350):
            await publisher.send(channels[number % 3], b"%d" % number)
        await listener.receives(*numbered(0, 350))

    @promise()
    async def test_many_publish_at_once(self, bench: Bench) -> None:
        """Several tasks of several workers, large and small: all arrives, in each one's order."""
        listener = await bench.worker(ROOM)
        publishers = [listener, await bench.worker(), await bench.worker()]

        async def publish(worker: Worker, task: int) -> None:
            for number in range(50):
                padding = b"x" * (number % 7 * 10_000)
                await worker.send(ROOM, b"%d %d %s" % (task, number, padding))

        tasks = [(worker, task) for task, worker in enumerate(publishers * 3)]
        await asyncio.gather(*(publish(*task) for task in tasks))
        records = listener.inbox.records
        await listener.inbox.until(lambda: len(records) >= 450, f"450 records ({len(records)})")
        for task in range(9):
            of_task = [data.split()[1] for data in listener.got if data.startswith(b"%d " % task)]
            assert of_task == numbered(0, 50)

    # At most once

    @promise()
    async def test_no_record_comes_twice(self, bench: Bench) -> None:
        """Neither with two subscriptions, nor more often than there are channels of the record."""
        listener, publisher = await bench.worker(ROOM, OTHER), await bench.worker()
        await listener.backplane.subscribe([ROOM])
        await publisher.send(ROOM, *numbered(0, 20))
        await listener.receives(*numbered(0, 20))
        both = publisher.record(ROOM, OTHER, data=b"both")
        assert await publisher.publish(both) == [None]
        await listener.settle(publisher)
        times = Counter(listener.got)
        assert times.pop(b"both") in (1, 2)
        assert set(times.values()) == {1}

    # Subscriptions

    @promise()
    async def test_subscribing_is_in_force_on_return(self, bench: Bench) -> None:
        """Whoever publishes, from then on."""
        listener, stranger = await bench.worker(), await bench.worker()
        for number in range(50):
            channel = room_channel(f"new {number}")
            await listener.backplane.subscribe([channel])
            await stranger.send(channel, b"%d" % number)
        await listener.receives(*numbered(0, 50))
        newcomer = await bench.worker()
        await newcomer.send(ROOM, b"not for it")
        await newcomer.send(room_channel("new 7"), b"at once")
        await listener.receives(*numbered(0, 50), b"at once")

    @promise()
    async def test_subscribing_at_the_same_time(self, bench: Bench) -> None:
        """From several tasks: each may rely on its own."""
        listener, publisher = await bench.worker(), await bench.worker()

        async def subscribe(channel: str) -> None:
            await listener.backplane.subscribe([channel, ROOM])
            await publisher.send(channel, channel.encode())

        channels = [room_channel(f"task {number}") for number in range(30)]
        await asyncio.gather(*map(subscribe, channels))
        await listener.settle(publisher)
        assert sorted(listener.got) == sorted(channel.encode() for channel in channels)

    @promise()
    async def test_unsubscribing(self, bench: Bench) -> None:
        """Of what is published after it nothing comes, while the other channels go on."""
        listener, publisher = await bench.worker(ROOM, OTHER), await bench.worker()
        await publisher.send(ROOM, b"1")
        await listener.receives(b"1")
        await listener.backplane.unsubscribe([ROOM, room_channel("never subscribed to")])
        await publisher.send(ROOM, b"lost")
        await publisher.send(OTHER, b"2")
        await listener.receives(b"1", b"2")
        await listener.backplane.subscribe([ROOM])
        await publisher.send(ROOM, b"3")
        await listener.receives(b"1", b"2", b"3")

    @promise()
    async def test_many_channels(self, bench: Bench) -> None:
        """A thousand, in one call, and each by itself."""
        listener, publisher = await bench.worker(), await bench.worker()
        channels = [room_channel(f"room {number}") for number in range(1000)]
        await listener.backplane.subscribe(channels)
        await listener.backplane.unsubscribe(channels[::2])
        records = [publisher.record(channel, data=channel.encode()) for channel in channels]
        assert await publisher.publish(*records) == [None] * 1000
        await listener.settle(publisher)
        assert listener.got == [channel.encode() for channel in channels[1::2]]

    # Workers

    @promise()
    async def test_it_counts_the_workers(self, bench: Bench) -> None:
        """Those that subscribe to :data:`ALL`, or nobody can tell."""
        publisher = await bench.worker(OTHER)
        workers = [await bench.worker(ALL, ROOM), await bench.worker(ALL)]
        if await publisher.backplane.workers() is None:
            return
        for expected in (2, 1, 0):
            for asked in (publisher, *workers):
                assert await _until_counted(asked, expected) == expected
            if workers:
                await workers.pop().backplane.stop()

    @promise()
    async def test_what_an_operator_should_know_is_text(self, bench: Bench) -> None:
        """For ``doctor``."""
        worker = await bench.worker()
        assert all(isinstance(line, str) for line in await worker.backplane.check())

    @promise()
    async def test_it_says_what_it_has(self, bench: Bench) -> None:
        """The features that its tests name, so that none of them goes untested."""
        worker = bench.make()
        assert worker.backplane.features == bench.suite.features

    # Its life

    @promise()
    async def test_making_one_does_nothing(self, bench: Bench) -> None:
        """No descriptor, thread or task, before it is started: it may be before a fork."""
        before = belongings()
        bench.make()
        assert belongings() == before

    @promise()
    async def test_stopping(self, bench: Bench) -> None:
        """Twice, without a start, and in the middle of things."""
        worker, unstarted = await bench.worker(ROOM), bench.make()
        sending = asyncio.ensure_future(worker.publish(worker.record(ROOM, data=bytes(100_000))))
        await asyncio.sleep(0)
        for stopped in (worker, worker, unstarted, unstarted):
            await asyncio.wait_for(stopped.backplane.stop(), bench.timeout + 1)
        await asyncio.wait({sending}, timeout=bench.timeout + 1)
        assert sending.done(), "publish() goes on after stop()"
        sending.exception()

    @promise()
    async def test_nothing_is_left_behind(self, bench: Bench) -> None:
        """No task, thread or descriptor of one that is stopped."""
        await _a_life(bench)  # so that what a process makes once for all is there
        before = belongings()
        await _a_life(bench)
        assert not await left_behind(before)

    @promise()
    async def test_one_is_followed_by_the_next(self, bench: Bench) -> None:
        """A worker that stops is missed by none, and its successor gets what it asks for."""
        publisher, listener = await bench.worker(), await bench.worker(ROOM)
        for payload in numbered(0, 5):
            first = await bench.worker(ROOM)
            await publisher.send(ROOM, payload)
            await first.receives(payload)
            await first.backplane.stop()
        await listener.receives(*numbered(0, 5))


async def _until_counted(worker: Worker, expected: int) -> int | None:
    """Ask until the count is right, since another worker's end may be noticed late."""
    end = time.monotonic() + worker.inbox.patience
    while (counted := await worker.backplane.workers()) != expected and time.monotonic() < end:
        await asyncio.sleep(0.01)
    return counted


async def _a_life(bench: Bench) -> None:
    """Start workers, have them do what workers do, and stop them."""
    workers = [await bench.worker(ROOM), await bench.worker(ROOM, ALL)]
    await workers[0].send(ROOM, b"hi")
    for worker in workers:
        await worker.receives(b"hi")
        await worker.backplane.workers()
        await worker.backplane.unsubscribe([ROOM])
    for worker in workers:
        await worker.backplane.stop()
