"""gevent: a hub callback reads for each connection; greenlets wait by switching to the hub."""

from __future__ import annotations

import time
from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar, cast

import gevent
from gevent import get_hub, getcurrent
from gevent.event import Event
from gevent.monkey import get_original

from ..connection.base import Message
from ..connection.blocking import DONE, BlockingConnection, run_to_end
from ..connection.detached import Application, Body
from ..connection.worker import leave_alone
from ..exceptions import ConnectionClosed
from ..helpers.threads import wait_until
from ..process.signals import STOP_SIGNALS, is_unheeded
from .base import WOULD_STOP_LOOP, Bell, Engine
from .gevent_detached import GeventDetachedRequest
from .gevent_worker import GeventWorker
from .loop import LoopConnection

T = TypeVar("T")
_get_ident = get_original("_thread", "get_ident")
_sleep = get_original("time", "sleep")
#: Seconds.
FOR_EVER = 1e8


class GeventConnection(LoopConnection, BlockingConnection):
    """A connection whose waiting switches to the hub."""

    worker: GeventWorker

    __slots__ = ("_hub",)

    def __init__(self, *opened: Any) -> None:
        super().__init__(*opened)
        self._hub = self.worker.hub

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._run_here(partial(run_to_end, coroutine))

    def _run_here(self, function: Callable[[], T]) -> T:
        """Run what waits, in another greenlet for whoever is in another thread than the hub's."""
        if self.worker.on_loop():
            return function()
        result: Future[T] = Future()

        def work() -> None:
            try:
                result.set_result(function())
            except BaseException as error:
                result.set_exception(error)

        self.worker.call_soon(partial(gevent.spawn, work))
        return result.result()

    def receive_blocking(
        self, timeout: float | None = None, waited: bool = False
    ) -> Message | None:
        if _get_ident() != self.worker.thread:  # on_loop(), without a call for each message
            return self._run_here(partial(super().receive_blocking, timeout))
        if timeout is not None or self._waiter is not None:
            return super().receive_blocking(timeout)
        while not self._messages and self._wants_more():
            waited = True
            self._waiter = getcurrent()
            try:
                message = self._hub.switch()
            finally:
                self._waiter = None
            if message or isinstance(message, (str, bytes)):  # a switch without one gives ()
                self._replying = True
                return message
        message = self.take()
        return super().receive_blocking(None, waited) if message is None else message

    def _wait_input(self, ready: Callable[[], bool], deadline: float | None) -> Awaitable[None]:
        me = getcurrent()
        while not ready():
            timer = None
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    self._give_up(ready)
                    break
                timer = self._hub.loop.timer(left)
                timer.start(me.switch)
            self._waiting.append(me)
            try:
                self._hub.switch()
            finally:
                self._waiting.remove(me)
                if timer is not None:
                    timer.stop()
                    timer.close()
        return DONE

    _wait_output = _wait_input

    def _pause(self, seconds: float) -> Awaitable[None]:
        if not self.worker.on_loop():
            _sleep(seconds)
        elif getcurrent() is not self._hub:  # which runs callbacks, and must not wait
            gevent.sleep(seconds)
        return DONE

    def _wake(self) -> None:
        if not self._waiting and self._waiter is None:
            return
        if getcurrent() is not self._hub:
            self.worker.call_soon(self._wake)
            return
        if self._waiter is not None:
            self._waiter.switch()
        for greenlet in tuple(self._waiting):
            if greenlet in self._waiting:
                greenlet.switch()

    def _unwatch_in_child(self) -> None:
        self._unwatch()  # in the hub's epoll, which is another one than the parent's by now


