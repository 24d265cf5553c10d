"""The rooms of an app: what is made of them in each process, once that is needed."""

from __future__ import annotations

import asyncio
import os
from _thread import RLock
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from functools import cached_property, partial
from typing import Any, TypeVar
from weakref import ref

from ..connection.blocking import DONE
from ..connection.connection import Connection
from ..exceptions import ConnectionClosed
from ..process.fork import own
from .channels import room_channel, user_channel
from .dividing import divide
from .envelope import is_enveloped
from .live import Host, LiveRooms, RoomSettings
from .metrics import RoomsMetrics
from .past import forget, history_of, past_of, position_of
from .positions import Joined, Position
from .presence.members import checked_info
from .record import Record

T = TypeVar("T")


class Rooms:
    """The rooms of an app, in whichever process asks: each has its own, made when it is needed.

    Nothing of a backplane is there before uWSGI forks its workers.

    :param host: the app.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self.asynchronous = host.asynchronous
        self.dumps = host.dumps
        self._live: dict[int, LiveRooms] = {}  # by process: uWSGI's fork copies this
        self._starting = RLock()
        own(self)

    @cached_property
    def settings(self) -> RoomSettings:
        """What the configuration says, at the first use."""
        return self._host.settings()

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
        host, settings, engine = self._host, self.settings, self._host.engine()
        live = LiveRooms(host, settings, engine)
        for connection in host.connections():
            live.take_part(connection)
            break
        if not settings.private:
            engine.at_end(partial(_end, ref(live)))
        return live

    def begin(self) -> None:
        """Hear of who comes and leaves, where rooms have presence, also without any client here."""
        if self._host.patterns.have_presence():
            self.live().presence.begin()

    # -- what happens to connections -----------------------------------------------------

    def welcome(self, connection: Connection, user: str | None) -> None:
        """Take a connection that has opened, without waiting.

        :param user: who is at its other end, if that is known.
        """
        live = self._live.get(os.getpid())
        enveloped = is_enveloped(connection)
        if live is None and user is None and self.settings.private and not enveloped:
            return  # who publishes to all finds it later
        live = self.live()
        live.take_part(connection)
        if enveloped:
            live.put_into_envelopes(connection)
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
            return Unawaited(partial(_settle, live, live.send(record)))
        if not live.engine.asynchronous:
            position = live.publish_and_block(record)
        else:
            position = live.engine.run_async(live.publish(record))
        if position is not None:
            return str(position)
        return DONE if self.asynchronous else None

    def send_nowait(self, record: Record) -> None:
        """Publish a record without waiting."""
        live = self.live()
        if not live.patterns.keep:
            live.exchange.send_nowait(record)
            return
        for each in divide(record, live.patterns):
            live.exchange.send_nowait(each)

    @property
    def max_size(self) -> int:
        """Bytes of the largest message."""
        return self.settings.message_size

    def join(
        self,
        connection: Connection,
        room: str,
        info: Any = None,
        since: object = None,
        replay: int = 0,
    ) -> Joined | Coroutine[Any, Any, Joined]:
        """Have a connection join a room.

        :param info: about the client, for the others in the room, where that has presence.
        :param since: the position that it had in a kept room, or what it says was one.
        :param replay: how many messages of the past it gets otherwise.
        :return: how it is in the room; or what has to be run until that is in force.
        :raises BackplaneUnavailable: when it cannot be in force now.
        :raises ConnectionClosed: when the connection has ended.
        :raises RoomFull: when the room has as many members as it may.
        :raises TooManyRooms: when it is in as many rooms as it may.
        :raises TypeError: for an info that is no JSON.
        :raises ValueError: for one of more than 4 KiB.
        """
        return self.live().join(connection, room, self._info(info), since, replay)

    def _info(self, info: Any) -> str:
        return "null" if info is None else checked_info(self.dumps(info))

    def join_and_wait(
        self,
        connection: Connection,
        room: str,
        info: Any = None,
        since: object = None,
        replay: int = 0,
    ) -> Joined:
        """Have a connection join a room, and block until that is in force; raises the same."""
        channel = room_channel(room)
        live = self.live()
        was_member = connection in live.membership.members(channel)
        try:
            joining = live.join(connection, room, self._info(info), since, replay)
            return joining if isinstance(joining, Joined) else live.engine.run_async(joining)
        except BaseException:  # also where it may not wait, and nothing has run
            if not was_member:
                live.membership.remove(connection, channel)
            raise

    def position(self, room: str) -> Any:
        """Return the position of the last message of a kept room; wait as :meth:`run`."""
        live = self.live()
        history_of(live.patterns, room)
        return self.run(position_of(live.exchange, live.patterns, room))

    def history(self, room: str, after: str | None, limit: int) -> Any:
        """Return the :class:`.Past` of a kept room; wait as :meth:`run`."""
        live = self.live()
        history_of(live.patterns, room)
        return self.run(past_of(live.exchange, live.patterns, room, after, limit))

    def forget(self, room: str) -> Any:
        """Have a kept room begin anew; wait as :meth:`run`."""
        live = self.live()
        history_of(live.patterns, room)
        return self.run(forget(live.exchange, live.patterns, room))

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

    def who(self, room: str) -> Any:
        """Return the :class:`.Members` of a room with presence; wait as :meth:`run`."""
        room_channel(room)
        return self.run(self.live().who(room))

    def present(self, user: str | int) -> Any:
        """Return whether a user has a connection; wait as :meth:`run`."""
        user_channel(user)
        return self.run(self.live().present(user))

    def rooms(self) -> Any:
        """Return the :class:`.Count` of each room, by name; wait as :meth:`run`."""
        return self.run(self.live().rooms())

    def snapshot(self) -> dict[str, Any]:
        """Return what is counted in this process, as :meth:`.RoomsMetrics.snapshot`."""
        live = self._live.get(os.getpid())
        return RoomsMetrics().snapshot() if live is None else live.snapshot()

    def leave_to_parent(self) -> None:
        """Give up all, in a child process."""
        self._starting = RLock()
        for live in self._live.values():
            live.leave_to_parent()
        self._live.clear()


class Unawaited(Awaitable[T]):
    """A coroutine that need not be awaited: what it waits for has begun.

    :param wait: makes the coroutine.
    """

    def __init__(self, wait: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._wait = wait

    def __await__(self) -> Any:
        return self._wait().__await__()


def in_task() -> bool:
    """Return whether a Task, which can await, runs here."""
    try:
        return asyncio.current_task() is not None
    except RuntimeError:  # no loop runs in this thread
        return False


async def _settle(live: LiveRooms, sent: Future[Position | None]) -> str | None:
    position = await live.settle(sent)
    return None if position is None else str(position)


async def _end(reference: ref[LiveRooms]) -> None:
    """Publish what was sent, and leave the backplane, when the process exits."""
    live = reference()
    if live is not None:
        await live.presence.stop()
        await live.exchange.stop()
