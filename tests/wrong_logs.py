"""For each promise of a backplane that keeps logs one that breaks it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flask_uwsgi_websocket.rooms.backplane import Log, Published
from flask_uwsgi_websocket.rooms.options import History
from flask_uwsgi_websocket.rooms.positions import Position, new_epoch
from flask_uwsgi_websocket.rooms.record import KeptRecord, Record
from tests.sample_backplane import Loft, PigeonBackplane
from tests.sample_logs import Archive, Shelf

#: By the name of the test that notices it.
WRONG: dict[str, list[type[PigeonBackplane]]] = {}


def breaks(*tests: str) -> Any:
    def note(kind: type[Any]) -> type[Any]:
        if issubclass(kind, Shelf):
            kind = type(kind.__name__, (_OnShelves,), {"shelf": kind})
        for test in tests:
            WRONG.setdefault(f"test_{test}", []).append(kind)
        return kind

    return note


class _OnShelves(PigeonBackplane):
    shelf: type[Shelf]

    @property
    def loft(self) -> Loft:
        loft = super().loft
        loft.archive.shelf = self.shelf
        return loft


@breaks("what_is_kept_is_announced_as_it_is_read")
class KeepsNotWhoIsExcluded(Shelf):
    def append(self, record: KeptRecord) -> KeptRecord:
        kept = super().append(record)
        self.entries[-1] = replace(kept, exclude=())
        return kept


@breaks("what_is_kept_is_announced_as_it_is_read")
class KnowsNoTime(Shelf):
    def append(self, record: KeptRecord) -> KeptRecord:
        self.entries[-1:] = [replace(super().append(record), time=0.0)]
        return self.entries[-1]

    def is_over(self, entry: KeptRecord) -> bool:
        return False


@breaks("what_is_kept_is_announced_as_it_is_read")
class AnnouncesWithoutAPosition(PigeonBackplane):
    def deliver(self, record: Record) -> None:
        if isinstance(record, KeptRecord):
            record = replace(record, position=None)
        super().deliver(record)


@breaks("offsets_have_no_holes")
class LeavesHoles(Shelf):
    def append(self, record: KeptRecord) -> KeptRecord:
        self.top += self.top == 7
        return super().append(record)


@breaks("offsets_have_no_holes")
class CountsAllRoomsTogether(PigeonBackplane):
    def take(self, record: Record) -> Position | None:
        if isinstance(record, KeptRecord):
            tops = (shelf.top for shelf in self.archive.shelves.values())
            self.archive.of(self.key(record.channels[0])).top = max(tops, default=0)
        return super().take(record)


@breaks("one_order_for_all")
class AnnouncesOthersThanItKeeps(PigeonBackplane):
    def deliver(self, record: Record) -> None:
        if isinstance(record, KeptRecord) and record.position is not None:
            number = record.position.offset ^ (record.position.offset % 50 == 1)
            record = replace(record, position=record.position._replace(offset=number))
        super().deliver(record)


@breaks("one_order_for_all")
class LetsThoseAfterwardsOvertake(PigeonBackplane):
    async def publish(self, records: Sequence[Record]) -> Sequence[Published]:
        return (await super().publish(records[::-1]))[::-1]


@breaks("order_of_what_is_kept_and_what_is_not")
class KeepsFirst(PigeonBackplane):
    async def publish(self, records: Sequence[Record]) -> Sequence[Published]:
        ordered = sorted(records, key=lambda record: not isinstance(record, KeptRecord))
        results = dict(zip(map(id, ordered), await super().publish(ordered), strict=True))
        return [results[id(record)] for record in records]


@breaks("what_is_heard_can_be_read")
class KeepsSoon(PigeonBackplane):
    async def read(self, channel: str, after: int, limit: int, max_size: int) -> Log:
        log = await super().read(channel, after, limit, max_size)
        recent = time.time() - 0.05
        entries = tuple(entry for entry in log.entries if entry.time < recent)
        return log._replace(top=log.top - (len(log.entries) - len(entries)), entries=entries)


@breaks("what_nobody_hears_is_kept")
class KeepsForThoseWhoHear(PigeonBackplane):
    def take(self, record: Record) -> Position | None:
        position = super().take(record)
        if isinstance(record, KeptRecord):
            key = self.key(record.channels[0])
            if not any(key in subscribed for subscribed in self.loft.connected.values()):
                self.archive.shelves[key].entries.clear()
        return position


@breaks("what_nobody_hears_is_kept")
class TakesItsLogsAlong(PigeonBackplane):
    async def stop(self) -> None:
        self.archive.shelves.clear()
        await super().stop()


@breaks("what_nobody_hears_is_kept")
class TellsNewcomersAll(PigeonBackplane):
    async def subscribe(self, channels: Any) -> None:
        await super().subscribe(channels)
        for channel in channels:
            shelf = self.archive.shelves.get(self.key(channel))
            for entry in shelf.entries if shelf and self.inbox else ():
                self.inbox.record(entry)  # type: ignore[union-attr]


@breaks("reading_a_part")
class ReadsThatOneAgain(Shelf):
    def read(self, after: int, limit: int, max_size: int) -> Log:
        return super().read(after - 1, limit, max_size)


@breaks("reading_a_part")
class ReadsAll(Shelf):
    def read(self, after: int, limit: int, max_size: int) -> Log:
        return super().read(after, 10_000, max_size)


@breaks("reading_a_part")
class ReadsAnyBytes(Shelf):
    def read(self, after: int, limit: int, max_size: int) -> Log:
        return super().read(after, limit, 1 << 40)


@breaks("reading_a_part")
class ReadsTheLatestFirst(Shelf):
    def read(self, after: int, limit: int, max_size: int) -> Log:
        log = super().read(after, 10_000, max_size)
        return log._replace(entries=log.entries[len(log.entries) - limit :] if limit else ())


@breaks("reading_makes_no_log")
class MakesLogsToRead(PigeonBackplane):
    async def read(self, channel: str, after: int, limit: int, max_size: int) -> Log:
        self.archive.of(self.key(channel))
        return await super().read(channel, after, limit, max_size)


@breaks("no_more_is_kept_than_the_room_is_to_keep")
class KeepsMore(Shelf):
    def trim(self, history: History) -> None:
        super().trim(replace(history, count=history.count + 1))


@breaks("no_more_is_kept_than_the_room_is_to_keep")
class KeepsTheFirst(Shelf):
    def trim(self, history: History) -> None:
        del self.entries[history.count :]


@breaks("nothing_is_kept_for_longer_than_the_room_is_to", "the_oldest_go_one_by_one")
class KeepsForEver(Shelf):
    def is_over(self, entry: KeptRecord) -> bool:
        return False


@breaks("nothing_is_kept_for_longer_than_the_room_is_to")
class EndsWithItsMessages(Shelf):
    def append(self, record: KeptRecord) -> KeptRecord:
        if self.entries and all(map(self.is_over, self.entries)):
            self.clear()
        return super().append(record)


@breaks("the_oldest_go_one_by_one")
class WaitsUntilARoomIsQuiet(Shelf):
    def is_over(self, entry: KeptRecord) -> bool:
        return super().is_over(self.entries[-1])


@breaks("no_more_bytes_are_kept_than_16_mib")
class KeepsAnyBytes(Shelf):
    def trim(self, history: History) -> None:
        del self.entries[: -history.count]


@breaks("a_key_makes_it_safe_to_repeat", "a_key_outlives_its_message")
class IgnoresKeys(PigeonBackplane):
    def take(self, record: Record) -> Position | None:
        return super().take(replace(record, key="") if isinstance(record, KeptRecord) else record)


@breaks("a_key_makes_it_safe_to_repeat")
class AnnouncesRepeats(PigeonBackplane):
    def take(self, record: Record) -> Position | None:
        position = super().take(record)
        for entry in self.archive.of(self.key(record.channels[0])).entries:
            if isinstance(record, KeptRecord) and record.key and entry.position == position:
                self.deliver(entry)
        return position


@breaks("a_key_makes_it_safe_to_repeat")
class KnowsKeysOfAllRooms(PigeonBackplane):
    def take(self, record: Record) -> Position | None:
        if isinstance(record, KeptRecord):
            for (_, key), position in self.archive.sent.items():
                if key == record.key:
                    return position
        return super().take(record)


@breaks("a_key_outlives_its_message")
class KeepsKeysWithMessages(PigeonBackplane):
    def take(self, record: Record) -> Position | None:
        archive: Archive = self.archive
        for (room, key), position in list(archive.sent.items()):
            if position not in [entry.position for entry in archive.of(room).entries]:
                del archive.sent[room, key]
        return super().take(record)


@breaks("the_position_of_a_room_that_was_not_used")
class BeginsWithTheFirstMessage(PigeonBackplane):
    async def touch(self, channel: str, seconds: float) -> Position:
        shelf = self.archive.shelves.get(self.key(channel))
        return shelf.position if shelf else Position(new_epoch(), 0)


@breaks("the_position_of_a_room_that_was_not_used")
class HasEpochsOfItsOwn(Shelf):
    def clear(self) -> None:
        super().clear()
        self.epoch = "Epoch.1"


@breaks("forgetting_forgets_keys")
class RemembersForgottenKeys(PigeonBackplane):
    async def forget(self, channel: str) -> None:
        sent = dict(self.archive.sent)
        await super().forget(channel)
        self.archive.sent.update(sent)


@breaks("forgetting_forgets_keys")
class ForgetsAllKeys(PigeonBackplane):
    async def forget(self, channel: str) -> None:
        await super().forget(channel)
        self.archive.sent.clear()


@breaks("forgetting")
class ForgetsSilently(PigeonBackplane):
    async def forget(self, channel: str) -> None:
        if (shelf := self.archive.shelves.get(self.key(channel))) is not None:
            shelf.clear()


@breaks("forgetting")
class ForgetsButGoesOn(Shelf):
    def clear(self) -> None:
        epoch, top = getattr(self, "epoch", new_epoch()), getattr(self, "top", 0)
        super().clear()
        self.epoch, self.top = epoch, top


@breaks("forgetting")
class ForgetsAllRooms(PigeonBackplane):
    async def forget(self, channel: str) -> None:
        await super().forget(channel)
        for room, shelf in self.archive.shelves.items():
            if room != self.key(channel):
                shelf.clear()


@breaks("logs_never_mix")
class KeepsByTheFirstWord(PigeonBackplane):
    def key(self, channel: str) -> tuple[str, str]:
        return self.options.prefix.rpartition(":")[0] or self.options.prefix, channel


@breaks("the_description_of_the_rooms")
class KeepsTheFirstDescription(PigeonBackplane):
    async def describe(self, text: str) -> None:
        self.archive.descriptions.setdefault(self.options.prefix, text)


@breaks("the_description_of_the_rooms")
class HasOneDescriptionForAll(PigeonBackplane):
    async def description(self) -> str | None:
        return next(iter(self.archive.descriptions.values()), None)


@breaks("logs_of_a_dead_server")
class ReadsWhatItHasRead(PigeonBackplane):
    async def read(self, channel: str, after: int, limit: int, max_size: int) -> Log:
        return self.archive.of(self.key(channel)).read(after, limit, max_size)


@breaks("logs_of_a_dead_server")
class WaitsForAServer(PigeonBackplane):
    async def touch(self, channel: str, seconds: float) -> Position:
        await asyncio.sleep(1.5)
        return await super().touch(channel, seconds)


@breaks("logs_of_a_dead_server")
class LosesLogsAndGoesOn(Shelf):
    def read(self, after: int, limit: int, max_size: int) -> Log:
        log = super().read(after, limit, max_size)
        return log._replace(entries=log.entries[2:] if log.top == 3 else log.entries)
