"""The reader of a log: whatever becomes of the hints, it passes on each message once, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from flask_uwsgi_websocket.rooms.backplane import Log
from flask_uwsgi_websocket.rooms.positions import Position
from flask_uwsgi_websocket.rooms.reader import AHEAD, Passed, Reader, Resync
from flask_uwsgi_websocket.rooms.record import KeptRecord, Kind


def entry(epoch: str, offset: int) -> KeptRecord:
    return KeptRecord(
        Kind.MESSAGE, ("room:a",), f"{epoch}{offset}".encode(), position=Position(epoch, offset)
    )


class Follower:
    """A reader, and what it has passed on."""

    def __init__(self, position: Position) -> None:
        self.begin = position
        self.reader = Reader(position)
        self.passed: list[Passed] = []

    def hear(self, record: KeptRecord) -> None:
        self.passed += self.reader.hear(record)

    def take(self, log: Log, asked: Position) -> None:
        self.passed += self.reader.take(log, asked)

    @property
    def offsets(self) -> list[int]:
        assert not [each for each in self.passed if isinstance(each, Resync)]
        return [
            each.position.offset
            for each in self.passed
            if isinstance(each, KeptRecord) and each.position
        ]

    @property
    def resyncs(self) -> list[Position]:
        return [each.position for each in self.passed if isinstance(each, Resync)]


def log(epoch: str, top: int, offsets: Iterable[int] = ()) -> Log:
    return Log(epoch, top, tuple(entry(epoch, offset) for offset in offsets))


def test_what_comes_in_order_is_passed_on_at_once() -> None:
    one = Follower(Position("a", 3))
    for offset in (4, 5, 6):
        one.hear(entry("a", offset))
        assert not one.reader.is_behind
    assert one.offsets == [4, 5, 6]


def test_doubles_are_not() -> None:
    one = Follower(Position("a", 3))
    for offset in (1, 3, 4, 4, 3, 5, 4):
        one.hear(entry("a", offset))
    assert one.offsets == [4, 5]
    assert not one.reader.is_behind


def test_what_comes_too_early_waits() -> None:
    one = Follower(Position("a", 0))
    one.hear(entry("a", 2))
    one.hear(entry("a", 3))
    assert one.reader.is_behind
    assert one.offsets == []
    one.hear(entry("a", 1))
    assert one.offsets == [1, 2, 3]
    assert not one.reader.is_behind


def test_what_is_missing_is_read() -> None:
    one = Follower(Position("a", 0))
    one.hear(entry("a", 3))
    asked = one.reader.start_reading()
    assert asked == Position("a", 0)
    one.hear(entry("a", 4))
    one.hear(entry("a", 6))
    one.take(log("a", 3, (1, 2, 3)), asked)
    assert one.offsets == [1, 2, 3, 4]
    assert one.reader.is_behind
    one.take(log("a", 6, (5, 6)), one.reader.start_reading())
    assert one.offsets == [1, 2, 3, 4, 5, 6]
    assert not one.reader.is_behind


def test_what_is_read_in_parts_is_read_on() -> None:
    one = Follower(Position("a", 0))
    one.reader.doubt()
    one.take(log("a", 5, (1, 2)), one.reader.start_reading())
    assert one.reader.is_behind
    one.take(log("a", 5, (3, 4, 5)), one.reader.start_reading())
    assert one.offsets == [1, 2, 3, 4, 5]
    assert not one.reader.is_behind


def test_many_that_come_too_early_are_read() -> None:
    one = Follower(Position("a", 0))
    for offset in range(2, 2 * AHEAD):
        one.hear(entry("a", offset))
    one.hear(entry("a", 1))
    assert one.offsets == list(range(1, AHEAD + 2))
    assert one.reader.is_behind


def test_what_was_trimmed_is_told() -> None:
    one = Follower(Position("a", 2))
    one.hear(entry("a", 9))
    asked = one.reader.start_reading()
    one.hear(entry("a", 10))
    one.take(log("a", 9, (7, 8, 9)), asked)
    assert one.passed == [Resync(Position("a", 6)), *[entry("a", n) for n in (7, 8, 9, 10)]]
    one.hear(entry("a", 12))
    one.take(log("a", 12), one.reader.start_reading())
    assert one.resyncs == [Position("a", 6), Position("a", 12)]
    assert not one.reader.is_behind


def test_a_hole_in_the_log_is_told() -> None:
    """No log should have one; but who waits for what is not there waits for ever."""
    one = Follower(Position("a", 0))
    one.hear(entry("a", 5))
    one.take(log("a", 5, (1, 3, 5)), one.reader.start_reading())
    assert one.passed == [
        entry("a", 1),
        Resync(Position("a", 2)),
        entry("a", 3),
        Resync(Position("a", 4)),
        entry("a", 5),
    ]
    assert not one.reader.is_behind


def test_another_epoch_is_told_and_read_from_its_beginning() -> None:
    one = Follower(Position("a", 2))
    one.hear(entry("b", 2))
    assert one.reader.is_behind
    one.take(log("b", 2), one.reader.start_reading())
    assert one.passed == [Resync(Position("b", 0))]
    assert one.reader.is_behind
    one.take(log("b", 2, (1, 2)), one.reader.start_reading())
    assert one.passed[1:] == [entry("b", 1), entry("b", 2)]
    one.hear(entry("a", 3))  # late
    one.take(log("b", 2), one.reader.start_reading())
    assert len(one.passed) == 3
    assert not one.reader.is_behind


def test_an_end_that_is_lost_is_told() -> None:
    one = Follower(Position("a", 10))
    one.reader.doubt()
    asked = one.reader.start_reading()
    one.hear(entry("a", 9))  # of the server that has taken over; it looks like a double
    one.take(log("a", 8), asked)
    assert one.resyncs == [Position("a", 8)]
    one.take(log("a", 9, (9,)), one.reader.start_reading())
    assert one.passed[1:] == [entry("a", 9)]


def test_a_hint_of_what_is_lost_is_not_waited_for() -> None:
    one = Follower(Position("a", 7))
    one.hear(entry("a", 10))
    one.take(log("a", 8, (8,)), one.reader.start_reading())
    assert one.offsets == [8]
    assert not one.reader.is_behind


def test_of_two_readings_the_older_one_changes_nothing() -> None:
    one = Follower(Position("a", 5))
    first, second = one.reader.start_reading(), one.reader.start_reading()
    one.take(log("b", 3), second)
    one.take(log("a", 6, (6,)), first)
    assert one.passed == [Resync(Position("b", 0))]
    assert one.reader.is_behind


@dataclass
class World:
    """A log, what of it is on its way to followers, and what they have asked for.

    Each action takes a number, of what is drawn.
    """

    count: int = 10_000
    epoch: int = 0
    top: int = 0
    history: list[list[int]] = field(default_factory=lambda: [[]])
    hints: list[KeptRecord] = field(default_factory=list)
    followers: list[Follower] = field(default_factory=list)
    readings: list[tuple[Follower, Position, Log]] = field(default_factory=list)

    def name(self) -> str:
        return f"e{self.epoch}"

    def start(self, followers: int) -> None:
        self.followers = [Follower(Position(self.name(), 0)) for _ in range(followers)]
        self.inboxes: list[list[KeptRecord]] = [[] for _ in self.followers]

    def append(self, number: int) -> None:
        self.top += 1
        for inbox in self.inboxes:
            inbox.append(entry(self.name(), self.top))

    def append_unheard(self, number: int) -> None:
        self.top += 1

    def forget(self, number: int) -> None:
        self.epoch += 1
        self.top = 0

    def hear(self, number: int) -> None:
        inbox = self.inboxes[number % len(self.inboxes)]
        if inbox:
            self.followers[number % len(self.inboxes)].hear(inbox.pop(number % len(inbox)))

    def hear_next(self, number: int) -> None:
        inbox = self.inboxes[number % len(self.inboxes)]
        if inbox:
            self.followers[number % len(self.inboxes)].hear(inbox.pop(0))

    def double(self, number: int) -> None:
        inbox = self.inboxes[number % len(self.inboxes)]
        if inbox:
            inbox.append(inbox[number % len(inbox)])

    def drop(self, number: int) -> None:
        inbox = self.inboxes[number % len(self.inboxes)]
        if inbox:
            inbox.pop(number % len(inbox))

    def read(self, number: int) -> None:
        """Begin to read, if that is wanted; the answer comes later."""
        follower = self.followers[number % len(self.followers)]
        if follower.reader.is_behind:
            asked = follower.reader.start_reading()
            self.readings.append((follower, asked, self.log(asked, 1 + number % 5)))

    def log(self, asked: Position, limit: int) -> Log:
        first = max(asked.offset, self.top - self.count) + 1
        return log(self.name(), self.top, range(first, self.top + 1)[:limit])

    def answer(self, number: int) -> None:
        if self.readings:
            follower, asked, answer = self.readings.pop(number % len(self.readings))
            follower.take(answer, asked)

    def settle(self) -> None:
        """Have all that is on its way come, and followers read until they are not behind."""
        while self.readings:
            self.answer(0)
        for follower, inbox in zip(self.followers, self.inboxes, strict=True):
            for hint in inbox:
                follower.hear(hint)
            follower.reader.doubt()
            for _ in range(200):
                if not follower.reader.is_behind:
                    break
                asked = follower.reader.start_reading()
                follower.take(self.log(asked, 50), asked)
            assert not follower.reader.is_behind


GENTLE = ["append", "append_unheard", "hear", "hear_next", "double", "drop", "read", "answer"]


def acts(*names: str) -> st.SearchStrategy[list[tuple[str, int]]]:
    return st.lists(st.tuples(st.sampled_from(names), st.integers(0, 1 << 16)), max_size=200)


def play(world: World, actions: list[tuple[str, int]]) -> None:
    world.start(2)
    for name, number in actions:
        act: Callable[[int], None] = getattr(world, name)
        act(number)
    world.settle()


@settings(max_examples=300, deadline=None)
@given(acts(*GENTLE))
def test_each_message_is_passed_on_once_and_in_order(actions: list[tuple[str, int]]) -> None:
    world = World()
    play(world, actions)
    for follower in world.followers:
        assert follower.offsets == list(range(1, world.top + 1))


@settings(max_examples=300, deadline=None)
@given(acts(*GENTLE, "forget"), st.integers(1, 10))
def test_what_is_missing_is_told_always(actions: list[tuple[str, int]], count: int) -> None:
    world = World(count)
    play(world, actions)
    for follower in world.followers:
        position = follower.begin
        for each in follower.passed:
            if isinstance(each, Resync):
                assert (
                    each.position.epoch != position.epoch or each.position.offset > position.offset
                )
                position = each.position
            else:
                assert each.position == Position(position.epoch, position.offset + 1)
                assert each == entry(*each.position)
                position = each.position
        assert position == Position(world.name(), world.top)
