"""Records that come for a worker go to the clients in their channels, in order, once."""

from __future__ import annotations

import select
import socket
import threading
import time
from _socket import socket as Socket
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from flask_uwsgi_websocket.codec import (
    CLIENT,
    SERVER,
    Close,
    Deflate,
    DeflateSettings,
    Event,
    Frames,
    Protocol,
)
from flask_uwsgi_websocket.codec.frames import BINARY
from flask_uwsgi_websocket.connection import fast_io
from flask_uwsgi_websocket.connection.base import Limits
from flask_uwsgi_websocket.connection.connection import Connection
from flask_uwsgi_websocket.engines.threads import ThreadsEngine
from flask_uwsgi_websocket.engines.threads_worker import ThreadsWorker
from flask_uwsgi_websocket.exceptions import TooManyRooms
from flask_uwsgi_websocket.rooms import delivery as module
from flask_uwsgi_websocket.rooms import fan_out
from flask_uwsgi_websocket.rooms.channels import ALL
from flask_uwsgi_websocket.rooms.delivery import Delivery
from flask_uwsgi_websocket.rooms.metrics import RoomsMetrics
from flask_uwsgi_websocket.rooms.options import RoomPatterns
from flask_uwsgi_websocket.rooms.positions import Position
from flask_uwsgi_websocket.rooms.record import KeptRecord, Kind, Record
from flask_uwsgi_websocket.rooms.replay import Entry
from flask_uwsgi_websocket.rooms.slow import Backlog
from flask_uwsgi_websocket.servers.sockets import PlainProcess
from tests.server import eventually

#: Bytes in a message that is not compressed, and in one that is.
SHORT, LONG = "", " and more" * 20


class Peer:
    """The client's end of a connection, with the rooms that the connection is in."""

    def __init__(self, engine: ThreadsEngine, *channels: str, **options: Any) -> None:
        ours, self.socket = socket.socketpair()
        self.channels = {*channels, ALL}
        deflate = Deflate(settings=DeflateSettings()) if options.pop("compress", False) else None
        self.protocol = Protocol(
            CLIENT, max_message_size=1 << 24, deflate=Deflate() if deflate else None
        )
        limits = options.pop("limits", Limits())
        server = Protocol(SERVER, deflate=deflate)
        self.connection: Connection = engine.open(Socket(fileno=ours.detach()), server, limits)
        self.connection.client = SimpleNamespace(_bytes_are_text=False, **options)
        self.events: list[Event] = []

    def read(self) -> bool:
        """Read what is there; whether that was anything."""
        if not select.select([self.socket], [], [], 0)[0]:
            return False
        self.events += self.protocol.receive_data(self.socket.recv(1 << 20))
        return True

    def receive(self, count: int) -> list[Event]:
        """The next messages, so many, after which nothing more comes."""
        eventually(lambda: len(self.events) >= count or self.read() is None, f"{count} messages")
        assert not self.read()
        events, self.events = self.events, []
        return events

    def close(self) -> None:
        self.connection.release()
        self.socket.close()


