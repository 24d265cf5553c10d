"""The exchange: what a process publishes to its backplane, and hears of it.

It knows no Flask, no server and no connection, so whoever only publishes has one too. The backplane
runs on a loop; everything here may be called from any thread, and waits nowhere. What comes of it
is told to a future.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context
from typing import Any, TypeVar

from ..exceptions import BackplaneUnavailable, RoomError
from ..helpers.log import RateLimit, log_exception, logger
from ..helpers.waiting import within
from .backplane import Backplane, BackplaneOptions, Feature, Inbox, Published
from .backplanes import make_backplane, scheme_of
from .channels import worker_channel
from .futures import all_done, unavailable, uncancellable
from .metrics import RoomsMetrics
from .outbox import Outbox
from .positions import Position
from .questions import ANSWER_TIME, Answers, Questions, answers_to, question_of
from .record import Kind, Record
from .subscriptions import Subscriptions

T = TypeVar("T")

#: How many of the records that came by several channels are remembered.
_REMEMBERED = 4096
#: Seconds that a backplane has to notice by itself that a call takes too long.
_PATIENCE = 1.0


def worker_name() -> str:
    """Return a new name for :class:`.BackplaneOptions`: that of the exchange, and its origin."""
    return os.urandom(8).hex()


class Exchange(Inbox):
    """The backplane of a URL and prefix, as one process uses it; starts with the first use.

    :param options: ``worker`` is from :func:`worker_name`.
    :param loop: returns the loop that the backplane is to run on.
    :param receive: is called with each record to a subscribed channel, on the loop. It must not
        wait.
    :param answer: answers a question of another worker's, on the loop; or returns what is to be
        awaited for the answer.
    :param miss: is called, on the loop, when records of some channels, or of any, may be missing.
    :param metrics: count what becomes of what is published, and how the backplane does.
    """

    def __init__(
        self,
        url: str,
        options: BackplaneOptions,
        loop: Callable[[], asyncio.AbstractEventLoop],
        receive: Callable[[Record], object] = lambda record: None,
        answer: Callable[[Any], Any] | None = None,
        miss: Callable[[Collection[str] | None], object] = lambda channels: None,
        metrics: RoomsMetrics | None = None,
    ) -> None:
        #: What is counted of all this.
        self.metrics = metrics or RoomsMetrics()
        self.options = options
        self.origin = bytes.fromhex(options.worker)
        self._scheme = scheme_of(url)
        self._backplane = make_backplane(url, options)
        self._find_loop = loop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._receive, self._answer, self._miss = receive, answer, miss
        self._starting: asyncio.Future[None] | None = None
        self._started = False
        self._will_send: Callable[[], bool] = lambda: False
        self._tasks: set[asyncio.Task[None]] = set()  # asyncio itself refers to them weakly
        self._outbox = Outbox(self.origin, self._publish, self._start_outbox, self.metrics)
        self._subscriptions = Subscriptions(self._subscribe, self._unsubscribe, self.run_soon)
        self._questions = Questions(self.publish, self._workers)
        self._seen: OrderedDict[tuple[bytes, int], None] = OrderedDict()
        #: Why the backplane does not work; None while it does.
        self.error: str | None = None
        self._warning, self._failure, self._gap = RateLimit(), RateLimit(), RateLimit()
        self._warned = False  # that the backplane is not available

    # -- from any thread -----------------------------------------------------------------

    def send(self, record: Record) -> Future[Position | None]:
        """Publish a record, behind all that were sent before.

        :return: is done when the backplane has it, with its position if it is in a log; or has
            :exc:`.BackplaneUnavailable`.
        """
        future = uncancellable()
        self._outbox.put(record, future)
        return future

    def send_all(self, records: Sequence[Record]) -> Future[Position | None]:
        """Publish records, as :meth:`send`; the result of several is None."""
        if len(records) == 1:
            return self.send(records[0])
        sent: Future[Position | None] = uncancellable()
        all_done([self.send(record) for record in records], sent)
        return sent

    def send_nowait(self, record: Record) -> None:
        """Publish a record, behind all that were sent before; what is lost is only counted."""
        self._outbox.put(record)

    def subscribe(self, channel: str) -> Future[None] | None:
        """Have the records of a channel; as many times as :meth:`unsubscribe` is called for it.

        :return: is done when the subscription is in force; or has :exc:`.BackplaneUnavailable`,
            and the channel stays wanted. None when it is in force already.
        """
        return self._subscriptions.add(channel, again=self.error is not None)

    def unsubscribe(self, channel: str) -> None:
        """Have its records no longer, unless others want them."""
        self._subscriptions.remove(channel)

    def run_soon(self, work: Callable[[], Coroutine[Any, Any, None]], delay: float = 0.0) -> None:
        """Have the loop run something, some seconds from now."""
        loop = self._get_loop()
        with suppress(RuntimeError):  # it is closed: the process ends
            # In no context, since the Task would keep that of a request.
            loop.call_soon_threadsafe(self._run, work, delay, context=Context())

    @property
    def is_busy(self) -> bool:
        """Whether something that was sent has not gone out yet."""
        return not self._outbox.is_empty() or self._will_send()

    def also_sends(self, will_send: Callable[[], bool]) -> None:
        """Count as busy also while another one, who sends through this one, is about to."""
        self._will_send = will_send

    @property
    def pending_bytes(self) -> int:
        """Bytes of what was sent and has not gone out yet."""
        return self._outbox.pending_bytes + self._backplane.pending_bytes

    @property
    def log_bytes(self) -> int:
        """Bytes of all that rooms keep, where this machine keeps it."""
        return self._backplane.log_bytes

    # -- coroutines, for any loop --------------------------------------------------------

    async def publish(self, record: Record) -> None:
        """Do :meth:`send`, and wait for it."""
        await asyncio.wrap_future(self.send(record))

    async def ask(self, question: Mapping[str, Any]) -> Answers:
        """Ask all workers that are subscribed to :data:`~.channels.ALL`.

        :raises BackplaneUnavailable: where that is impossible.
        """
        try:
            return await self.on_loop(self._bounded(self._ask(question), ANSWER_TIME))
        except (OSError, asyncio.TimeoutError) as error:
            raise unavailable(error) from None

    async def call(self, feature: Feature, do: Callable[[Backplane], Awaitable[T]]) -> T:
        """Have the backplane do what not each can.

        :raises BackplaneUnavailable: where it cannot do that now.
        :raises RoomError: where it never can.
        """
        if feature not in self._backplane.features:
            raise RoomError(
                f"the backplane ({self._scheme}) knows no {feature} of rooms: set "
                "UWSGI_WEBSOCKET_BACKPLANE to local://, redis:// or memory://"
            )
        try:
            return await self.on_loop(self._call(do))
        except RoomError:
            raise
        except (OSError, asyncio.TimeoutError) as error:
            raise unavailable(error) from error

    async def check(self) -> list[str]:
        """Return what an operator should know: see :meth:`.Backplane.check`."""
        return await self.on_loop(self._check())

    async def flush(self) -> None:
        """Wait until what was sent has gone out, or cannot."""
        while self.is_busy:
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Give what was sent a moment to go out, then end; the next use starts it again."""
        with suppress(asyncio.TimeoutError):
            await within(self.options.timeout, self.flush())
        await self.on_loop(self._end())

    # -- on the loop ---------------------------------------------------------------------

    async def _ask(self, question: Mapping[str, Any]) -> Answers:
        channel = worker_channel(self.options.worker)
        subscribing = self.subscribe(channel)
        try:
            if subscribing is not None:
                await asyncio.wrap_future(subscribing)
            return await self._questions.ask(question)
        finally:
            self.unsubscribe(channel)

    async def _check(self) -> list[str]:
        await self._start()
        return await self._backplane.check()

    async def _call(self, do: Callable[[Backplane], Awaitable[T]]) -> T:
        await self._start()
        return await self._bounded(do(self._backplane))

    async def _end(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await self._backplane.stop()
        self._started = False

    # -- the backplane's calls -----------------------------------------------------------

    def record(self, record: Record) -> None:
        if record.served and record.origin == self.origin:
            return
        if len(record.channels) > 1 and self._has_come(record):
            return
        try:
            self._handle(record)
        except Exception as error:
            self._log_failure(error)

    def _log_failure(self, error: Exception) -> None:
        if self._failure.passes():
            log_exception("a record of the backplane could not be handled", error=error)

    def _handle(self, record: Record) -> None:
        if record.kind is Kind.ANSWER:
            self._questions.take(record)
        elif record.kind is not Kind.ASK:
            self._receive(record)
        elif self._answer is not None:
            self._reply(record, self._answer(question_of(record)))

    def _reply(self, record: Record, answer: Any) -> None:
        """Answer a question: now, or when that is known."""
        if inspect.iscoroutine(answer):
            task = self._begin(self._reply_later(record, answer))
            # One that is cancelled before it began has not awaited it.
            task.add_done_callback(lambda _: answer.close())
            return
        for each in answers_to(record, answer, self.options.max_size // 2):
            self.send_nowait(each)

    async def _reply_later(self, record: Record, answer: Awaitable[Any]) -> None:
        try:
            self._reply(record, await answer)
        except Exception as error:
            self._log_failure(error)

    def _has_come(self, record: Record) -> bool:
        """Return whether a record has come by another one of its channels."""
        key = record.origin, record.number
        if key in self._seen:
            return True
        self._seen[key] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return False

    def gap(self, channels: Collection[str] | None = None, lost: int = 0) -> None:
        self.metrics.backplane.gaps += 1
        self.metrics.backplane.lost += lost
        self._miss(channels)
        if self._gap.passes():
            logger.warning(
                "messages to rooms may be missing: the backplane (%s) was away, or too slow",
                self._scheme,
            )

    def health(self, error: str | None) -> None:
        if error is None and self.error is not None:
            self.metrics.backplane.reconnects += 1
        if error is not None and self._warning.passes():
            logger.warning("the backplane (%s) is not available: %s", self._scheme, error)
            self._warned = True
        elif error is None and self._warned:  # whoever has read the one looks for the other
            logger.warning("the backplane (%s) is back", self._scheme)
            self._warned = False
        self.error = error

    # -- how it runs ---------------------------------------------------------------------

    def _get_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = self._find_loop()
        return self._loop

    async def on_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on our loop, for one that runs on whichever."""
        loop = self._get_loop()
        if asyncio.get_running_loop() is loop:
            return await coroutine
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))

    def _run(self, work: Callable[[], Coroutine[Any, Any, None]], delay: float) -> None:
        assert self._loop is not None
        if delay > 0:
            self._loop.call_later(delay, self._run, work, 0.0)
            return
        self._begin(work())

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._get_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _start(self) -> None:
        """Start the backplane, if that was not done; wait until it is."""
        if self._started:
            return
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._backplane.start(self))
        try:
            await self._bounded(asyncio.shield(self._starting))
            self._started = True
        finally:
            if self._starting is not None and self._starting.done():
                self._starting = None

    def _start_outbox(self) -> None:
        self.run_soon(self._outbox.publish_all)

    async def _publish(self, records: Sequence[Record]) -> Sequence[Published]:
        # What this process has subscribed to before it publishes, it hears.
        if (subscribing := self._subscriptions.newest) is not None and not subscribing.done():
            with suppress(BackplaneUnavailable):
                await asyncio.wrap_future(subscribing)
        await self._start()
        return await self._bounded(self._backplane.publish(records))

    async def _subscribe(self, channels: Collection[str]) -> None:
        await self._start()
        await self._bounded(self._backplane.subscribe(channels))

    async def _unsubscribe(self, channels: Collection[str]) -> None:
        with suppress(Exception):
            await self._bounded(self._backplane.unsubscribe(channels))

    async def _workers(self) -> int | None:
        await self._start()
        return await self._bounded(self._backplane.workers())

    def _bounded(self, call: Awaitable[T], more: float = 0.0) -> Coroutine[Any, Any, T]:
        return within(self.options.timeout + _PATIENCE + more, call)

    def leave_to_parent(self) -> None:
        """Do nothing more, in a child process."""
        self._outbox.leave_to_parent()
        self._subscriptions.leave_to_parent()
