"""Delivery: records that came for this worker go to the clients in their channels."""

from __future__ import annotations

import time
from _thread import RLock
from collections import deque
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any, NamedTuple, Protocol

from ..codec import Frames
from ..codec.frames import BINARY, TEXT, check_close
from ..connection.connection import Connection
from ..connection.worker import Worker
from ..exceptions import ConnectionClosed, RoomError
from ..helpers.log import RateLimit, log_exception, logger
from .channels import room_of
from .envelope import as_seen_by, encode_joined, encode_message
from .fan_out import send_to_many
from .metrics import PatternMetrics, RoomsMetrics
from .options import DEFAULT, RoomOptions, RoomPatterns
from .positions import Position
from .record import Kind, Record
from .replay import Entry
from .shares import Share, by_channel, by_exclusion, by_type, merge, withheld
from .slow import SlowClients

#: Seconds that the loop gives to records in one turn: its connections wait meanwhile.
TURN_TIME = 0.01
#: Seconds of rest after a turn: as many as it took, if they are worth a timer. What comes meanwhile
#: goes out by one write to each client, and writes are what costs.
MIN_REST, MAX_REST = 0.0003, 0.005
#: Bytes that are joined for one write: a socket seldom takes more at a time.
JOINED = 64 * 1024
#: Bytes that may wait for the loop: one that is blocked must not take all memory.
MAX_WAITING = 32 << 20
#: How often messages may be shared out before they are sent.
SHARED_OUT = 1 << 15
#: Bytes that a message counts besides its data, among those that are joined: many very small ones
#: are work as well.
LEAST = 16

#: An opcode and a payload.
Message = tuple[int, bytes]
#: Frames, and who gets them.
Encoded = tuple[Frames, list[Connection]]


class Members(Protocol):
    """Who is in which channel."""

    def members(self, channel: str) -> Collection[Connection]:
        """Return the connections of a channel, some of which may have ended."""


class Moves(Protocol):
    """Lets connections join and leave rooms, as somebody wants who may be elsewhere."""

    def let_join(self, connection: Connection, room: str) -> None:
        """Let a connection join a room, without waiting; RoomError where it may not."""

    def let_leave(self, connection: Connection, room: str) -> None:
        """Let a connection leave a room; do nothing where it is not in it."""


class _Step(NamedTuple):
    """Something that is done between two records."""

    do: Callable[[], object]