class Channels:
    """Who is in which channel, as Delivery asks."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.refused = 0

    def members(self, channel: str) -> list[Connection]:
        return [peer.connection for peer in self.peers if channel in peer.channels]

    def _peer(self, connection: Connection) -> Peer:
        return next(peer for peer in self.peers if peer.connection is connection)

    def let_join(self, connection: Connection, room: str) -> None:
        if connection.ended:
            raise connection.closed_error()
        if room == "full":
            self.refused += 1
            raise TooManyRooms("too many rooms")
        self._peer(connection).channels.add(f"room:{room}")

    def let_leave(self, connection: Connection, room: str) -> None:
        self._peer(connection).channels.discard(f"room:{room}")


class Scene:
    """A worker with its delivery, and some clients."""

    def __init__(self, engine: ThreadsEngine) -> None:
        self.engine = engine
        self.worker = engine.worker()
        assert isinstance(self.worker, ThreadsWorker)
        self.channels = Channels()
        self.patterns = RoomPatterns()
        self.figures = RoomsMetrics(self.patterns.pattern_of)
        self.delivery = Delivery(
            self.channels, self.channels, self.patterns, self.worker, self.figures
        )

    def peer(self, *channels: str, **options: Any) -> Peer:
        peer = Peer(self.engine, *channels, **options)
        self.channels.peers.append(peer)
        return peer

    def send(self, *channels: str, data: str | bytes, exclude: tuple[str, ...] = ()) -> None:
        text = isinstance(data, str)
        payload = data.encode() if isinstance(data, str) else data
        self.delivery.receive(Record(Kind.MESSAGE, channels, payload, text, exclude))

    def tell(self, kind: Kind, *channels: str, data: bytes, exclude: tuple[str, ...] = ()) -> None:
        self.delivery.receive(Record(kind, channels, data, exclude=exclude))

    def on_loop(self, work: Callable[[], object]) -> None:
        """Do something on the loop, so that what it brings about comes after it."""
        done = threading.Event()
        self.worker.call_soon(lambda: (work(), done.set()))
        assert done.wait(10)

    def settle(self) -> None:
        """Wait until all that was sent is delivered."""
        done = threading.Event()
        self.delivery.then(done.set)
        assert done.wait(10)

    @property
    def counters(self) -> dict[str, int]:
        """What there was any of, over all patterns."""
        snapshot = self.figures.snapshot()
        counted: Counter[str] = Counter(writes=snapshot["writes"])
        for each in snapshot["patterns"].values():
            counted.update({key: each[key] for key in ("delivered", "undelivered")})
            counted.update({f"slow_{key}": number for key, number in each["slow"].items()})
        return dict(+counted)


@pytest.fixture(scope="module")
def engine() -> ThreadsEngine:
    return ThreadsEngine(PlainProcess())


@pytest.fixture
def scene(engine: ThreadsEngine) -> Iterator[Scene]:
    scene = Scene(engine)
    yield scene
    for peer in scene.channels.peers:
        peer.close()


def test_each_client_in_any_of_the_channels_gets_it_once(scene: Scene) -> None:
    a, b, both, none = (
        *(scene.peer("room:a"), scene.peer("room:b")),
        *(scene.peer("room:a", "room:b", "user:1"), scene.peer()),
    )

    def send() -> None:
        scene.send("room:a", "room:b", "user:1", data="to all three")
        scene.send("room:a", data="to one")
        scene.send("room:nobody", data="to none")
        scene.send(ALL, data=b"to all")

    scene.on_loop(send)
    scene.settle()
    assert a.receive(3) == both.receive(3) == ["to all three", "to one", b"to all"]
    assert b.receive(2) == ["to all three", b"to all"]
    assert none.receive(1) == [b"to all"]
    assert scene.counters == {"delivered": 3 + 2 + 4, "writes": 4}


def test_excluded_clients(scene: Scene) -> None:
    a, b = scene.peer("room:a", id="1"), scene.peer("room:a", id="2")
    others = [scene.peer("room:a", id=None), scene.peer("room:a")]  # whose id nobody asked for
    released = scene.peer("room:a", id="3")
    released.connection.release()
    scene.send("room:a", data="0")
    scene.send("room:a", data="1", exclude=("1",))
    scene.send("room:a", data="2", exclude=("2", "5"))
    scene.send("room:a", data="3", exclude=("5", "2", "1"))
    scene.settle()
    assert a.receive(2) == ["0", "2"]
    assert b.receive(2) == ["0", "1"]
    assert others[0].receive(4) == others[1].receive(4) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("filler", [SHORT, LONG])
@pytest.mark.parametrize("send_to_idle", [fast_io.send_to_idle, fast_io.send_to_idle_in_python])
def test_bursts_keep_their_order_and_go_out_together(
    scene: Scene, filler: str, send_to_idle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fan_out, "send_to_idle", send_to_idle)
    plain, compressed = scene.peer("room:a"), scene.peer("room:a", "room:b", compress=True)
    texts = [f"{number}{filler}" for number in range(100)]

    def burst() -> None:
        for text in texts:
            scene.send("room:a", data=text)
        scene.send("room:b", "room:a", data="last")

    scene.on_loop(burst)
    scene.settle()
    assert plain.receive(101) == compressed.receive(101) == [*texts, "last"]
    assert scene.counters == {"delivered": 202, "writes": 2}


def test_who_is_in_many_rooms_gets_what_is_for_them_together(scene: Scene) -> None:
    rooms = [f"room:{number}" for number in range(10)]
    members = [
        scene.peer(*rooms[begin : begin + 5], compress=compress, id=f"{begin} {compress}")
        for begin in range(6)
        for compress in (False, True)
    ]
    numbers = [(7 * number) % 10 for number in range(200)]

    def burst() -> None:
        for count, number in enumerate(numbers):
            exclude = ("2 True",) if count % 2 else ()
            scene.send(rooms[number], data=f"{count}{LONG}", exclude=exclude)

    scene.on_loop(burst)
    scene.settle()
    for peer in members:
        id_ = peer.connection.client.id
        expected = [
            f"{count}{LONG}"
            for count, number in enumerate(numbers)
            if rooms[number] in peer.channels and not (id_ == "2 True" and count % 2)
        ]
        assert peer.receive(len(expected)) == expected
    assert scene.counters == {"delivered": 12 * 100 - 40, "writes": 12}


def test_what_is_shared_out_before_it_is_sent_is_limited(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHARED_OUT", 6)
    peers = [scene.peer("room:a", "room:b") for _ in range(2)]
    texts = [str(number) for number in range(20)]
    rooms = ["room:a", "room:b"] * 10
    scene.on_loop(
        lambda: [scene.send(room, data=text) for room, text in zip(rooms, texts, strict=True)]
    )
    scene.settle()
    assert peers[0].receive(20) == peers[1].receive(20) == texts
    assert scene.counters == {"delivered": 40, "writes": 2 * 7}


def test_what_is_joined_for_one_write_is_limited(scene: Scene) -> None:
    peer = scene.peer("room:a")
    texts = [f"{number}" + "x" * 40_000 for number in range(10)]
    scene.on_loop(lambda: [scene.send("room:a", data=text) for text in texts])
    assert peer.receive(10) == texts
    assert scene.counters == {"delivered": 10, "writes": 5}


def test_in_order_with_what_handlers_send(scene: Scene) -> None:
    peer = scene.peer("room:a", limits=Limits(send_queue_size=1 << 24))
    connection = peer.connection

    def post(text: str) -> None:
        connection.post(connection.protocol.text, text)

    sizes = [1, 100_000, 1]  # more than the socket takes, so that there is a queue
    for number, size in enumerate(sizes):
        scene.on_loop(
            lambda number=number, size=size: (
                post(f"{number} first"),
                scene.send("room:a", data=f"{number} room" + "x" * size),
                scene.delivery.then(lambda: post(f"{number} then")),
            )
        )
    got = [str(text).rstrip("x") for text in peer.receive(9)]
    assert got == [f"{number} {what}" for number in range(3) for what in ("first", "room", "then")]


def test_compressed_with_context_beside_one_s_own(scene: Scene) -> None:
    peers = [scene.peer("room:a", compress=True) for _ in range(3)]
    expected = []
    for number in range(300):
        text = f"{number}{LONG}"
        scene.send("room:a", data=text)
        if number % 3 == 0:
            scene.settle()
            for peer in peers[:2]:
                peer.connection.post(None, text)
            expected += [text, text]
        else:
            expected.append(text)
    scene.settle()
    in_order = [str(event) for event in peers[2].receive(300)]
    assert in_order == [f"{number}{LONG}" for number in range(300)]
    for peer in peers[:2]:
        assert sorted(map(str, peer.receive(400))) == sorted(expected)


def test_bytes_for_clients_for_which_they_are_text(scene: Scene) -> None:
    new, old = scene.peer("room:a"), scene.peer("room:a")
    old.connection.client._bytes_are_text = True
    scene.on_loop(
        lambda: [scene.send("room:a", data=data) for data in (b"caf\xc3\xa9", "text", b"\xff")]
    )
    assert new.receive(3) == [b"caf\xc3\xa9", "text", b"\xff"]
    assert old.receive(3) == ["caf\xe9", "text", b"\xff"]


def test_one_that_fails_disturbs_nobody(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    peers = [scene.peer("room:a") for _ in range(5)]
    vanished, closed, released, broken, alive = peers
    vanished.socket.close()
    closed.connection.start_closing(1000)
    released.connection.release()
    with broken.connection._lock:
        broken.connection._queue(b"")  # something is queued
    limits, broken.connection.limits = broken.connection.limits, None  # type: ignore[assignment]
    scene.send("room:a", data="1")
    scene.send("room:a", data="2")
    scene.settle()
    assert alive.receive(2) == ["1", "2"]
    assert closed.receive(1) == [Close(1000, "")]
    assert "messages to rooms go on after an error" in caplog.text
    broken.connection.limits = limits


def test_an_error_in_a_callback_is_logged(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    peer = scene.peer("room:a")
    scene.delivery.then(lambda: 1 / 0)
    scene.send("room:a", data="1")
    scene.settle()
    assert peer.receive(1) == ["1"]
    assert "messages to rooms go on after an error" in caplog.text


def test_clients_are_closed_by_records(scene: Scene) -> None:
    member, excluded, other = (scene.peer("room:a", id=id_) for id_ in "123")
    other.channels.discard("room:a")
    scene.send("room:a", data="last")
    scene.tell(Kind.CLOSE, "room:a", data=b"\x0f\xa1caf\xc3\xa9", exclude=("2",))
    scene.send("room:a", ALL, data="on")
    scene.settle()
    assert member.receive(2) == ["last", Close(4001, "caf\xe9")]
    assert member.connection.close_code == 4001
    assert excluded.receive(2) == ["last", "on"]
    assert other.receive(1) == ["on"]


@pytest.mark.parametrize(
    "data", [b"", b"\x03", b"\x03\xed", b"\x03\xe8\xff", b"\x03\xe8" + bytes(124)]
)
def test_a_wrong_close_closes_nobody(
    scene: Scene, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    peer = scene.peer("room:a")
    scene.tell(Kind.CLOSE, "room:a", data=data)
    scene.send("room:a", data="on")
    assert peer.receive(1) == ["on"]
    assert "go on after an error" in caplog.text


def test_records_that_go_wrong_do_not_fill_the_log(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    peers = [scene.peer("room:a") for _ in range(3)]
    for _ in range(50):
        scene.tell(Kind.CLOSE, "room:a", data=b"")
        scene.tell(Kind.JOIN, "room:a", data=b"full")
    scene.send("room:a", data="still here")
    assert [peer.receive(1) for peer in peers] == [["still here"]] * 3
    assert 0 < caplog.text.count("go on after an error") <= 5
    assert 0 < caplog.text.count("cannot join") <= 5


def test_clients_join_and_leave_by_records(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    first, second, third = (scene.peer("user:1", id=id_) for id_ in "123")
    third.channels.discard("user:1")
    gone = scene.peer("user:1")
    gone.connection.release()
    scene.tell(Kind.JOIN, "user:1", data=b"a", exclude=("2",))
    scene.send("room:a", data="1")
    scene.tell(Kind.JOIN, "user:1", data=b"a")
    scene.send("room:a", data="2")
    scene.tell(Kind.LEAVE, "room:a", data=b"a", exclude=("2",))
    scene.send("room:a", data="3")
    scene.tell(Kind.JOIN, "user:1", data=b"full")
    scene.send("user:1", data="on")
    scene.settle()
    assert first.receive(3) == ["1", "2", "on"]
    assert second.receive(3) == ["2", "3", "on"]
    assert not third.read()
    assert scene.channels.refused == 2
    assert "Traceback" not in caplog.text
    assert "a client cannot join 'full': too many rooms" in caplog.text


def test_a_flood_leaves_the_loop_to_others(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN_TIME", 0)
    monkeypatch.setattr(module, "SHARED_OUT", 1)
    peers = [scene.peer("room:a") for _ in range(3)]
    turns = []

    def turn() -> None:
        turns.append(scene.counters.get("writes", 0))
        if turns[-1] < 30:
            scene.worker.call_soon(turn)

    def flood() -> None:
        for number in range(10):
            scene.send("room:a", data=f"{number}")
            scene.send("room:a", ALL, data=f"{number}")
        scene.worker.call_soon(turn)

    scene.on_loop(flood)
    scene.settle()
    for peer in peers:
        assert peer.receive(20) == [f"{number}" for number in range(10) for _ in range(2)]
    assert len(set(turns)) > 5, turns


@pytest.fixture
def rests(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """What has the delivery of a scene go on after its rest, which ends when a test calls it."""
    waiting: list[Callable[[], object]] = []
    call_later = scene.worker.call_later

    def wait(delay: float, callback: Callable[[], object]) -> None:
        if callback == scene.delivery._deliver_for_a_while:
            waiting.append(callback)
        else:
            call_later(delay, callback)

    monkeypatch.setattr(scene.worker, "call_later", wait)
    scene.delivery._rests_until = time.monotonic() + 60
    return waiting


def test_messages_are_gathered_while_delivery_rests(
    scene: Scene, rests: list[Callable[[], object]]
) -> None:
    peer = scene.peer("room:a")
    for number in range(3):
        scene.send("room:a", data=f"{number}")
        scene.on_loop(lambda: None)  # in a turn of its own
    assert not scene.counters
    (go_on,) = rests
    scene.on_loop(go_on)
    assert peer.receive(3) == ["0", "1", "2"]
    assert scene.counters == {"delivered": 3, "writes": 1}


def test_a_single_publisher_that_waits_does_not_wait_for_a_rest(
    scene: Scene, rests: list[Callable[[], object]]
) -> None:
    peer = scene.peer("room:a")
    scene.send("room:a", data="alone")
    scene.settle()
    assert peer.receive(1) == ["alone"]
    scene.on_loop(rests.pop())  # too late, which does no harm
    assert scene.counters == {"delivered": 1, "writes": 1}


def test_a_rest_is_as_long_as_the_turn_before(scene: Scene) -> None:
    begin = time.monotonic()
    scene.delivery.then(lambda: time.sleep(0.002))
    scene.on_loop(lambda: None)
    assert scene.delivery._rests_until >= begin + 0.004


def test_what_waits_for_the_loop_is_limited(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 100_000)
    peer = scene.peer("room:a")
    texts = [f"{number}" + "x" * 1000 for number in range(200)]
    scene.on_loop(lambda: [scene.send("room:a", data=text) for text in texts])
    scene.settle()
    kept = len(texts) - scene.counters["undelivered"]
    assert 60 < kept < 100
    assert peer.receive(kept) == texts[:kept]
    assert caplog.text.count("the worker is too busy to send messages to rooms: 1 were") == 1
    scene.send("room:a", data="again")
    assert peer.receive(1) == ["again"]


def test_what_must_be_taken_is(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A room's log is read on as far as there is place, which may end in the midst of it."""
    monkeypatch.setattr(module, "MAX_WAITING", 100_000)
    peer = scene.peer("room:a")
    texts = [f"{number}" + "x" * 1000 for number in range(200)]
    records = [Record(Kind.MESSAGE, ("room:a",), text.encode(), True) for text in texts]
    scene.on_loop(lambda: [scene.delivery.receive(record, must=True) for record in records])
    scene.settle()
    assert peer.receive(len(texts)) == texts


