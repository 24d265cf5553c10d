"""The interface of backplanes: what carries records between workers.

A third party's backplane is a class of its own, registered under the scheme of its URLs by the
entry point group ``flask_uwsgi_websocket.backplanes``. It is asyncio, whatever the engine: under
asyncio it runs on the worker's loop, elsewhere on a loop in a native thread of the worker. So it
may await, and must neither block nor wait for a greenlet.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from .positions import Position
from .presence.members import Left, Occupant
from .record import KeptRecord, Record

#: What not every backplane has: logs of rooms, and tables of who is in them.
Feature = Literal["history", "presence"]
#: What comes of a record: that it was published, where it is in a log, or why it may not have
#: reached everybody.
Published = Position | BaseException | None


class Log(NamedTuple):
    """A part of what a room keeps.

    :param epoch: of the log; "" where there is none.
    :param top: the offset of the last message; 0 where there was none yet.
    :param entries: messages without holes between them, each with its position.
    """

    epoch: str
    top: int
    entries: tuple[KeptRecord, ...] = ()


@dataclass(frozen=True)
class BackplaneOptions:
    """What a backplane is told besides its URL.

    :param prefix: in front of all names, so that apps can share a server.
    :param worker: the name of this worker or publisher, different from all others.
    :param instance: the id and start time of the parent of all workers; see
        ``ServerProcess.instance``. None outside of a server.
    :param timeout: seconds within which a call succeeds or raises.
    :param max_size: bytes of the largest record.
    :param store_size: bytes that all that is kept may take, where this machine keeps it.
    :param ends_for_good: tells whether this process ends because all of its instance do.
    """

    prefix: str
    worker: str
    instance: tuple[int, int] | None = None
    timeout: float = 2.0
    max_size: int = (1 << 20) + (1 << 16)
    store_size: int = 256 << 20
    ends_for_good: Callable[[], bool] | None = None


class Inbox(ABC):
    """What a backplane tells its worker, on its loop. Nothing of it waits or raises."""

    @abstractmethod
    def record(self, record: Record) -> None:
        """Take a record for a channel that this worker has subscribed to."""

    @abstractmethod
    def gap(self, channels: Collection[str] | None = None, lost: int = 0) -> None:
        """Take note that records may be missing.

        :param channels: of which; None: of any.
        :param lost: how many are known to be.
        """

    @abstractmethod
    def health(self, error: str | None) -> None:
        """Take note that the backplane works (None), or why it does not."""


class Backplane(ABC):
    """Carries records from any worker to all workers that subscribe to one of their channels.

    What it promises: a record published after ``subscribe`` has returned, anywhere, arrives, at
    most once for each of its channels; those of one publisher arrive in the order in which they
    were published. Where it cannot keep that, it says so by :meth:`Inbox.gap`.

    Its constructor does no I/O, and may run before a fork.

    :param url: with the scheme that the backplane is registered under.
    :raises ValueError: for a URL that is wrong; says what is right.
    """

    #: What it has of what not all have. What is missing is never called.
    features: ClassVar[frozenset[Feature]] = frozenset()

    def __init__(self, url: str, options: BackplaneOptions) -> None:
        self.url = url
        self.options = options

    @abstractmethod
    async def start(self, inbox: Inbox) -> None:
        """Begin, on the running loop; must not wait for a server to come up."""

    @abstractmethod
    async def stop(self) -> None:
        """End: close all that was opened. May be called twice, and without :meth:`start`."""

    @abstractmethod
    async def subscribe(self, channels: Collection[str]) -> None:
        """Have the records of these channels; return when that is in force.

        :raises BackplaneUnavailable: when it could not be within the timeout. The channels stay
            wanted all the same: they are subscribed to when that is possible again.
        """

    @abstractmethod
    async def unsubscribe(self, channels: Collection[str]) -> None:
        """Have their records no longer. Never raises."""

    @abstractmethod
    async def publish(self, records: Sequence[Record]) -> Sequence[Published]:
        """Publish records, in their order; return when the backplane has them.

        A publisher that subscribes to a channel gets its own records too.

        A :class:`~.record.KeptRecord` is appended to the log of its channel, and published with
        the position and time that it has there, in one step that others see done or not done. One
        whose ``key`` was used in that channel within the last 5 minutes is neither: what comes of
        it is the position of the first.

        :return: for each record None, for one that is in a log now its position, or why it may not
            have reached everybody: most often :exc:`~.exceptions.BackplaneUnavailable`. A
            ``KeptRecord`` that was refused is in no log, or it is not known whether it is.
        """

    @abstractmethod
    async def workers(self) -> int | None:
        """Return how many subscribe to ``channels.ALL``; None where nobody can tell."""

    @property
    def pending_bytes(self) -> int:
        """Bytes of what was published and is still on its way, as far as this process has it.

        For people who watch, as :attr:`log_bytes`. Any thread may ask, and nothing may wait.
        """
        return 0

    @property
    def log_bytes(self) -> int:
        """Bytes of all that rooms keep, where that is on this machine; else 0."""
        return 0

    async def check(self) -> list[str]:
        """Return what an operator should know of the server behind it: for ``doctor``."""
        return []

    # -- the feature "history": all raise BackplaneUnavailable within the timeout ----------

    async def read(self, channel: str, after: int, limit: int, max_size: int) -> Log:
        """Read a log.

        :param after: the offset of the last message that is known.
        :param limit: how many messages at most.
        :param max_size: bytes of all their data at most, unless the first has more.
        :return: messages from ``after + 1`` on, or from the oldest if that was trimmed. Where there
            is no log, none is made.
        """
        raise NotImplementedError

    async def touch(self, channel: str, seconds: float) -> Position:
        """Return the position of the last message in a log; begin one where there is none.

        :param seconds: for which the room keeps messages; its epoch outlives them by far.
        """
        raise NotImplementedError

    async def forget(self, channel: str) -> None:
        """Begin a log anew, without messages and keys, and with another epoch.

        Subscribers get a ``KeptRecord`` with its position, of offset 0, and without data.
        """
        raise NotImplementedError

    async def describe(self, text: str) -> None:
        """Keep what ``RoomPatterns.describe`` says, for processes that do not have the app."""
        raise NotImplementedError

    async def description(self) -> str | None:
        """Return the latest that :meth:`describe` was given, if any."""
        raise NotImplementedError

    # -- the feature "presence": so, too ----------------------------------------------------
    #
    # A user is in a room from the first connection that enters until the grace after the last one
    # has passed, whether that has left or its worker has died. What a worker has entered its
    # backplane remembers, and enters again where it was lost. enter() and leave() come one after
    # the other.

    async def enter(self, occupants: Sequence[Occupant]) -> Sequence[bool | None]:
        """Add connections to rooms. Of one that is there only the info changes, for its user.

        :return: for each True when the user is new in the room; False when it was there, if only in
            grace; None, and it is not added, when it would be new and the room has as many users
            as it may: those in grace keep their places.
        """
        raise NotImplementedError

    async def leave(self, leaving: Sequence[tuple[str, str]]) -> None:
        """Remove connections, each by channel and id, if they are there.

        Without any other connection its user stays in the room for the grace.
        """
        raise NotImplementedError

    async def occupants(self, channel: str) -> tuple[Sequence[Occupant], bool]:
        """Return who is in a room, and whether these are all; what is known where nobody can ask.

        There is one for each connection, and one without a connection for each user in grace.
        """
        raise NotImplementedError

    async def sweep(self) -> Sequence[Left]:
        """Remove the users whose grace has passed; have that of dead workers' users begin.

        :return: whom this call has removed, those first who left first. No other call, of
            whichever worker, returns them. There may be more, for the next call.
        """
        raise NotImplementedError