class GeventEngine(Engine):
    """A greenlet for each request."""

    name = "gevent"
    worker_class = GeventWorker
    connection_class = GeventConnection
    killed = (gevent.GreenletExit,)

    def prepare(self) -> None:
        # Our clock replaces a worker where uWSGI would not.
        self.when_serving(self.worker)

    def worker(self) -> GeventWorker:
        return cast(GeventWorker, super().worker())

    def leave_to_parent(self) -> None:
        # As gevent's own os.fork() does. Not every fork is that: without the patch none is.
        gevent.reinit()
        super().leave_to_parent()

    def run_detachable(self, application: Application) -> Body:
        detached = GeventDetachedRequest(self, application)
        self.process.bind_request(detached)
        detached.start()
        body: Body | None = detached.answer.get()
        if body is not None:
            return body
        # libev leaves descriptors in its epoll, where this one would outlive its number: with our
        # duplicate the connection stays open. At its next event libev would make another epoll, of
        # all connections.
        self.process.unwatch_request(self.worker().hub.loop.fileno())
        return ()

    def at_end(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        if self.process.gives_signals:  # and tells the end of each request, as if it were the last
            self.worker().at_end.append(partial(self._end, work))
        else:
            super().at_end(work)

    def call_at_end(self, callback: Callable[[], None]) -> None:
        if self.process.gives_signals:  # see at_end
            self.worker().at_end.append(callback)
        else:
            super().call_at_end(callback)

    def when_serving(self, callback: Callable[[], object]) -> None:
        def wait() -> None:
            wait_until(self._is_serving, sleep=gevent.sleep)
            callback()

        gevent.spawn(wait)

    def _is_serving(self) -> bool:
        # The hub may run in a hook of the app's that waits. If we watched for signals then, uWSGI
        # would put its own handlers in the place of the hub's, and never stop in peace.
        early = self.process.gives_signals and any(map(is_unheeded, STOP_SIGNALS))
        return not early and self.process.is_serving()

    def call_after(self, wait: Callable[[], None], callback: Callable[[], object]) -> None:
        worker = self.worker()

        def run() -> None:
            wait()
            worker.call_soon(callback)

        get_original("_thread", "start_new_thread")(run, ())

    def start_task(self, work: Callable[[], Any], timeout: float, finish: bool = False) -> Any:
        worker = self.worker()
        if not worker.on_loop():
            worker.call_soon(partial(self.start_task, work, timeout, finish))
            return None
        task = gevent.Greenlet(work)
        task.link(lambda _: worker.tasks.pop(task, None))
        kill = partial(task.kill, block=False)
        worker.add_task(task, leave_alone if finish else kill, timeout)
        task.start()
        return task

    def _make_bell(self, loop: AbstractEventLoop) -> Bell:
        worker = self.running_worker()
        if worker is not None and not worker.on_loop():  # a thread without greenlets
            return super()._make_bell(loop)
        hub = get_hub()
        if getcurrent() is hub:
            raise RuntimeError(WOULD_STOP_LOOP)
        bell = Event()

        def wait(seconds: float | None) -> bool:
            # A hub with nothing to wait for, not even a timer, gives up: it knows no other threads.
            return bool(bell.wait(FOR_EVER if seconds is None else seconds))

        return wait, partial(hub.loop.run_callback_threadsafe, bell.set)

    def sleep(self, seconds: float) -> None:
        """Let other greenlets run."""
        gevent.sleep(seconds)

    def call_in_background(self, delay: float, callback: Callable[[], None]) -> None:
        gevent.spawn_later(delay, callback)

    def pass_on(self, error: KeyboardInterrupt) -> bool:
        if self.process.gives_signals:
            return False
        # As the hub does with one that leaves a greenlet: the main greenlet runs the server. Not
        # before this one waits: its client shall be told.
        hub = get_hub()
        hub.loop.run_callback(hub.handle_system_error, KeyboardInterrupt, error)
        return True

    def interrupter(self) -> Callable[[], object] | None:
        greenlet = getcurrent()
        return _Interrupter(greenlet) if isinstance(greenlet, gevent.Greenlet) else None


class _Interrupter:
    """Breaks into a handler. A class, since each open connection keeps one: see end_of_children."""

    __slots__ = ("_again", "_greenlet")

    def __init__(self, greenlet: gevent.Greenlet) -> None:
        self._greenlet = greenlet
        self._again = False

    def __call__(self) -> None:
        error: BaseException = gevent.GreenletExit()  # no `except Exception` swallows it
        if not self._again:
            error = ConnectionClosed(1006, "the handler did not notice the end")
        self._again = True
        self._greenlet.kill(error, block=False)