# Clients that read too slowly

QUEUE = 20_000
BIG = "x" * 4000


@pytest.fixture
def room(scene: Scene) -> Callable[[str], tuple[Peer, Peer]]:
    """Makes one that reads and one that does not, in a room of the same name as its option."""

    def make(slow: str) -> tuple[Peer, Peer]:
        scene.patterns.add(f"{slow}*", slow=slow)
        limits = Limits(send_queue_size=QUEUE, send_buffer=1)  # the least that there is
        channels = f"room:{slow}", f"room:{slow}/2"
        return scene.peer(*channels), scene.peer(*channels, limits=limits)

    return make


def numbers(events: list[Event]) -> list[int]:
    return [int(str(event).partition("x")[0]) for event in events]


def flood(scene: Scene, reader: Peer, count: int, *rooms: str) -> None:
    """Send numbered messages to the rooms in turn; one reads them meanwhile."""
    for number in range(count):
        scene.send(rooms[number % len(rooms)], data=f"{number}{BIG}")
        scene.settle()
        reader.read()
    assert numbers(reader.receive(count)) == list(range(count))


def read_on(scene: Scene, deaf: Peer, last: int) -> list[int]:
    """Read again, up to a last message that is sent now; all the numbers that came."""

    def over() -> bool:
        while deaf.read():
            pass
        return bool(deaf.events) and numbers(deaf.events[-1:]) == [last]

    eventually(over, "the last message")
    return numbers(deaf.events)


