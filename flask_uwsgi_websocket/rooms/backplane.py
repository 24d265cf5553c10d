"""The interface of backplanes: what carries records between workers.

A third party's backplane is a class of its own, registered under the scheme of its URLs by the
entry point group ``flask_uwsgi_websocket.backplanes``. It is asyncio, whatever the engine: under
asyncio it runs on the worker's loop, elsewhere on a loop in a native thread of the worker. So it
may await, and must neither block nor wait for a greenlet.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from .record import Record


@dataclass(frozen=True)
class BackplaneOptions:
    """What a backplane is told besides its URL.

    :param prefix: in front of all names, so that apps can share a server.
    :param worker: the name of this worker or publisher, different from all others.
    :param instance: the id and start time of the parent of all workers; see
        :meth:`~.server_process.ServerProcess.instance`. None outside of a server.
    :param timeout: seconds within which a call succeeds or raises.
    :param max_size: bytes of the largest record.
    """

    prefix: str
    worker: str
    instance: tuple[int, int] | None = None
    timeout: float = 2.0
    max_size: int = (1 << 20) + (1 << 16)


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
    async def publish(self, records: Sequence[Record]) -> Sequence[BaseException | None]:
        """Publish records, in their order; return when the backplane has them.

        A publisher that subscribes to a channel gets its own records too.

        :return: for each record None, or why it may not have reached everybody: most often
            :exc:`~.exceptions.BackplaneUnavailable`.
        """

    @abstractmethod
    async def workers(self) -> int | None:
        """Return how many subscribe to :data:`~.channels.ALL`; None where nobody can tell."""

    async def check(self) -> list[str]:
        """Return what an operator should know of the server behind it: for ``doctor``."""
        return []
