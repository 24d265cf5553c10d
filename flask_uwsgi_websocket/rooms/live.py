"""The rooms of an app in one process, once there is use for them."""

from __future__ import annotations

import asyncio
from _thread import RLock
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, cast

from ..connection.connection import Connection
from ..connection.worker import Worker
from ..engines.base import Engine
from ..exceptions import RoomError
from ..metrics.observers import Observers
from .backplane import BackplaneOptions
from .channels import ALL, room_channel, room_of
from .counting import (
    Count,
    answer,
    count_of,
    count_question,
    counts_of,
    rooms_question,
    user_question,
)
from .delivery import Delivery
from .dividing import divide
from .exchange import Exchange, worker_name
from .futures import bounded, unavailable, uncancellable
from .joining import Joining
from .kept import KeptRooms
from .membership import Membership
from .metrics import RoomsMetrics
from .options import History, RoomPatterns
from .positions import Joined, Position
from .presence.members import Members
from .presence.presence import Event, Presence
from .record import KeptRecord, Record
from .replay import Wanted

#: Bytes of a record besides its message: the names of what it is to, and of whom it excludes.
_NAMES = 1 << 16
#: Seconds by which a call may take longer than the backplane's timeout.
_MARGIN = 1.0


@dataclass(frozen=True)
class RoomSettings:
    """What the configuration says of rooms.

    :param url: of the backplane.
    :param private: whether nobody outside of this process can hear it.
    :param prefix: in front of all names at the backplane.
    :param message_size: the largest message, in bytes.
    :param max_rooms: how many rooms a connection may be in.
    :param store_size: bytes of all that rooms keep, where this machine keeps it.
    """

    url: str
    private: bool
    prefix: str = ""
    message_size: int = 1 << 20
    max_rooms: int = 256
    store_size: int = 256 << 20


class Host(ABC):
    """What rooms have to know of the app that they are of."""

    #: Whether handlers are coroutines.
    asynchronous: bool
    #: The options of its rooms.
    patterns: RoomPatterns
    #: What answers other workers' questions that are not about rooms, by what they ask. It is
    #: called with the rooms and the question, on the loop of the exchange; or is a coroutine
    #: function.
    answerers: Mapping[str, Callable[[LiveRooms, Any], Any]] = MappingProxyType({})
    #: Are notified of how long messages take to clients; None for nobody.
    observers: Observers | None = None

    @abstractmethod
    def settings(self) -> RoomSettings:
        """Return what the configuration says."""

    @abstractmethod
    def engine(self) -> Engine:
        """Return what runs handlers in this process; where none does, what waits in their place."""

    @abstractmethod
    def instance(self) -> tuple[int, int] | None:
        """Return :meth:`.ServerProcess.instance`; None outside of a server."""

    @abstractmethod
    def connections(self) -> Collection[Connection]:
        """Return all open connections of the app in this process."""

    @abstractmethod
    def dumps(self, value: Any) -> str:
        """Return the JSON for a value."""

    def tell(self, engine: Engine, event: Event) -> None:  # noqa: B027
        """Tell the app, as the engine's work, what happened in a room; without waiting for it."""