def test_who_has_more_replayed_than_is_queued_gets_it_all(scene: Scene) -> None:
    """Whatever the size of the queue: what is replayed waits beside it."""
    deaf = scene.peer("room:a", limits=Limits(send_queue_size=2000, send_buffer=1))
    text = b"x" * 500
    missed = [
        KeptRecord(Kind.MESSAGE, ("room:a",), text, True, position=Position("e", 1 + number))
        for number in range(120)
    ]
    entry = Entry("room:a", missed, Position("e", 120), None)
    times = 0
    while not scene.delivery._slow.backlogs.get(deaf.connection):
        scene.on_loop(lambda: scene.delivery.welcome(deaf.connection, entry))
        scene.send("room:a", data="new")
        scene.settle()
        times += 1
        assert not deaf.connection.ended
    assert deaf.receive(121 * times) == ([text.decode()] * 120 + ["new"]) * times


def test_who_has_more_and_more_replayed_and_does_not_read_is_closed(scene: Scene) -> None:
    """A client that can have its handler join and leave would else take all memory."""
    deaf = scene.peer("room:a", limits=Limits(send_queue_size=QUEUE, send_buffer=1))
    missed = [
        KeptRecord(Kind.MESSAGE, ("room:a",), bytes(1 << 20), position=Position("e", 1 + number))
        for number in range(2)
    ]
    entry = Entry("room:a", missed, Position("e", 2), None)
    times = 0
    while not deaf.connection.ended:
        scene.on_loop(lambda: scene.delivery.welcome(deaf.connection, entry))
        times += 1
        assert times < 20
    assert deaf.connection.close_code == 1013
    assert times > 2
    assert scene.counters["slow_closed"] == 1


