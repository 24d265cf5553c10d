"""What is true of a backplane that keeps logs of rooms: the feature "history"."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from ...exceptions import BackplaneUnavailable
from ..backplane import Log
from ..channels import room_channel, user_channel
from ..options import MAX_KEPT, History
from ..positions import Position
from ..record import KeptRecord, Kind, Record
from .bench import Bench, Worker, promise
from .faults import LATE, ROOM, arrives, within

OTHER = room_channel("other")

#: As much as any room has.
_ALL, _ANY_SIZE = 10_000, 1 << 30
#: Seconds for which a room keeps what is gone soon, and in which it is gone.
_SHORT = 0.2


def message(worker: Worker, data: bytes, channel: str = ROOM, **fields: Any) -> KeptRecord:
    """Make the next record of a worker, to a room that keeps it."""
    plain = worker.record(channel, data=data)
    return KeptRecord(
        Kind.MESSAGE, plain.channels, data, origin=plain.origin, number=plain.number, **fields
    )


async def append(worker: Worker, *records: Record) -> list[Position]:
    """Publish records to kept rooms, at once, which must succeed; return where they are."""
    positions = []
    for result in await worker.publish(*records):
        assert isinstance(result, Position), f"publish() of a kept record gave {result!r}"
        positions.append(result)
    return positions


async def send(worker: Worker, *payloads: bytes, **fields: Any) -> list[Position]:
    """Do the same with messages that have these payloads."""
    return await append(worker, *(message(worker, data, **fields) for data in payloads))


async def read(worker: Worker, channel: str = ROOM, after: int = 0) -> Log:
    """Read a log, as much as there is of it, which must be in order."""
    log = await worker.backplane.read(channel, after, _ALL, _ANY_SIZE)
    offsets = [offset_of(record) for record in log.entries]
    assert offsets == list(range(log.top - len(offsets) + 1, log.top + 1)), "a log has holes"
    return log


def offset_of(record: Record) -> int:
    """Return where a record is that came, or was read."""
    assert isinstance(record, KeptRecord), f"not a record of a log: {record!r:.80}"
    assert record.position is not None
    return record.position.offset


def contents(records: Sequence[Record]) -> dict[int, bytes]:
    """Return payloads by offset; each may be there once only."""
    found = {offset_of(record): record.data for record in records}
    assert len(found) == len(records), "an offset is there twice"
    return found


class Logs:
    """The promises of a backplane's :meth:`~.Backplane.publish` and :meth:`~.Backplane.read`."""

    @promise(feature="history")
    async def test_what_is_kept_is_announced_as_it_is_read(self, bench: Bench) -> None:
        """Every field of it, with its position, and with the time at which it was appended."""
        listener, publisher = await bench.worker(ROOM), await bench.worker()
        begun = time.time()
        whole = message(publisher, bytes(range(256)), exclude=("ä", "b"))
        texts = [message(publisher, b"{}", text=True, json=json) for json in (False, True)]
        positions = await append(publisher, whole, *texts)
        heard = listener.inbox.records
        await listener.inbox.until(partial(_has, heard, 3), "3 kept records")
        log = await read(listener)
        assert sorted(heard, key=offset_of) == list(log.entries)
        for record, position, sent in zip(log.entries, positions, (whole, *texts), strict=True):
            assert record.position == position
            assert begun - 1 < record.time < time.time() + 1, "the time is not of now"
            assert record.time == round(record.time, 3), "no whole milliseconds"
            assert record.encode() == b"".join([b"K", *_stamp(record), sent.body()])

    @promise(feature="history")
    async def test_offsets_have_no_holes(self, bench: Bench) -> None:
        """They count from 1, in each room by itself, whatever else is published."""
        publisher = await bench.worker()
        plain = publisher.record(ROOM, data=b"plain")
        results = await publisher.publish(
            message(publisher, b"1"), plain, message(publisher, b"1", OTHER), plain
        )
        assert results[1] is results[3] is None
        assert [result.offset for result in results[::2] if isinstance(result, Position)] == [1, 1]
        positions = await send(publisher, *(b"%d" % n for n in range(2, 40)))
        assert [position.offset for position in positions] == list(range(2, 40))
        assert len({position.epoch for position in positions}) == 1
        assert contents((await read(publisher)).entries) == {n: b"%d" % n for n in range(1, 40)}

    @promise(feature="history")
    async def test_one_order_for_all(self, bench: Bench) -> None:
        """However many publish at once: all hear the same at an offset, and read it there."""
        listeners = [await bench.worker(ROOM), await bench.worker(ROOM)]
        publishers = [listeners[0], await bench.worker(), await bench.worker()]

        async def publish(worker: Worker, name: int) -> None:
            for number in range(0, 30, 3):
                await send(worker, *(b"%d %d" % (name, number + n) for n in range(3)))

        await asyncio.gather(*(publish(worker, n) for n, worker in enumerate(publishers * 2)))
        log = contents((await read(publishers[1], after=80)).entries)
        assert sorted(log) == list(range(81, 181))
        for listener in listeners:
            heard = listener.inbox.records
            await listener.inbox.until(partial(_has, heard, 180), "180 kept records")
            assert log.items() <= contents(heard).items()
            for name in range(6):
                of_one = [data for _, data in sorted(contents(heard).items())]
                of_one = [data for data in of_one if data.startswith(b"%d " % name)]
                assert of_one == [b"%d %d" % (name, number) for number in range(30)]

    @promise(feature="history")
    async def test_order_of_what_is_kept_and_what_is_not(self, bench: Bench) -> None:
        """That of the publisher: a message and a request to close must not change places."""
        listener, publisher = await bench.worker(ROOM), await bench.worker()
        kinds = [Kind.MESSAGE, Kind.CLOSE, Kind.MESSAGE, Kind.MESSAGE, Kind.LEAVE] * 4
        records = [
            message(publisher, b"%d" % number)
            if kind is Kind.MESSAGE
            else Record(
                kind, (ROOM,), b"%d" % number, origin=publisher.origin, number=1000 + number
            )
            for number, kind in enumerate(kinds)
        ]
        await publisher.publish(*records)
        await listener.receives(*(record.data for record in records))

    @promise(feature="history")
    async def test_what_is_heard_can_be_read(self, bench: Bench) -> None:
        """At once, by whoever hears it: to append and to announce is one step."""
        listener, publisher = await bench.worker(ROOM), await bench.worker()
        heard = listener.inbox.records
        for number in range(1, 21):
            [position] = await send(publisher, b"%d" % number)
            assert (await read(publisher)).top == position.offset == number
            await listener.inbox.until(partial(_has, heard, number), "a kept record")
            assert (await read(listener, after=number - 1)).entries == tuple(heard[-1:])

    @promise(feature="history")
    async def test_what_nobody_hears_is_kept(self, bench: Bench) -> None:
        """For whoever comes later; also when the publisher has gone."""
        publisher, other = await bench.worker(), await bench.worker()
        await send(publisher, b"", b"\0", b"\r\n\t", b"\xff\xfe", bytes(100_000))
        await publisher.backplane.stop()
        entries = [record.data for record in (await read(other)).entries]
        assert entries == [b"", b"\0", b"\r\n\t", b"\xff\xfe", bytes(100_000)]
        late = await bench.worker(ROOM)
        assert [record.data for record in (await read(late)).entries] == entries
        assert late.got == []

    # Reading

    @promise(feature="history")
    async def test_reading_a_part(self, bench: Bench) -> None:
        """From an offset on, so many, and so many bytes, but one at least."""
        worker = await bench.worker()
        positions = await send(worker, *(b"%d" % n * 1000 for n in range(1, 10)))
        calls = {(0, 3, 1 << 20): "123", (7, 5, 1 << 20): "89", (9, 5, 1 << 20): ""}
        calls |= {(0, 5, 1): "1", (3, 5, 3500): "456", (0, 0, 100): "", (10**14, 1, 1): ""}
        for call, expected in calls.items():
            log = await worker.backplane.read(ROOM, *call)
            assert (log.epoch, log.top) == positions[-1]
            found = "".join(record.data.decode()[0] for record in log.entries)
            exact = expected if call[2] != 3500 else found  # bytes of what besides is its own
            assert found == exact, f"read{call} gave {found}, not {expected}"
            assert expected.startswith(found)
        log = await worker.backplane.read(ROOM, 3, 5, 3500)
        assert log.entries, "read() gave nothing"

    @promise(feature="history")
    async def test_reading_makes_no_log(self, bench: Bench) -> None:
        """And forgetting what is not there is no error."""
        worker = await bench.worker()
        for after in (0, 7, 0):
            assert await worker.backplane.read(ROOM, after, 10, 1 << 20) == Log("", 0, ())
        await worker.backplane.forget(ROOM)

    # Trimming

    @promise(feature="history")
    async def test_no_more_is_kept_than_the_room_is_to_keep(self, bench: Bench) -> None:
        """The last ones, while the offsets go on."""
        worker = await bench.worker()
        few = History(count=3)
        await send(worker, *(b"%d" % n for n in range(1, 11)), history=few)
        log = await read(worker)
        assert (log.top, contents(log.entries)) == (10, {8: b"8", 9: b"9", 10: b"10"})
        assert await read(worker, after=2) == log
        assert contents((await read(worker, after=9)).entries) == {10: b"10"}

    @promise(feature="history")
    async def test_nothing_is_kept_for_longer_than_the_room_is_to(self, bench: Bench) -> None:
        """Whether something follows it or not; and the epoch outlives it."""
        worker = await bench.worker()
        soon_over = History(seconds=_SHORT)
        positions = await send(worker, b"1", b"2", history=soon_over)
        await asyncio.sleep(2 * _SHORT)
        assert await read(worker) == (*positions[-1], ())
        [position] = await send(worker, b"3", history=soon_over)
        assert position == (positions[0].epoch, 3)
        assert contents((await read(worker)).entries) in ({3: b"3"}, {})  # on a slow machine

    @promise(feature="history")
    async def test_the_oldest_go_one_by_one(self, bench: Bench) -> None:
        """While a room is never quiet: at each message those before it that are too old."""
        worker = await bench.worker()
        end = time.monotonic() + 5 * _SHORT
        while time.monotonic() < end:
            await send(worker, b"x", history=History(seconds=_SHORT))
            log = await read(worker)
            oldest = min((record.time for record in log.entries), default=0.0)
            newest = max((record.time for record in log.entries), default=0.0)
            assert newest - oldest <= _SHORT + 0.001, "what is too old is read"
            await asyncio.sleep(_SHORT / 10)

    @promise(feature="history")
    async def test_no_more_bytes_are_kept_than_16_mib(self, bench: Bench) -> None:
        """However few messages that is."""
        worker = await bench.worker(timeout=20.0)
        size = MAX_KEPT // 16
        for _ in range(18):
            await send(worker, bytes(size - 1000))
        log = await read(worker)
        assert log.top == 18
        assert 14 <= len(log.entries) <= 16
        assert (await read(worker, after=17)).entries == log.entries[-1:]

    # Sending again

    @promise(feature="history")
    async def test_a_key_makes_it_safe_to_repeat(self, bench: Bench) -> None:
        """It is appended and announced once, whoever repeats it, and when."""
        listener, publisher = await bench.worker(ROOM, OTHER), await bench.worker()
        first, again = await send(publisher, b"1", b"1", key="order 17")
        [other] = await send(listener, b"1", key="order 17")
        assert first == again == other
        repeats = (send(worker, b"1", key="order 17") for worker in (listener, publisher) * 3)
        assert await asyncio.gather(*repeats) == [[first]] * 6
        [elsewhere] = await append(publisher, message(publisher, b"2", OTHER, key="order 17"))
        assert elsewhere.offset == 1, "a key of another room counts"
        await send(publisher, b"3", key="order 18")
        await send(publisher, b"4", b"5")
        await listener.inbox.until(partial(_has, listener.inbox.records, 5), "5 kept records")
        await listener.settle(publisher)
        assert sorted(listener.got) == [b"1", b"2", b"3", b"4", b"5"]
        assert contents((await read(listener)).entries) == {1: b"1", 2: b"3", 3: b"4", 4: b"5"}

    @promise(feature="history")
    async def test_a_key_outlives_its_message(self, bench: Bench) -> None:
        """For what a room keeps is no measure of how late somebody repeats."""
        worker = await bench.worker()
        one = History(count=1)
        [first] = await send(worker, b"1", key="ä\0\n :{}" * 20, history=one)
        await send(worker, b"2", b"3", history=one)
        assert await send(worker, b"1", key="ä\0\n :{}" * 20, history=one) == [first]
        assert contents((await read(worker)).entries) == {3: b"3"}

    # Positions and epochs

    @promise(feature="history")
    async def test_the_position_of_a_room_that_was_not_used(self, bench: Bench) -> None:
        """Is that before its first message, whoever asks."""
        worker, other = await bench.worker(), await bench.worker()
        begin = await worker.backplane.touch(ROOM, 300)
        assert begin.offset == 0
        assert Position.parse(str(begin)) == begin, f"{begin} is no position"
        assert await other.backplane.touch(ROOM, 300) == begin
        assert await read(worker) == (*begin, ())
        positions = await send(other, b"1", b"2")
        assert positions == [(begin.epoch, 1), (begin.epoch, 2)]
        assert await worker.backplane.touch(ROOM, 300) == positions[-1]
        assert len((await read(worker)).entries) == 2

    @promise(feature="history")
    async def test_forgetting(self, bench: Bench) -> None:
        """Leaves nothing, begins another epoch, and is told to all who subscribe."""
        listener, publisher = await bench.worker(ROOM), await bench.worker()
        [before] = await append(publisher, message(publisher, b"kept", OTHER))
        *_, old = await send(publisher, b"1", b"2", b"3")
        await publisher.backplane.forget(ROOM)
        heard = listener.inbox.records
        await listener.inbox.until(partial(_has, heard, 4), "a record after forget()")
        told = heard[-1]
        assert isinstance(told, KeptRecord)
        assert told.position is not None
        assert (told.channels, told.data, told.position.offset) == ((ROOM,), b"", 0)
        assert told.position.epoch != old.epoch
        assert await read(publisher) == (told.position.epoch, 0, ())
        assert await send(publisher, b"new") == [(told.position.epoch, 1)]
        assert contents((await read(listener)).entries) == {1: b"new"}
        assert await read(listener, OTHER) == (*before, (await read(publisher, OTHER)).entries)

    @promise(feature="history")
    async def test_forgetting_forgets_keys(self, bench: Bench) -> None:
        """A message may come again when its room has begun anew, and then once only."""
        worker, other = await bench.worker(), await bench.worker()
        elsewhere = message(worker, b"1", OTHER, key="order 17")
        kept = await append(worker, elsewhere)
        await send(worker, b"1", key="order 17")
        for _ in range(2):
            await other.backplane.forget(ROOM)
            again = [*await send(worker, b"1", key="order 17"), *await send(other, b"2")]
            assert [position.offset for position in again] == [1, 2], "a forgotten key counts"
            assert await send(other, b"1", key="order 17") == again[:1]
            assert contents((await read(other)).entries) == {1: b"1", 2: b"2"}
        assert await append(worker, elsewhere) == kept, "a key of another room was forgotten"

    @promise(feature="history")
    async def test_logs_never_mix(self, bench: Bench) -> None:
        """Those of other rooms, whatever they are called, and of other apps."""
        names = ["a", "A", "a:log", "a}:top", "{a}", "a*", "../a", "é", "日本", "x" * 255]
        rooms = [*map(room_channel, names), user_channel("a")]
        prefixes = [bench.prefix + more for more in ("", ":room", ":{room")]
        apps = [await bench.worker(prefix=prefix) for prefix in prefixes]
        for worker in apps:
            for room in rooms:
                data = f"{worker.backplane.options.prefix} {room}".encode()
                assert [p.offset for p in await append(worker, message(worker, data, room))] == [1]
        for worker in apps:
            for room in rooms:
                data = f"{worker.backplane.options.prefix} {room}".encode()
                assert contents((await read(worker, room)).entries) == {1: data}

    @promise(feature="history")
    async def test_the_description_of_the_rooms(self, bench: Bench) -> None:
        """The latest, for all of one app; None before there is any."""
        worker, other = await bench.worker(), await bench.worker()
        stranger = await bench.worker(prefix=f"{bench.prefix}:")
        assert await worker.backplane.description() is None
        for text in ("{}", '{"ä*": {"history": null}}' * 100):
            await worker.backplane.describe(text)
            assert await other.backplane.description() == text
        assert await stranger.backplane.description() is None

    # Faults

    @promise("fail", feature="history")
    async def test_logs_of_a_dead_server(self, bench: Bench) -> None:
        """Each call fails in time; afterwards what was kept is read, or it is another epoch."""
        worker = await bench.worker(ROOM)
        positions = await send(worker, b"1", b"2")
        await bench.fault("fail")
        [result] = await within(
            bench.timeout + LATE, "publish()", worker.publish(message(worker, b"lost"))
        )
        assert isinstance(result, BackplaneUnavailable), f"publish() said {result!r}"
        backplane = worker.backplane
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "read": lambda: backplane.read(ROOM, 0, 1, 1),
            "touch": lambda: backplane.touch(ROOM, 300),
            "forget": lambda: backplane.forget(ROOM),
            "describe": lambda: backplane.describe("{}"),
            "description": lambda: backplane.description(),
        }
        for name, call in calls.items():
            try:
                await within(bench.timeout + LATE, f"{name}()", call())
            except BackplaneUnavailable:
                continue
            raise AssertionError(f"{name}() did not raise BackplaneUnavailable")
        await bench.fault("recover")
        await arrives(worker, worker)
        [new] = await send(worker, b"new")
        log = await read(worker)
        assert log.entries[-1].data == b"new"
        assert new.epoch != positions[0].epoch or [r.data for r in log.entries[:2]] == [b"1", b"2"]


def _has(records: list[Record], count: int) -> bool:
    return len(records) >= count


def _stamp(record: KeptRecord) -> list[bytes]:
    """Return what the bytes of a record in a log have before its body."""
    return [f"{record.position} {round(record.time * 1000)}".encode(), b"\0"]
