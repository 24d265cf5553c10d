"""The exchange between a process and its backplane, and the backplane within one process."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any
from weakref import ref

import pytest

from flask_uwsgi_websocket.exceptions import BackplaneUnavailable
from flask_uwsgi_websocket.rooms import outbox, subscriptions
from flask_uwsgi_websocket.rooms.backplane import Backplane, BackplaneOptions, Inbox
from flask_uwsgi_websocket.rooms.backplanes import make_backplane
from flask_uwsgi_websocket.rooms.channels import ALL
from flask_uwsgi_websocket.rooms.exchange import Exchange, worker_name
from flask_uwsgi_websocket.rooms.record import Kind, Record
from tests.server import PATIENCE


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def make(loop: asyncio.AbstractEventLoop) -> Iterator[Callable[..., Exchange]]:
    """Make exchanges of one memory backplane."""
    made: list[Exchange] = []
    url = f"memory://{uuid.uuid4()}"

    def make(*arguments: Any, url: str = url, prefix: str = "p", **more: Any) -> Exchange:
        options = BackplaneOptions(prefix, worker_name(), **more)
        made.append(Exchange(url, options, lambda: loop, *arguments))
        return made[-1]

    yield make
    for exchange in made:
        asyncio.run_coroutine_threadsafe(exchange.stop(), loop).result(PATIENCE)


@pytest.fixture
def run(loop: asyncio.AbstractEventLoop) -> Callable[..., Any]:
    return lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(PATIENCE)


def message(*channels: str, data: bytes = b"hi", **fields: Any) -> Record:
    return Record(Kind.MESSAGE, channels, data, **fields)


def wait_for(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def subscribe(exchange: Exchange, channel: str) -> None:
    future = exchange.subscribe(channel)
    if future is not None:
        future.result(PATIENCE)


class Faulty(Backplane):
    """A backplane that a test has fail."""

    def __init__(self, url: str, options: BackplaneOptions) -> None:
        super().__init__(url, options)
        self.calls: list[tuple[str, Any]] = []
        self.failure: BaseException | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def start(self, inbox: Inbox) -> None:
        self.inbox = inbox
        await self._do("start", None)

    async def stop(self) -> None:
        self.calls.append(("stop", None))

    async def subscribe(self, channels: Collection[str]) -> None:
        await self._do("subscribe", sorted(channels))

    async def unsubscribe(self, channels: Collection[str]) -> None:
        await self._do("unsubscribe", sorted(channels))

    async def publish(self, records: Sequence[Record]) -> Sequence[BaseException | None]:
        await self._do("publish", [record.data for record in records])
        return [None] * len(records)

    async def workers(self) -> int | None:
        return None

    async def _do(self, name: str, value: Any) -> None:
        self.calls.append((name, value))
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def faulty(
    request: pytest.FixtureRequest,
    make: Callable[..., Exchange],
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[Exchange, Faulty]:
    """An exchange, and its backplane that may be held up; the parameter is the timeout."""
    made: list[Faulty] = []

    def instead(url: str, options: BackplaneOptions) -> Backplane:
        made.append(Faulty(url, options))
        return made[-1]

    monkeypatch.setattr("flask_uwsgi_websocket.rooms.exchange.make_backplane", instead)
    return make(timeout=getattr(request, "param", 0.1)), made[0]


def test_a_record_reaches_all_that_are_subscribed_the_publisher_too(
    make: Callable[..., Exchange],
) -> None:
    heard: list[list[Record]] = [[], [], []]
    exchanges = [make(each.append) for each in heard]
    for exchange in exchanges[:2]:
        subscribe(exchange, "room:a")
    exchanges[0].send(message("room:a")).result(PATIENCE)
    assert [len(each) for each in heard] == [1, 1, 0]
    assert heard[0][0].origin == exchanges[0].origin
    assert heard[0][0].number == 1


def test_those_with_other_prefixes_or_urls_never_hear_it(make: Callable[..., Exchange]) -> None:
    heard: list[Record] = []
    for other in (make(heard.append, prefix="q"), make(heard.append, url="memory://other")):
        subscribe(other, "room:a")
    make().send(message("room:a")).result(PATIENCE)
    assert not heard


def test_order_is_kept_among_send_and_send_nowait(make: Callable[..., Exchange]) -> None:
    heard: list[Record] = []
    exchange = make(heard.append)
    subscribe(exchange, "room:a")
    for number in range(300):
        if number % 7:
            exchange.send_nowait(message("room:a", data=b"%d" % number))
        else:
            future = exchange.send(message("room:a", data=b"%d" % number))
    future.result(PATIENCE)
    exchange.send(message("room:a", data=b"last")).result(PATIENCE)
    assert [record.data for record in heard] == [b"%d" % n for n in range(300)] + [b"last"]


def test_a_record_of_several_channels_comes_once(make: Callable[..., Exchange]) -> None:
    heard: list[Record] = []
    exchange = make(heard.append)
    for _ in range(2):  # as by a backplane that sends it once for each channel
        exchange.record(message("room:a", "room:b", origin=b"12345678", number=3))
    exchange.record(message("room:a", "room:b", origin=b"12345678", number=4))
    assert [record.number for record in heard] == [3, 4]


def test_what_was_served_already_is_for_others_only(make: Callable[..., Exchange]) -> None:
    heard: list[list[Record]] = [[], []]
    ours, other = (make(each.append) for each in heard)
    for exchange in (ours, other):
        subscribe(exchange, ALL)
    ours.send(message(ALL, served=True)).result(PATIENCE)
    assert [len(each) for each in heard] == [0, 1]


def test_channels_are_counted_and_kept_for_a_moment(
    faulty: tuple[Exchange, Faulty], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "KEEP_TIME", 0.1)
    exchange, backplane = faulty
    subscribe(exchange, "room:a")
    assert exchange.subscribe("room:a") is None  # in force: no waiting
    exchange.unsubscribe("room:a")
    exchange.unsubscribe("room:a")
    assert exchange.subscribe("room:a") is None
    time.sleep(0.3)
    assert [name for name, _ in backplane.calls] == ["start", "subscribe"]
    exchange.unsubscribe("room:a")
    wait_for(lambda: backplane.calls[-1] == ("unsubscribe", ["room:a"]))
    assert len(exchange._subscriptions) == 0


def test_many_channels_go_together(faulty: tuple[Exchange, Faulty]) -> None:
    exchange, backplane = faulty
    backplane.gate.clear()
    first = exchange.subscribe("room:first")
    wait_for(lambda: backplane.calls)
    futures = [exchange.subscribe(f"room:{number}") for number in range(10)]
    exchange._loop.call_soon_threadsafe(backplane.gate.set)  # type: ignore[union-attr]
    for future in [first, *futures]:
        assert future is not None
        future.result(PATIENCE)
    assert len([1 for name, _ in backplane.calls if name == "subscribe"]) <= 2


def test_a_channel_that_nobody_wants_before_it_is_subscribed_to_stops_nothing(
    faulty: tuple[Exchange, Faulty], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "KEEP_TIME", 0.0)
    monkeypatch.setattr("flask_uwsgi_websocket.rooms.exchange._PATIENCE", 30.0)
    exchange, backplane = faulty
    backplane.gate.clear()
    first = exchange.subscribe("room:first")
    wait_for(lambda: backplane.calls)  # and is taking long
    leaving = exchange.subscribe("room:left")
    exchange.unsubscribe("room:left")
    sent = exchange.send(message("room:a"))
    exchange._loop.call_soon_threadsafe(backplane.gate.set)  # type: ignore[union-attr]
    for future in (first, leaving, sent):
        assert future is not None
        future.result(PATIENCE)


def test_one_timer_is_enough_for_all_channels_that_are_kept(
    faulty: tuple[Exchange, Faulty], run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "KEEP_TIME", 3600.0)
    exchange, _ = faulty
    for number in range(20):
        subscribe(exchange, f"room:{number}")
        exchange.unsubscribe(f"room:{number}")

    async def timers() -> int:
        waiting = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
        return len([timer for timer in waiting if not timer.cancelled()])

    wait_for(lambda: run(timers()))
    assert run(timers()) == 1


def test_a_subscription_that_failed_is_tried_again_by_the_next(
    faulty: tuple[Exchange, Faulty],
) -> None:
    exchange, backplane = faulty
    backplane.failure = OSError("no route")
    with pytest.raises(BackplaneUnavailable, match="no route"):
        subscribe(exchange, "room:a")
    backplane.failure = None
    subscribe(exchange, "room:a")
    assert exchange.subscribe("room:a") is None
    backplane.inbox.health("away")  # what was in force may not be so any more
    subscribe(exchange, "room:a")
    assert [name for name, _ in backplane.calls].count("subscribe") == 2  # beside the start


def test_send_tells_why_it_failed(faulty: tuple[Exchange, Faulty]) -> None:
    exchange, backplane = faulty
    backplane.failure = OSError("connection refused")
    with pytest.raises(BackplaneUnavailable, match="connection refused"):
        exchange.send(message("room:a")).result(PATIENCE)
    backplane.failure = None
    exchange.send(message("room:a")).result(PATIENCE)
    assert exchange.metrics.backplane.failed == 1
    assert exchange.metrics.of("room:a").published == 1


def test_what_the_backplane_has_yet_to_take_is_pending(faulty: tuple[Exchange, Faulty]) -> None:
    exchange, backplane = faulty
    backplane.gate.clear()
    sent = [exchange.send(message("room:a", data=bytes(10_000)))]
    wait_for(lambda: backplane.calls)  # the first is under way, the others wait
    sent += [exchange.send(message("room:a", data=bytes(10_000))) for _ in range(2)]
    assert 30_000 < exchange.pending_bytes < 40_000
    exchange._loop.call_soon_threadsafe(backplane.gate.set)  # type: ignore[union-attr]
    for future in sent:
        future.result(PATIENCE)
    wait_for(lambda: not exchange.pending_bytes)
    assert exchange.metrics.of("room:a").published == 3


def test_a_backplane_that_tells_of_too_few_records_is_told_of(
    faulty: tuple[Exchange, Faulty], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def publish(records: Sequence[Record]) -> Sequence[BaseException | None]:
        return []

    exchange, backplane = faulty
    monkeypatch.setattr(backplane, "publish", publish)
    with pytest.raises(BackplaneUnavailable, match="of 1 records it told about 0"):
        exchange.send(message("room:a")).result(PATIENCE)


def test_a_backplane_that_hangs_is_unavailable(
    faulty: tuple[Exchange, Faulty], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_uwsgi_websocket.rooms.exchange._PATIENCE", 0.0)
    exchange, backplane = faulty
    backplane.gate.clear()
    for _ in range(2):
        with pytest.raises(BackplaneUnavailable, match="in time"):
            exchange.send(message("room:a")).result(PATIENCE)
    with pytest.raises(BackplaneUnavailable, match="in time"):
        subscribe(exchange, "room:a")


@pytest.mark.parametrize("faulty", [PATIENCE], indirect=True)
def test_what_is_too_much_is_refused_dropped_counted_and_logged_once(
    faulty: tuple[Exchange, Faulty],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(outbox, "MAX_WAITING", 10_000)
    exchange, backplane = faulty
    backplane.gate.clear()
    for _ in range(200):
        exchange.send_nowait(message("room:a", data=bytes(1000)))

    def is_refused() -> bool:
        try:
            exchange.send(message("room:a", data=bytes(1000))).result(0)
        except BackplaneUnavailable as error:
            return "wait for the backplane already" in str(error)
        except FutureTimeout:  # the loop had just taken what waited
            return False
        raise AssertionError("the backplane has taken it")

    wait_for(is_refused)
    assert exchange.metrics.backplane.overflowed > 150
    assert len([1 for record in caplog.records if "are dropped" in record.message]) == 1
    exchange._loop.call_soon_threadsafe(backplane.gate.set)  # type: ignore[union-attr]


@pytest.mark.parametrize("faulty", [PATIENCE], indirect=True)
def test_names_of_many_rooms_count_as_what_they_take(
    faulty: tuple[Exchange, Faulty], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_WAITING", 100_000)
    exchange, backplane = faulty
    backplane.gate.clear()
    for turn in range(20):
        rooms = [f"room:{turn} {number}" for number in range(100)]
        exchange.send_nowait(message(*rooms, exclude=tuple(rooms)))
    assert exchange.metrics.backplane.overflowed >= 10
    exchange._loop.call_soon_threadsafe(backplane.gate.set)  # type: ignore[union-attr]


def test_gaps_and_health_are_counted_and_logged(
    make: Callable[..., Exchange], caplog: pytest.LogCaptureFixture
) -> None:
    exchange = make()
    for _ in range(3):
        exchange.gap(lost=2)
    assert exchange.metrics.backplane.gaps == 3
    assert exchange.metrics.backplane.lost == 6
    for _ in range(3):
        exchange.health("refused")
    assert exchange.error == "refused"
    assert exchange.metrics.backplane.reconnects == 0
    for _ in range(3):
        exchange.health(None)
    assert exchange.error is None
    assert exchange.metrics.backplane.reconnects == 1
    # At the level that shows where nobody has configured logging: the end of it, too.
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "messages to rooms may be missing: the backplane (memory) was away, or too slow",
        "the backplane (memory) is not available: refused",
        "the backplane (memory) is back",
    ]


def test_all_workers_are_asked(make: Callable[..., Exchange], run: Callable[..., Any]) -> None:
    workers = [
        make(lambda record: None, lambda question, n=number: [question["room"], n])
        for number in range(3)
    ]
    publisher = make()
    assert run(publisher.ask({"room": "a"})) == ([], True)  # there is nobody
    for worker in workers:
        subscribe(worker, ALL)
    for asker in (publisher, workers[0]):
        answers, complete = run(asker.ask({"room": "a"}))
        assert sorted(answers) == [["a", 0], ["a", 1], ["a", 2]]
        assert complete
    subscribe(publisher, ALL)  # it is one more now, and has no answer
    began = time.monotonic()
    answers, complete = run(publisher.ask({"room": "a"}))
    assert len(answers) == 3
    assert not complete
    assert 0.5 < time.monotonic() - began < PATIENCE


def test_a_large_answer_comes_in_parts(
    make: Callable[..., Exchange], run: Callable[..., Any]
) -> None:
    """None of them is above what the backplane takes."""
    rooms = {f"room {number}": [1, ["user"]] for number in range(5000)}
    heard = []

    def answer(question: Any) -> Any:
        return rooms

    worker = make(lambda record: None, answer, max_size=50_000)
    asker = make()
    subscribe(worker, ALL)
    put = worker._outbox.put
    worker._outbox.put = lambda record, future=None: heard.append(record) or put(record, future)  # type: ignore[method-assign,func-returns-value]
    answers, complete = run(asker.ask({}))
    assert complete
    assert len(answers) > 1
    assert max(len(record.encode()) for record in heard) < worker.options.max_size
    assert {name: count for part in answers for name, count in part.items()} == rooms


def test_a_broken_receiver_does_not_end_it(
    make: Callable[..., Exchange], caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Record] = []

    def receive(record: Record) -> None:
        if record.data == b"bad":
            raise ZeroDivisionError
        heard.append(record)

    exchange = make(receive)
    subscribe(exchange, "room:a")
    exchange.send(message("room:a", data=b"bad")).result(PATIENCE)
    exchange.send(message("room:a")).result(PATIENCE)
    assert len(heard) == 1
    assert "could not be handled" in caplog.text


def test_nothing_keeps_an_exchange_that_nobody_uses(make: Callable[..., Exchange]) -> None:
    loop = asyncio.new_event_loop()
    options = BackplaneOptions("p", worker_name())
    exchange = Exchange("memory://alone", options, lambda: loop)
    future = exchange.send(message("room:a"))
    loop.run_until_complete(asyncio.wrap_future(future, loop=loop))
    gone = ref(exchange)
    del exchange
    loop.run_until_complete(asyncio.sleep(0))
    gc.collect()
    assert gone() is None
    loop.close()


def test_urls() -> None:
    options = BackplaneOptions("p", worker_name())
    for url, words in {
        "nonsense": "no URL of a backplane: one begins with memory://",
        "carrier-pigeon://x": "no backplane for carrier-pigeon://, only for memory://",
    }.items():
        with pytest.raises(ValueError, match=words):
            make_backplane(url, options)
    assert make_backplane("MEMORY://x", options).url == "MEMORY://x"


def test_an_answer_may_take_its_time(
    make: Callable[..., Exchange], run: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(question: Any) -> Any:
        await asyncio.sleep(0.01)
        return question["n"] / question["by"]

    workers = [make(lambda record: None, answer) for _ in range(2)]
    for worker in workers:
        subscribe(worker, ALL)
    assert run(workers[0].ask({"n": 6, "by": 2})) == ([3.0, 3.0], True)
    assert run(workers[0].ask({"n": 6, "by": 0})) == ([], False)
    assert "ZeroDivisionError" in caplog.text
    assert run(workers[0].ask({"n": 6, "by": 3})) == ([2.0, 2.0], True)


def test_an_answer_that_has_not_begun_when_all_ends(
    make: Callable[..., Exchange], run: Callable[..., Any]
) -> None:
    """It is dropped, and Python does not warn of it."""
    begun: list[Any] = []

    async def answer(question: Any) -> Any:
        begun.append(question)

    worker = make(lambda record: None, answer)
    subscribe(worker, ALL)

    async def ask_and_end() -> None:
        worker.record(Record(Kind.ASK, (ALL,), b'{"number": 1, "question": {}}'))
        await worker.stop()

    run(ask_and_end())
    gc.collect()
    assert begun == []