class LiveRooms:
    """The rooms of an app in one process: who is in them, and the exchange with the others.

    :param engine: whose loop the exchange is on, and as whose handlers callers wait.
    """

    def __init__(self, host: Host, settings: RoomSettings, engine: Engine) -> None:
        self.engine = engine
        self._host = host
        self.patterns = host.patterns
        self._metrics = metrics = RoomsMetrics(host.patterns.pattern_of, host.observers)
        options = BackplaneOptions(
            settings.prefix,
            worker_name(),
            host.instance(),
            max_size=settings.message_size + _NAMES,
            store_size=settings.store_size,
            ends_for_good=engine.ends_for_good,
        )
        listeners = self._receive, self._answer, self._miss
        self.exchange = Exchange(settings.url, options, engine.async_loop, *listeners, metrics)
        self._describe()
        self.presence = Presence(
            self.exchange, self.patterns, self._tell, self._is_stopping, metrics
        )
        self.membership = Membership(
            self.exchange, host.connections, settings.max_rooms, self._left, metrics
        )
        #: Seconds for the whole of a call: several steps of it may wait for the backplane.
        self._patience = options.timeout + _MARGIN
        self._joining = Joining(
            self.exchange, self.membership, self.presence, self.patterns, self.count, self._patience
        )
        self._delivery: Delivery | None = None
        self._lock = RLock()

    def take_part(self, connection: Connection) -> None:
        """Hear what is to all clients, and questions, from the first connection on."""
        if self._delivery is not None:
            return
        with self._lock:
            if self._delivery is None:
                worker = cast(Worker, connection.worker)
                if self.engine.running_worker() is not worker:  # it was a script's until now
                    self.engine = self._host.engine()
                members, metrics = self.membership, self._metrics
                delivery = Delivery(members, self._joining, self.patterns, worker, metrics)
                self._joining.kept = KeptRooms(self.exchange, members, delivery, metrics)
                self._delivery = delivery
                self.exchange.subscribe(ALL)

    def put_into_envelopes(self, connection: Connection) -> None:
        """Put all that is delivered to a connection into envelopes."""
        assert self._delivery is not None  # it takes part
        self._delivery.put_into_envelopes(connection)

    def _receive(self, record: Record) -> None:
        if self._delivery is None:  # there is nobody to deliver it to
            return
        if type(record) is KeptRecord:
            self._receive_kept(record, self._delivery)
        else:
            self._delivery.receive(record)

    def _receive_kept(self, record: KeptRecord, delivery: Delivery) -> None:
        if self._joining.kept is not None and self._history(record.channels[0]) is not None:
            self._joining.kept.hear(record)
        elif record.position is None or record.position.offset:
            delivery.receive(record)  # the app that publishes has other options than this one

    def _history(self, channel: str) -> History | None:
        """Return how much a channel keeps; None for nothing."""
        room = room_of(channel)
        return None if room is None else self.patterns.of(room).history

    def _miss(self, channels: Collection[str] | None) -> None:
        if self._joining.kept is not None:
            self._joining.kept.miss(channels)

    def _left(self, connection: Connection, channel: str) -> None:
        self.presence.left(connection, channel)
        if self._joining.kept is not None:
            self._joining.kept.left(channel)

    def _tell(self, event: Event) -> None:
        self._host.tell(self.engine, event)

    def _is_stopping(self) -> bool:
        worker = self.engine.running_worker()
        return worker is not None and worker.stopping is not None

    def _describe(self) -> None:
        """Tell those who publish from outside which rooms keep what is sent to them."""
        if self.patterns.keep:
            text = self.patterns.describe()
            self.exchange.run_soon(partial(_describe, self.exchange, text))

    def _answer(self, question: Any) -> Any:
        answerer = self._host.answerers.get(question["ask"])
        return answerer(self, question) if answerer else answer(self.membership, question)

    def connections(self) -> Collection[Connection]:
        """Return all open connections of the app in this process."""
        return self._host.connections()

    def snapshot(self) -> dict[str, Any]:
        """Return what is counted here, as :meth:`.RoomsMetrics.snapshot`."""
        exchange = self.exchange
        return self._metrics.snapshot(
            exchange.error is None, exchange.pending_bytes, exchange.log_bytes
        )

    def send(self, record: Record) -> Future[Position | None]:
        """Publish a record, in whichever rooms it is kept."""
        if not self.patterns.keep and type(record) is not KeptRecord:
            return self.exchange.send(record)
        return self.exchange.send_all(divide(record, self.patterns))

    def publish_and_block(self, record: Record) -> Position | None:
        """Do as :meth:`publish` for a blocking handler: with no coroutine it takes half as long."""
        sent: Future[Position | None] = Future()

        def begin(ring: Callable[[], object]) -> None:
            nonlocal sent
            sent = self.send(record)
            sent.add_done_callback(lambda _: self._when_delivered(ring))

        if not self.engine.block(begin, self._patience):
            raise unavailable(TimeoutError())
        return sent.result()

    def _when_delivered(self, callback: Callable[[], object]) -> None:
        """Call back when our own clients got all that has come from the backplane until now."""
        if self._delivery is None:
            callback()
        else:
            self._delivery.then(callback)

    # -- coroutines, for any loop --------------------------------------------------------

    async def publish(self, record: Record) -> Position | None:
        """Publish a record; return when the backplane has it, and our own clients got it."""
        return await self.settle(self.send(record))

    async def settle(self, sent: Future[Position | None]) -> Position | None:
        """Wait for what was sent, as :meth:`publish` does."""
        position = await bounded(sent, self._patience)
        delivered = uncancellable()
        self._when_delivered(partial(delivered.set_result, None))
        await asyncio.wrap_future(delivered)
        return position

    def join(
        self,
        connection: Connection,
        room: str,
        info: str = "null",
        since: object = None,
        replay: int = 0,
    ) -> Joined | Coroutine[Any, Any, Joined]:
        """Do :meth:`.Joining.join`, for a connection that may be the first."""
        room_channel(room)  # raises before anything begins
        self.take_part(connection)
        return self._joining.join(connection, room, info, Wanted.of(since, replay))

    async def count(self, room: str) -> Count:
        """Ask how many are in a room: where there is presence the store, else all workers."""
        if self.patterns.of(room).presence is not None:
            return await self.presence.count(room)
        return count_of(await self.exchange.ask(count_question(room)))

    async def who(self, room: str) -> Members:
        """Return who is in a room.

        :raises RoomError: for a room whose options have no presence.
        """
        if self.patterns.of(room).presence is None:
            raise RoomError(
                f"nobody knows who is in {room!r}: its options, websocket.room(...), need "
                "presence=True"
            )
        return await self.presence.who(room)

    async def present(self, user: str | int) -> bool:
        """Ask all workers whether they have a connection of a user."""
        return any((await self.exchange.ask(user_question(user))).answers)

    async def rooms(self) -> dict[str, Count]:
        """Ask all workers for their rooms."""
        return counts_of(await self.exchange.ask(rooms_question()))

    # -- its end -------------------------------------------------------------------------

    def leave_to_parent(self) -> None:
        """Give up all, in a child process."""
        self.exchange.leave_to_parent()
        self.membership.leave_to_parent()
        self.presence.leave_to_parent()


async def _describe(exchange: Exchange, text: str) -> None:
    with suppress(RoomError):  # the first who joins or sends is told what is wrong
        await exchange.call("history", lambda backplane: backplane.describe(text))
