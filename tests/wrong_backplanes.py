"""For each promise of a backplane one that breaks it, as real ones do."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from flask_uwsgi_websocket.exceptions import BackplaneUnavailable
from flask_uwsgi_websocket.rooms.backplane import BackplaneOptions, Inbox, Published
from flask_uwsgi_websocket.rooms.channels import ALL
from flask_uwsgi_websocket.rooms.record import Record
from tests.sample_backplane import PigeonBackplane

#: By the name of the test that notices it.
WRONG: dict[str, list[type[PigeonBackplane]]] = {}


def breaks(*tests: str) -> Any:
    def note(kind: type[PigeonBackplane]) -> type[PigeonBackplane]:
        for test in tests:
            WRONG.setdefault(f"test_{test}", []).append(kind)
        return kind

    return note


# Delivery


@breaks("a_record_arrives_as_it_was")
class ForgetsWhoIsExcluded(PigeonBackplane):
    def deliver(self, record: Record) -> None:
        super().deliver(replace(record, exclude=()))


@breaks("it_arrives_at_all_who_subscribe_and_at_nobody_else")
class DeliversToEverybody(PigeonBackplane):
    def deliver(self, record: Record) -> None:
        for pigeon in list(self.loft.connected):
            assert pigeon.inbox is not None
            pigeon.inbox.record(record)


@breaks("it_arrives_at_all_who_subscribe_and_at_nobody_else")
class DeliversToOne(PigeonBackplane):
    def deliver(self, record: Record) -> None:
        keys = set(map(self.key, record.channels))
        takers = [taker for taker, known in self.loft.connected.items() if keys & known]
        for taker in takers[:1]:
            assert taker.inbox is not None
            taker.inbox.record(record)


@breaks("a_publisher_gets_its_own_records")
class SparesThePublisher(PigeonBackplane):
    def deliver(self, record: Record) -> None:
        inbox, self.inbox = self.inbox, None
        super().deliver(record)
        self.inbox = inbox


@breaks("payloads_of_any_size_and_bytes")
class DropsTheEmpty(PigeonBackplane):
    def deliver(self, record: Record) -> None:
        if record.data:
            super().deliver(record)


@breaks("payloads_of_any_size_and_bytes")
class TakesBytesForText(PigeonBackplane):
    def deliver(self, record: Record) -> None:
        super().deliver(replace(record, data=record.data.decode(errors="replace").encode()))


@breaks("a_record_of_the_largest_size")
class TakesLess(PigeonBackplane):
    async def publish(self, records: Sequence[Record]) -> Sequence[Published]:
        if any(len(record.data) + 100 > self.options.max_size for record in records):
            return [ValueError("too large")] * len(records)
        return await super().publish(records)


@breaks("a_record_of_the_largest_size")
class RefusesTheWholeBatch(PigeonBackplane):
    async def publish(self, records: Sequence[Record]) -> Sequence[Published]:
        if any(len(record.encode()) > self.options.max_size for record in records):
            return [ValueError("too large")] * len(records)
        return await super().publish(records)


@breaks("nobody_need_listen")
class KeepsForLater(PigeonBackplane):
    kept: dict[str, Record]

    def deliver(self, record: Record) -> None:
        vars(self.loft).setdefault("kept", {})[record.channels[0]] = record
        super().deliver(record)

    async def subscribe(self, channels: Collection[str]) -> None:
        await super().subscribe(channels)
        for channel in channels:
            if (kept := vars(self.loft).get("kept", {}).get(channel)) and self.inbox is not None:
                self.inbox.record(kept)


@breaks("nobody_need_listen")
class NeedsListeners(PigeonBackplane):
    async def publish(self, records: Sequence[Record]) -> Sequence[Published]:
        await super().publish(records)
        subscribed = {key for keys in self.loft.connected.values() for key in keys}
        return [
            None if self.key(record.channels[0]) in subscribed else BackplaneUnavailable("nobody")
            for record in records
        ]


@breaks("nothing_to_publish")
class NeedsAChannel(PigeonBackplane):
    async def subscribe(self, channels: Collection[str]) -> None:
        assert channels, "wrong number of arguments"
        await super().subscribe(channels)


# Order, and at most once


@breaks("the_order_of_a_publisher_is_kept")
class TurnsBatchesRound(PigeonBackplane):
    async def publish(self, records: Sequence[Record]) -> Sequence[Published]:
        return await super().publish(records[::-1])


@breaks("the_order_of_a_publisher_is_kept")
class SortsByChannel(PigeonBackplane):
    async def publish(self, records: Sequence[Record]) -> Sequence[Published]:
        return await super().publish(sorted(records, key=lambda record: record.channels))


@breaks("many_publish_at_once")
class LetsTheSmallOvertake(PigeonBackplane):
    async def publish(self, records: Sequence[Record]) -> Sequence[Published]:
        asyncio.get_running_loop().call_later(
            0.01 * (len(records[0].data) > 50_000), lambda: [self.deliver(r) for r in records]
        )
        return [None] * len(records)


@breaks("many_publish_at_once")
class DropsWhatIsTooMuch(PigeonBackplane):
    pending = 0

    async def publish(self, records: Sequence[Record]) -> Sequence[Published]:
        self.pending += 1
        await asyncio.sleep(0)
        if self.pending < 3:
            await super().publish(records)
        self.pending -= 1
        return [None] * len(records)


@breaks("no_record_comes_twice")
class TriesAgain(PigeonBackplane):
    def deliver(self, record: Record) -> None:
        for _ in range(1 + (record.number % 7 == 0)):
            super().deliver(record)


@breaks("no_record_comes_twice")
class CountsSubscriptions(PigeonBackplane):
    def __init__(self, url: str, options: BackplaneOptions) -> None:
        super().__init__(url, options)
        self.times: dict[str, int] = {}

    async def subscribe(self, channels: Collection[str]) -> None:
        await super().subscribe(channels)
        for channel in channels:
            self.times[channel] = self.times.get(channel, 0) + 1

    def deliver(self, record: Record) -> None:
        for pigeon in list(self.loft.connected):
            for channel in record.channels:
                for _ in range(getattr(pigeon, "times", {}).get(channel, 0)):
                    assert pigeon.inbox is not None
                    pigeon.inbox.record(record)


# Subscriptions


@breaks("subscribing_is_in_force_on_return", "subscribing_at_the_same_time")
class SubscribesSoon(PigeonBackplane):
    async def subscribe(self, channels: Collection[str]) -> None:
        task = asyncio.ensure_future(self._subscribe_soon(list(channels)))
        self.tasks = [*getattr(self, "tasks", ()), task]

    async def _subscribe_soon(self, channels: list[str]) -> None:
        await asyncio.sleep(0.01)
        await super().subscribe(channels)


@breaks("subscribing_at_the_same_time")
class SubscribesTheFirstOnly(PigeonBackplane):
    async def subscribe(self, channels: Collection[str]) -> None:
        known = set(channels) & self.wanted
        self.wanted.update(channels)
        if not known:  # one asks already, who waits for all
            await asyncio.sleep(0.01)
            await super().subscribe(channels)


@breaks("unsubscribing", "many_channels")
class NeverUnsubscribes(PigeonBackplane):
    async def unsubscribe(self, channels: Collection[str]) -> None:
        pass


@breaks("unsubscribing")
class UnsubscribesFromAll(PigeonBackplane):
    async def unsubscribe(self, channels: Collection[str]) -> None:
        await super().unsubscribe(list(self.wanted))


@breaks("unsubscribing")
class MindsUnknownChannels(PigeonBackplane):
    async def unsubscribe(self, channels: Collection[str]) -> None:
        for channel in channels:
            self.wanted.remove(channel)
        await super().unsubscribe(channels)


@breaks("many_channels")
class KnowsAHundred(PigeonBackplane):
    async def subscribe(self, channels: Collection[str]) -> None:
        await super().subscribe(list(channels)[:100])


# Names


@breaks("any_name")
class FoldsCase(PigeonBackplane):
    def key(self, channel: str) -> tuple[str, str]:
        return self.options.prefix, channel.lower()


@breaks("any_name")
class CutsNames(PigeonBackplane):
    def key(self, channel: str) -> tuple[str, str]:
        return self.options.prefix, channel.encode()[:255].decode(errors="ignore")


@breaks("prefixes_never_mix")
class JoinsByAColon(PigeonBackplane):
    def key(self, channel: str) -> tuple[str, str]:
        return "", f"{self.options.prefix}:{channel}"


@breaks("prefixes_never_mix", "workers_of_other_prefixes_are_not_counted")
class HasNoPrefix(PigeonBackplane):
    def key(self, channel: str) -> tuple[str, str]:
        return "", channel


# Workers, and an end


@breaks("it_counts_the_workers")
class CountsThoseThatHaveEnded(PigeonBackplane):
    async def workers(self) -> int | None:
        ever: set[Any] = vars(self.loft).setdefault("ever", set())
        ever |= {p for p, known in self.loft.connected.items() if self.key(ALL) in known}
        return len(ever)


@breaks("it_counts_the_workers")
class CountsAllConnections(PigeonBackplane):
    async def workers(self) -> int | None:
        return len(self.loft.connected)


@breaks("it_says_what_it_has")
class HasLessThanItsTestsSay(PigeonBackplane):
    features = frozenset()


@breaks("what_an_operator_should_know_is_text")
class TellsMappings(PigeonBackplane):
    async def check(self) -> list[Any]:
        return [{"maxmemory-policy": "allkeys-lru"}]


@breaks("making_one_does_nothing")
class OpensAtOnce(PigeonBackplane):
    def __init__(self, url: str, options: BackplaneOptions) -> None:
        super().__init__(url, options)
        self.pipe = os.pipe()

    async def stop(self) -> None:
        for descriptor in self.__dict__.pop("pipe", ()):
            os.close(descriptor)
        await super().stop()


@breaks("stopping")
class StopsOnce(PigeonBackplane):
    async def stop(self) -> None:
        self.loft.connected.pop(self)


@breaks("stopping")
class LeavesPublishersWaiting(PigeonBackplane):
    async def publish(self, records: Sequence[Record]) -> Sequence[Published]:
        return await asyncio.get_running_loop().create_future()


@breaks("nothing_is_left_behind")
class LeavesADescriptor(PigeonBackplane):
    async def start(self, inbox: Inbox) -> None:
        self.pipe = os.pipe()
        await super().start(inbox)


@breaks("nothing_is_left_behind", "nothing_is_left_behind_by_what_never_connected")
class LeavesATask(PigeonBackplane):
    async def start(self, inbox: Inbox) -> None:
        self.task = asyncio.ensure_future(asyncio.sleep(3600))
        await super().start(inbox)


@breaks("one_is_followed_by_the_next")
class TakesAllAlong(PigeonBackplane):
    async def stop(self) -> None:
        self.loft.connected.clear()
        await super().stop()


class _FromAThread(PigeonBackplane):
    def deliver(self, record: Record) -> None:
        thread = threading.Thread(target=super().deliver, args=(record,))
        thread.start()
        thread.join()


@breaks("a_record_arrives_as_it_was")
class TellsFromAThread(_FromAThread):
    pass


# Faults


@breaks("starting_does_not_wait_for_a_server")
class WaitsForTheServer(PigeonBackplane):
    async def start(self, inbox: Inbox) -> None:
        await super().start(inbox)
        if not self.loft.is_up:
            await asyncio.sleep(0.7)


@breaks("starting_does_not_wait_for_a_server", "it_works_again_after_an_outage")
class ForgetsWhatWasWanted(PigeonBackplane):
    async def subscribe(self, channels: Collection[str]) -> None:
        await self.answer()
        await super().subscribe(channels)


@breaks("it_works_again_after_an_outage", "outage_after_outage", "lost_connections_are_told")
class ComesBackDeaf(PigeonBackplane):
    def connect(self) -> None:
        super().connect()
        if len(getattr(self.inbox, "states", ())) > 1:
            self.loft.connected[self] = set()


@breaks("it_works_again_after_an_outage")
class WantsWhatIsNotWanted(PigeonBackplane):
    async def unsubscribe(self, channels: Collection[str]) -> None:
        if self.loft.is_up:
            await super().unsubscribe(channels)


@breaks("a_dead_server")
class RaisesWhenItUnsubscribes(PigeonBackplane):
    async def unsubscribe(self, channels: Collection[str]) -> None:
        await self.answer()
        await super().unsubscribe(channels)


@breaks("a_dead_server", "a_server_that_hangs")
class PretendsThatItHasIt(PigeonBackplane):
    async def publish(self, records: Sequence[Record]) -> Sequence[Published]:
        await super().publish(records)
        return [None] * len(records)


@breaks("a_dead_server")
class ShowsErrorsOfOthers(PigeonBackplane):
    async def publish(self, records: Sequence[Record]) -> Sequence[Published]:
        results = await super().publish(records)
        return [result and ConnectionRefusedError(111, "refused") for result in results]


@breaks("a_server_that_hangs")
class WaitsForAnAnswer(PigeonBackplane):
    async def publish(self, records: Sequence[Record]) -> Sequence[Published]:
        if self.loft.is_up and not self.loft.answers.is_set():
            await asyncio.sleep(1.5)
        return await super().publish(records)


@breaks("an_outage_is_told", "lost_connections_are_told")
class TellsNoGap(PigeonBackplane):
    def connect(self) -> None:
        self.has_been_connected = False
        super().connect()


@breaks("an_outage_is_told")
class TellsNoHealth(PigeonBackplane):
    def disconnected(self) -> None:
        self.loft.connected.pop(self, None)


@breaks("outage_after_outage")
class SendsAgainAfterwards(PigeonBackplane):
    last: Record | None = None
    has_failed = False

    async def publish(self, records: Sequence[Record]) -> Sequence[Published]:
        results = await super().publish(records)
        if results[0] is not None:
            self.has_failed = True
        elif records[0].channels == ("room:lobby",):
            if self.has_failed and self.last is not None:
                self.deliver(self.last)
            self.last, self.has_failed = records[0], False
        return results


@breaks("callers_that_give_up")
class IsNotCancelled(PigeonBackplane):
    async def publish(self, records: Sequence[Record]) -> Sequence[Published]:
        end = time.monotonic() + 3
        while time.monotonic() < end and not self.loft.answers.is_set():
            try:
                await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                continue
        return await super().publish(records)


@breaks("callers_that_give_up")
class KeepsItsLock(PigeonBackplane):
    busy = False

    async def publish(self, records: Sequence[Record]) -> Sequence[Published]:
        if self.busy:
            return [BackplaneUnavailable("busy")] * len(records)
        self.busy = True
        results = await super().publish(records)
        self.busy = False
        return results
