"""The mesh: each worker listens, and each that publishes connects to all that listen.

What ``publish`` promises: when it returns, each worker that listens has the record in its socket,
or in a queue of ours for it; publishers wait while a queue is longer than 1 MiB. A worker that does
not read at all, being stopped, is waited for once, for ``options.timeout``; then the others go on
without it, it gets what its queue takes, 8 MiB, and it is told how much is missing. So a record is
refused to nobody on account of one worker, and the records of a publisher that is killed may stay
in its queues.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from typing import ClassVar, cast

from ...exceptions import BackplaneUnavailable
from ...process.fork import own
from ..backplane import BackplaneOptions, Feature, Inbox, Published
from ..channels import ALL
from ..record import KeptRecord, Kind, Record
from .directory import Directory, explained, name_of_app, path_of
from .instances import open_place
from .keeping import Keeping
from .listening import Listener
from .peers import Peers
from .wire import head

#: Seconds between two looks whether our socket is still where others find it.
_INTERVAL = 2.0


class LocalBackplane(Keeping):
    """Connects the workers of one machine, through UNIX sockets in a directory.

    :param url: ``local://``, or with the path of a directory: ``local:///run/app/rooms``.
    """

    features: ClassVar[frozenset[Feature]] = frozenset({"history", "presence"})

    def __init__(self, url: str, options: BackplaneOptions) -> None:
        super().__init__(url, options)
        self._path = path_of(url)
        name_of_app(options.prefix)
        self._channels: set[str] = set()
        self._inbox: Inbox | None = None
        self._directory: Directory | None = None
        self._looked = 0.0  # when, for whether it is in its place
        self._listener: Listener | None = None
        self._peers: Peers | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stopping: asyncio.Future[None] | None = None  # for all who wait for that

    async def start(self, inbox: Inbox) -> None:
        """Open the directory; where that fails, whoever needs it tries again."""
        own(self)
        self._inbox = inbox
        self._peers = Peers(asyncio.get_running_loop(), self.options.timeout)
        with suppress(BackplaneUnavailable):
            self._open()

    async def stop(self) -> None:
        """Leave the mesh, when all that was published has been taken by those who read."""
        if self._stopping is None or self._stopping.done():
            self._stopping = asyncio.ensure_future(self._stop())
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        listener, peers, directory = self._listener, self._peers, self._directory
        self._close_store()
        self._forget()
        if listener is not None:
            listener.hide()
        try:
            if peers is not None:
                await peers.close()
        finally:
            if listener is not None:
                listener.close()
            if directory is not None:
                ends_for_good = self.options.ends_for_good
                directory.close(ends_for_good is not None and ends_for_good())

    def _forget(self) -> None:
        self._channels = set()
        self._inbox = self._directory = self._listener = self._peers = self._timer = None

    def leave_to_parent(self) -> None:
        """Give all up in a child of ``os.fork()``, which may start anew."""
        self.leave_store_to_parent()
        for part in (self._listener, self._peers, self._directory):
            if part is not None:
                part.leave_to_parent()
        self._forget()

    async def subscribe(self, channels: Collection[str]) -> None:
        """Listen, from the first time on."""
        self._channels.update(channels)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self._look_again)
        self._listen()

    async def unsubscribe(self, channels: Collection[str]) -> None:
        """Drop their records: all come to all, since a filter would race with the publishers."""
        self._channels.difference_update(channels)

    async def publish(self, records: Sequence[Record]) -> Sequence[Published]:
        """Append what is kept, write all to those who listen, and wait for long queues."""
        kept = [number for number, each in enumerate(records) if isinstance(each, KeptRecord)]
        if not kept:
            return await self._carry(records)
        outcome: list[Record | Published] = list(records)
        appended = await self._append([cast(KeptRecord, records[number]) for number in kept])
        for number, what in zip(kept, appended, strict=True):
            outcome[number] = what
        carried = iter(await self._carry([each for each in outcome if isinstance(each, Record)]))
        # What is in a log was published: those whom it does not reach now read it there.
        return [_result(each, carried) for each in outcome]

    async def _carry(self, records: Sequence[Record]) -> list[Published]:
        try:
            peers = self._look()
        except BackplaneUnavailable as error:
            return [BackplaneUnavailable(str(error)) for _ in records]
        results: list[Published] = []
        parts: list[bytes] = []  # two of each frame
        for record in records:
            data = record.encode()
            results.append(self._too_large(data))
            if results[-1] is None:
                parts += (head(peers.number + len(parts) // 2, data), data)
        if parts:
            peers.publish(b"".join(parts), len(parts) // 2)
        for record, refused in zip(records, results, strict=True):
            if refused is None:
                self._receive(record)
        await peers.settle()
        return results

    @property
    def pending_bytes(self) -> int:
        """Bytes in the queues for those who listen."""
        return self._peers.pending_bytes if self._peers is not None else 0

    @property
    def dropped(self) -> int:
        """How many records did not reach a worker that does not read, summed over those."""
        return self._peers.dropped if self._peers is not None else 0

    async def forget(self, channel: str) -> None:
        """Begin a log anew, and tell all who listen."""
        position = await self._opened_logs().forget(channel)
        await self._carry([KeptRecord(Kind.MESSAGE, (channel,), position=position)])

    async def workers(self) -> int | None:
        """Count them by their files, having removed those of the dead."""
        try:
            return self._look().workers
        except BackplaneUnavailable:
            return None

    async def check(self) -> list[str]:
        """Return where it is, and who is there."""
        try:
            workers = self._look().workers
            return [f"{self._open().path}: {workers} worker{'s' * (workers != 1)}"]
        except BackplaneUnavailable as error:
            return [str(error)]

    def _look(self) -> Peers:
        """Return whom to publish to, as of now."""
        directory = self._open()
        assert self._peers is not None
        own = self._listener.name if self._listener is not None else ""
        try:
            self._peers.look(directory, own)
        except OSError as error:
            raise BackplaneUnavailable(f"a worker cannot be connected to: {error}") from None
        return self._peers

    def _open(self) -> Directory:
        """Return the directory; open it where that has not been done, or it has been removed."""
        if self._inbox is None:
            raise BackplaneUnavailable("it has not been started")
        if self._directory is not None:
            if self._is_there(self._directory):
                return self._directory
            self._go_out()
        options = self.options
        try:
            self._directory = open_place(self._path, options.instance, options.prefix)
        except BackplaneUnavailable as error:
            self._inbox.health(str(error))
            raise
        self._inbox.health(None)
        self._write_description(self._directory)
        if self._timer is not None:
            self._listen()
        return self._directory

    def _is_there(self, directory: Directory) -> bool:
        """Return whether others find the directory: now and then also whether it has moved."""
        if not directory.state().st_nlink:
            return False
        now = asyncio.get_running_loop().time()
        if now - self._looked < _INTERVAL:
            return True
        self._looked = now
        return directory.is_in_place()

    def _name_of_worker(self) -> str | None:
        if self._listener is None or ALL not in self._channels:
            return None
        return self._listener.mark

    def _go_out(self) -> None:
        """Do without what others cannot find: else who finds us anew would tell us all twice."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            self._lose(0)
        self._close_store()
        if self._directory is not None:
            self._directory.close(for_good=False)
            self._directory = None

    def _listen(self) -> None:
        directory = self._open()
        if self._listener is not None and not directory.has(self._listener.name):
            self._go_out()
            directory = self._open()
        with explained(directory.path):
            if self._listener is None:
                self._listener = Listener(
                    asyncio.get_running_loop(),
                    directory,
                    self.options.max_size,
                    self._receive,
                    self._lose,
                )
            if ALL in self._channels:
                self._listener.be_worker()

    def _look_again(self) -> None:
        """Be where others find us, whatever has happened to the directory."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_INTERVAL, self._look_again)
        with suppress(BackplaneUnavailable):
            self._listen()

    def _receive(self, record: Record) -> None:
        if self._inbox is not None and not self._channels.isdisjoint(record.channels):
            self._inbox.record(record)

    def _lose(self, count: int) -> None:
        if self._inbox is not None:
            self._inbox.gap(None, count)


def _result(outcome: Record | Published, carried: Iterator[Published]) -> Published:
    """Return what comes of a record, of which we know what came of its way into a log."""
    if not isinstance(outcome, Record):
        return outcome
    refused = next(carried)
    return outcome.position if isinstance(outcome, KeptRecord) else refused