def test_who_reads_too_slowly_is_closed(
    scene: Scene, room: Any, caplog: pytest.LogCaptureFixture
) -> None:
    reader, deaf = room("close")
    flood(scene, reader, 50, "room:close")
    assert deaf.connection.close_code == 1013
    assert scene.counters["slow_closed"] == 1
    assert "a client in room:close reads too slowly and is closed with 1013: 1" in caplog.text
    assert not scene.delivery._slow.backlogs


def test_who_reads_too_slowly_gets_the_latest(
    scene: Scene, room: Any, caplog: pytest.LogCaptureFixture
) -> None:
    reader, deaf = room("latest")
    flood(scene, reader, 101, "room:latest", "room:latest/2")
    assert deaf.connection._unsent_size < QUEUE
    assert len(deaf.connection._unsent) < 10
    got = read_on(scene, deaf, 100)
    assert got[-2:] == [99, 100]  # the last of each room
    first = got[:-2]
    assert first == list(range(len(first)))
    assert 1 < len(first) < 10
    assert scene.counters["slow_conflated"] == 101 - len(got)
    assert caplog.text.count("gets the latest only") == 1
    scene.send("room:latest", data="101")
    assert read_on(scene, deaf, 101)[-2:] == [100, 101]


def test_for_who_reads_too_slowly_the_oldest_are_dropped(
    scene: Scene, room: Any, caplog: pytest.LogCaptureFixture
) -> None:
    reader, deaf = room("drop-oldest")
    flood(scene, reader, 101, "room:drop-oldest", "room:drop-oldest/2")
    got = read_on(scene, deaf, 100)
    kept = QUEUE // (len(BIG) + 6)
    assert got[-kept:] == list(range(101 - kept, 101))
    first = got[:-kept]
    assert first == list(range(len(first)))
    assert 1 < len(first) < 10
    assert scene.counters["slow_dropped"] == 101 - len(got)
    assert caplog.text.count("messages to it are dropped") == 1


