"""Records on their way to the backplane: in their order, one batch at a time."""

from __future__ import annotations

import time
from _thread import RLock
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import count

from ..exceptions import BackplaneUnavailable
from ..helpers.log import RateLimit, logger
from .backplane import Published
from .futures import settle
from .metrics import RoomsMetrics
from .positions import Position
from .record import Kind, Record

#: Bytes of records that may wait: what comes while the backplane is away, or too slow.
MAX_WAITING = 8 << 20

#: And who is told, if anybody.
_Waiting = tuple[Record, Future[Position | None] | None]
#: Publishes a batch; returns what comes of it, as :meth:`.Backplane.publish`.
Publish = Callable[[Sequence[Record]], Awaitable[Sequence[Published]]]


class Outbox:
    """Numbers records, and publishes them in the order in which they were put in.

    Whoever puts one into an empty box starts :meth:`publish_all`, on the loop; all that come
    meanwhile go as the next batch.

    :param origin: what all records of this one publisher carry.
    :param publish: see :data:`Publish`.
    :param start: has the loop run :meth:`publish_all`; from any thread.
    :param metrics: count what was published and what was not.
    """

    def __init__(
        self,
        origin: bytes,
        publish: Publish,
        start: Callable[[], None],
        metrics: RoomsMetrics,
    ) -> None:
        self._origin = origin
        self._publish = publish
        self._start = start
        self._metrics = metrics
        self._lock = RLock()  # which gevent's patch leaves alone: the loop must not wait for a hub
        self._waiting: deque[_Waiting] = deque()
        self._size = self._publishing = 0  # in bytes: what waits, and the batch that has gone
        self._numbers = count(1)  # which a signal handler that publishes cannot interrupt
        self._is_publishing = False
        self._is_running = False  # on the loop
        self._overflow = RateLimit()

    def put(self, record: Record, future: Future[Position | None] | None = None) -> None:
        """Have a record published; from any thread, without waiting.

        :param future: is told when the backplane has it, and its position in a log; or why not.
            What fails without one is only counted.
        """
        starts = False
        try:
            with self._lock:
                fits = self._size < MAX_WAITING
                if fits:
                    number = next(self._numbers)
                    record = replace(
                        record, origin=self._origin, number=number, sent=time.monotonic()
                    )
                    self._waiting.append((record, future))
                    self._size += record.weight
                    starts, self._is_publishing = not self._is_publishing, True
            if starts:
                self._start()
        except BaseException:  # a thread that is interrupted: whoever comes next starts it
            self._is_publishing = False
            raise
        if not fits:
            self._refuse(future)

    def _refuse(self, future: Future[Position | None] | None) -> None:
        counts = self._metrics.backplane
        counts.overflowed += 1
        if future is not None:
            future.set_exception(
                BackplaneUnavailable(f"{MAX_WAITING >> 20} MiB wait for the backplane already")
            )
        elif self._overflow.passes():
            logger.warning(
                "messages to rooms are dropped, %d so far: %d MiB wait for the backplane already",
                counts.overflowed,
                MAX_WAITING >> 20,
            )

    @property
    def pending_bytes(self) -> int:
        """About how many bytes of memory the backplane does not have yet."""
        return self._size + self._publishing

    def is_empty(self) -> bool:
        """Return whether the backplane has all that was put in."""
        return not self._is_publishing

    async def publish_all(self) -> None:
        """Publish what waits, and what comes meanwhile; on the loop, once at a time."""
        if self._is_running:  # it was started by somebody who was interrupted then
            return
        self._is_running = True
        try:
            while batch := self._take():
                await self._publish_batch(batch)
        except BaseException:  # the loop ends, or somebody has cancelled all of its Tasks
            self._is_publishing = False
            raise
        finally:
            self._is_running = False

    async def _publish_batch(self, batch: list[_Waiting]) -> None:
        results: Sequence[Published] = [RuntimeError("interrupted")] * len(batch)
        begin = time.monotonic()
        try:
            results = await self._publish([record for record, _ in batch])
            if len(results) != len(batch):
                raise ValueError(f"of {len(batch)} records it told about {len(results)}")
        except Exception as error:
            results = [error] * len(batch)
        finally:
            self._metrics.backplane.publish.observe(time.monotonic() - begin)
            for (record, future), result in zip(batch, results, strict=True):
                self._settle(record, future, result)

    def _take(self) -> list[_Waiting]:
        with self._lock:
            batch = list(self._waiting)
            self._waiting.clear()
            self._publishing, self._size = self._size, 0
            self._is_publishing = bool(batch)
            return batch

    def _settle(
        self, record: Record, future: Future[Position | None] | None, result: Published
    ) -> None:
        if isinstance(result, BaseException):
            self._metrics.backplane.failed += 1
            settle(future, result)
        else:
            if record.kind is Kind.MESSAGE:
                self._metrics.of(record.channels[0]).published += 1
            if future is not None:
                future.set_result(result)

    def leave_to_parent(self) -> None:
        """Forget all, in a child process."""
        self._lock = RLock()
        self._waiting.clear()
        self._is_publishing = self._is_running = False
