"""The rooms of an app: what is made of them in each process, once that is needed."""

from __future__ import annotations

import asyncio
import os
from _thread import RLock
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeVar, cast
from weakref import ref

from ..connection.blocking import DONE
from ..connection.connection import Connection
from ..connection.worker import Worker
from ..engines.base import Engine
from ..exceptions import ConnectionClosed, RoomFull
from ..helpers.log import logger
from ..process.fork import own
from .backplane import BackplaneOptions
from .channels import ALL, room_channel, user_channel
from .counting import Count, answer, count_of, count_question, counts_of, rooms_question
from .delivery import Delivery
from .exchange import Exchange, worker_name
from .membership import Membership
from .options import RoomPatterns
from .outbox import uncancellable
from .record import Record

T = TypeVar("T")

#: Bytes of a record besides its message: the names of what it is to, and of whom it excludes.
_NAMES = 1 << 16
#: Seconds that a process which exits has for what it has still to publish.
_EXIT_TIME = 1.0


@dataclass(frozen=True)
class RoomSettings:
    """What the configuration says of rooms.

    :param url: of the backplane.
    :param private: whether nobody outside of this process can hear it.
    :param prefix: in front of all names at the backplane.
    :param message_size: the largest message, in bytes.
    :param max_rooms: how many rooms a connection may be in.
    """

    url: str
    private: bool
    prefix: str = ""
    message_size: int = 1 << 20
    max_rooms: int = 256