@pytest.mark.parametrize("slow", ["latest", "drop-oldest"])
def test_bursts_for_who_reads_too_slowly(scene: Scene, room: Any, slow: str) -> None:
    reader, deaf = room(slow)
    texts = [f"{number}{BIG}" for number in range(40)]
    for _ in range(3):
        scene.on_loop(lambda: [scene.send(f"room:{slow}", data=text) for text in texts])
        scene.settle()
        assert reader.receive(40) == texts
    got = read_on(scene, deaf, 39)
    assert len(got) < 25
    scene.send(f"room:{slow}", data="40")
    assert read_on(scene, deaf, 40)[-2:] == [39, 40]


@pytest.mark.parametrize("slow", ["latest", "drop-oldest"])
def test_what_is_kept_goes_with_the_connection(scene: Scene, room: Any, slow: str) -> None:
    reader, deaf = room(slow)
    flood(scene, reader, 30, f"room:{slow}")
    [backlog] = scene.delivery._slow.backlogs.values()
    assert backlog
    deaf.connection.abort()
    flood(scene, reader, 3, f"room:{slow}")
    deaf.connection.release()
    assert not scene.delivery._slow.backlogs
    flood(scene, reader, 3, f"room:{slow}")
    assert not scene.delivery._slow.backlogs


def test_a_backlog_is_limited_in_bytes() -> None:
    def frames(size: int) -> Frames:
        return Frames((BINARY, bytes(size)))

    backlog = Backlog(1000)
    assert not backlog
    assert [backlog.keep(frames(300)) for _ in range(4)] == [(0, 0)] * 3 + [(0, 1)]
    assert backlog.keep(frames(400), "a") == (0, 2)
    assert backlog.keep(frames(500), "a") == (1, 0)
    assert backlog.keep(last := frames(5000)) == (0, 2)
    assert backlog.next() is last
    assert not backlog
    assert backlog.keep(frames(900)) == (0, 0)