class Delivery:
    """Delivers records to the clients of this worker, in their order, on the worker's loop.

    In order with what handlers send: a connection with something queued gets what is delivered
    behind that. Many records are delivered in several turns of the loop.

    :param members: asked for each record.
    :param moves: lets clients join and leave rooms.
    :param patterns: the options of rooms.
    :param metrics: count what is delivered.
    """

    def __init__(
        self,
        members: Members,
        moves: Moves,
        patterns: RoomPatterns,
        worker: Worker,
        metrics: RoomsMetrics,
    ) -> None:
        self._metrics = metrics
        self._members = members
        self._moves = moves
        self._patterns = patterns
        self._worker = worker
        self._slow = SlowClients(worker, metrics)
        self._waiting: deque[Record | _Step | Callable[[], object]] = deque()
        self._delivered: list[Callable[[], object]] = []  # what waited behind what is delivered
        #: When the first was sent of those that are delivered in a turn, by pattern.
        self._first_sent: dict[PatternMetrics, float] = {}
        #: Those who get envelopes.
        self._enveloped: dict[Connection, None] = {}
        self._lock = RLock()
        self._came = self._gone = 0  # in bytes: the difference waits
        self._will_deliver = self._is_resting = False
        self._rests_until = 0.0
        self._interrupted: Iterator[None] | None = None  # by the end of a turn
        # A flood of records, or of clients, shall be none of lines in the log.
        self._overflow, self._errors, self._refusals = RateLimit(), RateLimit(5), RateLimit(5)

    def put_into_envelopes(self, connection: Connection) -> None:
        """Deliver to a connection in envelopes, from now on."""
        self._enveloped[connection] = None
        connection.on_release(partial(self._enveloped.pop, connection, None))

    def receive(self, record: Record, must: bool = False) -> None:
        """Take a record, from any thread.

        :param must: whether it is taken also when this :attr:`is_full`, for those who have looked.
        """
        with self._lock:
            if must or self._came - self._gone < MAX_WAITING:
                self._came += record.weight
                self._put(record)
                return
            counts = self._metrics.of(record.channels[0])
            counts.undelivered += 1
        if self._overflow.passes():
            logger.warning(
                "the worker is too busy to send messages to rooms: %d were dropped until now",
                counts.undelivered,
            )

    def receive_anyway(self, record: Record) -> None:
        """Take a record that must not be dropped: who calls looks at :attr:`is_full` before."""
        with self._lock:
            self._came += record.weight
            self._put(record)

    @property
    def is_full(self) -> bool:
        """Whether the loop is too far behind to take more."""
        return self._came - self._gone >= MAX_WAITING

    def do(self, step: Callable[[], object]) -> None:
        """Do something on the loop between what came before and what comes after; from any thread.

        For what has to stand at one point of all messages, as the join of a member may.
        """
        self._put(_Step(step))

    def then(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` on the loop once what came before is delivered; from any thread.

        Some of what comes after it may be delivered, too: callers do not keep messages apart.
        """
        self._put(callback)

    def _put(self, item: Record | _Step | Callable[[], object]) -> None:
        self._waiting.append(item)
        # A publisher that waits for its message, with which no other one could go.
        is_awaited = not isinstance(item, Record) and len(self._waiting) <= 2
        if self._will_deliver and not (is_awaited and self._is_resting):
            return
        self._will_deliver = True
        rest = 0.0 if is_awaited else self._rests_until - time.monotonic()
        self._is_resting = rest > MIN_REST
        if self._is_resting:
            self._worker.call_later(rest, self._deliver_for_a_while)
        else:
            self._worker.call_soon(self._deliver_for_a_while)

    def _take(self) -> Any:
        item = self._waiting.popleft()
        if isinstance(item, Record):
            self._gone += item.weight
        return item

    def _deliver_for_a_while(self) -> None:
        # First: who comes meanwhile asks for another turn.
        self._will_deliver = self._is_resting = False
        steps, self._interrupted = self._interrupted or self._deliver(), None
        begin = time.monotonic()
        deadline = begin + TURN_TIME
        for _ in steps:
            if time.monotonic() > deadline:
                self._interrupted = steps
                self._will_deliver = True
                self._worker.call_soon(self._deliver_for_a_while)
                return
        end = time.monotonic()
        self._rests_until = end + min(end - begin, MAX_REST)
        for counts, sent in self._first_sent.items():
            counts.lagged(end - sent)
        self._first_sent.clear()

    def _deliver(self) -> Iterator[None]:
        """Deliver what waits; yield where there is an end to what must be done in one go."""
        while self._waiting:
            try:
                if shares := self._next_shares():
                    for records, connections in merge(shares):
                        self._metrics.writes += len(connections)
                        yield from self._send(records, connections)
                elif not self._delivered:
                    yield from self._carry_out(self._take())
            except Exception as error:
                self._log_error(error)
            self._tell()
            yield

    def _tell(self) -> None:
        """Call those who wait for what is delivered by now."""
        callbacks, self._delivered = self._delivered, []
        for callback in callbacks:
            try:
                callback()
            except Exception as error:
                self._log_error(error)

    def _next_shares(self) -> list[Share]:
        """Take the messages that are next, as far as they are done with in one go; maybe none."""
        shares: list[Share] = []
        size = count = 0
        while size < JOINED and count < SHARED_OUT and (run := self._next_run()):
            receivers = self._receivers(run[0].channels)
            own = by_exclusion(run, receivers)
            self._count(run[0], own)
            shares += own
            if self._enveloped:
                shares += withheld(run, receivers, self._enveloped)
            size += sum([len(record.data) for record in run])
            count += len(run) * len(receivers)
        return shares

    def _count(self, first: Record, shares: list[Share]) -> None:
        counts = self._metrics.of(first.channels[0])
        for records, connections in shares:
            counts.delivered += len(records) * len(connections)
        if first.sent and shares[0][1]:
            self._first_sent.setdefault(counts, first.sent)

    def _next_run(self) -> list[Record]:
        """Take the messages that are next and to the same channels; maybe none."""
        run: list[Record] = []
        size = 0
        while self._waiting and size < JOINED:
            item = self._waiting[0]
            if not isinstance(item, Record):
                if isinstance(item, _Step):
                    break
                # Not an end to the run: each publisher of ours waits behind each of its messages.
                self._delivered.append(item)
            elif item.kind is not Kind.MESSAGE or (run and item.channels != run[0].channels):
                break
            else:
                run.append(item)
                size += len(item.data) + LEAST * (1 + len(item.exclude))
            self._take()
        return run

    def _receivers(self, channels: tuple[str, ...]) -> list[Connection]:
        if len(channels) == 1:
            return list(self._members.members(channels[0]))
        union: dict[Connection, None] = {}
        for channel in channels:
            union.update(dict.fromkeys(self._members.members(channel)))
        return list(union)

    def _send(self, records: list[Record], receivers: list[Connection]) -> Iterator[None]:
        """Send all of some messages to some connections."""
        for frames, connections in self._encode(records, receivers):
            behind: list[Connection] = []
            if backlogs := self._slow.backlogs:
                behind = [each for each in connections if backlogs.get(each)]
                connections = [each for each in connections if not backlogs.get(each)]
            for left in send_to_many(frames, connections):
                if left:
                    self._push(left, frames, records)
                yield
            if behind:
                self._push(behind, frames, records)

    def _encode(self, records: list[Record], receivers: list[Connection]) -> Iterator[Encoded]:
        """Encode messages, once for all who get the same."""
        enveloped = self._enveloped
        if enveloped and not enveloped.keys().isdisjoint(receivers):
            some = [each for each in receivers if each in enveloped]
            receivers = [each for each in receivers if each not in enveloped]
            for channels, connections in by_channel(records, some, self._members.members):
                yield Frames(*map(encode_message, records, channels)), connections
        for as_text, connections in by_type(records, receivers) if receivers else ():
            yield Frames(*[_message(record, as_text) for record in records]), connections

    def _push(self, connections: list[Connection], frames: Frames, records: list[Record]) -> None:
        """Leave to :mod:`.slow` those that do not take it at once."""
        channels = [record.channels[0] for record in records]
        policies = [self._options(channel).slow for channel in channels]
        apart = [frames] if set(policies) == {"close"} else frames.apart()
        messages = list(zip(apart, policies, channels, strict=False))
        for connection in connections:
            try:
                self._slow.push(connection, messages)
            except Exception as error:
                self._log_error(error)

    def _options(self, channel: str) -> RoomOptions:
        room = room_of(channel)
        return DEFAULT if room is None else self._patterns.of(room)

    def welcome(self, connection: Connection, entry: Entry) -> None:
        """Have a new member of a kept room get what it has missed, before all that comes now."""
        missed = entry.missed
        if connection in self._enveloped:
            joined = encode_joined(room_of(entry.channel) or "", entry.begin, entry.recovered)
            messages = [
                (TEXT, joined.encode()),
                *[encode_message(as_seen_by(connection, each), entry.channel) for each in missed],
            ]
        else:
            as_text = getattr(connection.client, "_bytes_are_text", False)
            messages = [_message(each, as_text) for each in missed]
        if messages:
            self._metrics.of(entry.channel).delivered += len(missed)
            self._slow.replay(connection, Frames(*messages), entry.channel)

    def tell_to_resync(self, channel: str, position: Position) -> None:
        """Tell the members of a kept room that messages before a position are lost to them."""
        text = encode_joined(room_of(channel) or "", position, recovered=False)
        for connection in tuple(self._members.members(channel)):
            if connection in self._enveloped:
                self._slow.replay(connection, Frames((TEXT, text.encode())), channel)

    def _carry_out(self, record: Record | _Step) -> Iterator[None]:
        """Do what a record asks for that is no message."""
        if isinstance(record, _Step):
            record.do()
            return
        if record.kind is Kind.PRESENCE:
            members = self._receivers(record.channels)
            yield from self._send([record], [each for each in members if each in self._enveloped])
            return
        do = self._action(record)
        receivers = by_exclusion([record], self._receivers(record.channels))[0][1]
        for connection in receivers:
            try:
                do(connection)
            except ConnectionClosed:
                pass
            except RoomError as error:
                if self._refusals.passes():
                    logger.warning("a client cannot join %r: %s", record.data.decode(), error)
            except Exception as error:
                self._log_error(error)

    def _log_error(self, error: Exception) -> None:
        if self._errors.passes():
            log_exception("messages to rooms go on after an error", error=error)

    def _action(self, record: Record) -> Callable[[Connection], None]:
        if record.kind is Kind.CLOSE:
            code, reason = int.from_bytes(record.data[:2], "big"), record.data[2:].decode()
            check_close(code, reason)  # once, not for each
            return lambda connection: connection.start_closing(code, reason)
        do = self._moves.let_join if record.kind is Kind.JOIN else self._moves.let_leave
        room = record.data.decode()
        return lambda connection: do(connection, room)


def _message(record: Record, bytes_are_text: bool) -> Message:
    """Return opcode and payload; what should be text and is not UTF-8 stays binary."""
    if record.text or (bytes_are_text and _is_text(record.data)):
        return TEXT, record.data
    return BINARY, record.data


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