class LiveRooms:
    """The rooms of an app in one process: who is in them, and the exchange with the others.

    :param engine: whose loop the exchange is on, and as whose handlers callers wait.
    :param everybody: returns all open connections of the app.
    """

    def __init__(
        self,
        settings: RoomSettings,
        engine: Engine,
        everybody: Callable[[], Iterable[Connection]],
        patterns: RoomPatterns,
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.patterns = patterns
        options = BackplaneOptions(
            settings.prefix,
            worker_name(),
            engine.process.instance(),
            max_size=settings.message_size + _NAMES,
        )
        self.exchange = Exchange(
            settings.url, options, engine.async_loop, self._receive, self._answer
        )
        self.membership = Membership(self.exchange, everybody, settings.max_rooms)
        self._delivery: Delivery | None = None

    def take_part(self, connection: Connection) -> None:
        """Hear what is to all clients, and questions, from the first connection on."""
        if self._delivery is None:
            worker = cast(Worker, connection.worker)
            self._delivery = Delivery(self.membership, self.patterns, worker)
            self.exchange.subscribe(ALL)

    def _receive(self, record: Record) -> None:
        if self._delivery is not None:  # else there is nobody to deliver it to
            self._delivery.receive(record)

    def _answer(self, question: Any) -> Any:
        return answer(self.membership, question)

    @property
    def counters(self) -> dict[str, int]:
        """What was published, received, delivered and lost: see the counters of each part."""
        delivered = {} if self._delivery is None else self._delivery.counters
        return {**self.exchange.counters, **delivered}

    # -- coroutines, for any loop --------------------------------------------------------

    async def put(self, record: Record) -> None:
        """Publish a record; return when the backplane has it, and our own clients got it."""
        await self.settle(self.exchange.send(record))

    async def settle(self, sent: Any) -> None:
        """Wait for what was sent, as :meth:`put` does."""
        await asyncio.wrap_future(sent)
        if self._delivery is not None:
            delivered = uncancellable()
            self._delivery.then(partial(delivered.set_result, None))
            await asyncio.wrap_future(delivered)

    def join(self, connection: Connection, room: str) -> Coroutine[Any, Any, None] | None:
        """Have a connection join a room.

        :return: what has to be run until that is in force; None when it is.
        :raises RoomError: see :meth:`Rooms.join`.
        """
        channel = room_channel(room)
        self.take_part(connection)
        limit = self.patterns.of(room).max_members
        if limit is not None and connection not in self.membership.members(channel):
            return self._join_limited(connection, room, limit)
        subscribing = self.membership.add(connection, channel)
        if subscribing is None:
            return None
        return self._complete(connection, channel, subscribing)

    async def _join_limited(self, connection: Connection, room: str, limit: int) -> None:
        if (await self.count(room)).connections >= limit:
            raise RoomFull(f"the room {room!r} has {limit} members, which is all it may have")
        channel = room_channel(room)
        subscribing = self.membership.add(connection, channel)
        if subscribing is not None:
            await self._complete(connection, channel, subscribing)

    async def _complete(self, connection: Connection, channel: str, subscribing: Any) -> None:
        try:
            await asyncio.wrap_future(subscribing)
        except BaseException:
            self.membership.remove(connection, channel)
            raise
        if connection.ended:  # and so it is no member any more, or not for long
            raise connection.closed_error()

    async def count(self, room: str) -> Count:
        """Ask all workers how many are in a room."""
        return count_of(await self.exchange.ask(count_question(room)))

    async def rooms(self) -> dict[str, Count]:
        """Ask all workers for their rooms."""
        return counts_of(await self.exchange.ask(rooms_question()))

    # -- its end -------------------------------------------------------------------------

    def leave_to_parent(self) -> None:
        """Give up all, in a child process."""
        self.exchange.leave_to_parent()
        self.membership.leave_to_parent()


class Rooms:
    """The rooms of an app, in whichever process asks: each has its own, made when it is needed.

    Nothing of a backplane is there before uWSGI forks its workers.

    :param settings: returns what the configuration says.
    :param engine: returns what runs the handlers, where none has run yet.
    :param everybody: returns all open connections of the app in this process.
    :param patterns: the options of rooms.
    :param dumps: makes JSON of an object.
    :param asynchronous: whether handlers are coroutines.
    """

    def __init__(
        self,
        settings: Callable[[], RoomSettings],
        engine: Callable[[], Engine],
        everybody: Callable[[], Iterable[Connection]],
        patterns: RoomPatterns,
        dumps: Callable[[Any], str],
        asynchronous: bool = False,
    ) -> None:
        self._read_settings = settings
        self._find_engine = engine
        self._engine: Engine | None = None
        self._everybody = everybody
        self.patterns = patterns
        self.dumps = dumps
        self.asynchronous = asynchronous
        self._live: dict[int, LiveRooms] = {}  # by process: uWSGI's fork copies this
        self._starting = RLock()
        own(self)
        self._is_one_of_many = False

    @cached_property
    def settings(self) -> RoomSettings:
        """What the configuration says, at the first use."""
        return self._read_settings()

    def live(self) -> LiveRooms:
        """Return the rooms of this process; make them for whoever asks first."""
        live = self._live.get(os.getpid())
        if live is None:
            with self._starting:
                live = self._live.get(os.getpid())
                if live is None:
                    live = self._live[os.getpid()] = self._make()
        return live

    def _make(self) -> LiveRooms:
        settings = self.settings
        engine = self._engine
        if engine is None:
            engine = self._find_engine()
        if settings.private and self._is_one_of_many:
            logger.warning(
                "rooms reach the clients of one worker only, of several that serve the app: set "
                "UWSGI_WEBSOCKET_BACKPLANE to local:///a/directory, or redis://..."
            )
        live = LiveRooms(settings, engine, self._everybody, self.patterns)
        for connection in self._everybody():
            live.take_part(connection)
            break
        if not settings.private:
            engine.process.at_exit(partial(_flush, ref(live)))
        return live

    # -- what happens to connections -----------------------------------------------------

    def use(self, engine: Engine, is_one_of_many: bool) -> None:
        """Take the engine that runs handlers of the app.

        :param is_one_of_many: whether the server has other workers, too.
        """
        if self._engine is None:
            self._engine, self._is_one_of_many = engine, is_one_of_many

    def welcome(self, connection: Connection, user: str | None) -> None:
        """Take a connection that has opened, without waiting.

        :param user: who is at its other end, if that is known.
        """
        live = self._live.get(os.getpid())
        if live is None and user is None and self.settings.private:
            return  # who publishes to all finds it later
        live = self.live()
        live.take_part(connection)
        if user is not None:
            with suppress(ConnectionClosed):
                live.membership.add(connection, user_channel(user))

    # -- what callers wait for -----------------------------------------------------------

    def run(self, coroutine: Coroutine[Any, Any, T]) -> Any:
        """Wait for a coroutine; inside a Task of asynchronous handlers return it, to be awaited."""
        if self.asynchronous and in_task():
            return coroutine
        return self.live().engine.run_async(coroutine)

    def send(self, record: Record) -> Any:
        """Publish a record; wait for it as :meth:`run`, but have it sent even if nobody waits."""
        live = self.live()
        if self.asynchronous and in_task():
            return Unawaited(partial(live.settle, live.exchange.send(record)))
        live.engine.run_async(live.put(record))
        return DONE if self.asynchronous else None

    def send_nowait(self, record: Record) -> None:
        """Publish a record without waiting."""
        self.live().exchange.send_nowait(record)

    @property
    def max_size(self) -> int:
        """Bytes of the largest message."""
        return self.settings.message_size

    def join(self, connection: Connection, room: str) -> Coroutine[Any, Any, None] | None:
        """Have a connection join a room.

        :return: what has to be run until that is in force; None when it is.
        :raises BackplaneUnavailable: when it cannot be in force now.
        :raises ConnectionClosed: when the connection has ended.
        :raises RoomFull: when the room has as many members as it may.
        :raises TooManyRooms: when it is in as many rooms as it may.
        """
        return self.live().join(connection, room)

    def join_and_wait(self, connection: Connection, room: str) -> None:
        """Have a connection join a room, and block until that is in force; raises the same."""
        live = self.live()
        joining = live.join(connection, room)
        if joining is None:
            return
        try:
            live.engine.run_async(joining)
        except BaseException:  # also where it may not wait, and nothing has run
            self.leave(connection, room)
            raise

    def leave(self, connection: Connection, room: str) -> None:
        """Have a connection leave a room, at once; that it is not in it is no error."""
        channel = room_channel(room)
        live = self._live.get(os.getpid())
        if live is not None:
            live.membership.remove(connection, channel)

    def rooms_of(self, connection: Connection) -> frozenset[str]:
        """Return the names of the rooms that a connection is in."""
        live = self._live.get(os.getpid())
        return frozenset() if live is None else live.membership.rooms_of(connection)

    def count(self, room: str) -> Any:
        """Return the :class:`.Count` of a room, over all workers; wait as :meth:`run`."""
        room_channel(room)  # checks the name
        return self.run(self.live().count(room))

    def rooms(self) -> Any:
        """Return the :class:`.Count` of each room, by name; wait as :meth:`run`."""
        return self.run(self.live().rooms())

    def leave_to_parent(self) -> None:
        """Give up all, in a child process."""
        self._starting = RLock()
        self._engine = None
        for live in self._live.values():
            live.leave_to_parent()
        self._live.clear()


class Unawaited(Awaitable[None]):
    """A coroutine that need not be awaited: what it waits for has begun.

    :param wait: makes the coroutine.
    """

    def __init__(self, wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._wait = wait

    def __await__(self) -> Any:
        return self._wait().__await__()


def in_task() -> bool:
    """Tell whether a Task, which can await, runs here."""
    try:
        return asyncio.current_task() is not None
    except RuntimeError:  # no loop runs in this thread
        return False


def _flush(reference: ref[LiveRooms]) -> None:
    """Give what was sent a moment to go out, when the process exits."""
    live = reference()
    if live is not None:
        with suppress(Exception):
            live.engine.run_async(live.exchange.flush(), _EXIT_TIME)
