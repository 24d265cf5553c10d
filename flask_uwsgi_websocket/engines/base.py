"""Run requests and handlers in one of uWSGI's ways: what an engine has to do."""

from __future__ import annotations

import asyncio
import os
from _socket import socket as Socket
from _thread import RLock
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext, suppress
from contextvars import Context
from functools import partial
from typing import Any, TypeVar

from ..codec import Protocol
from ..connection.base import Limits
from ..connection.blocking import run_to_end
from ..connection.connection import Connection
from ..connection.detached import Application, Body
from ..connection.worker import Worker
from ..helpers.engines import ENGINES
from ..helpers.threads import unpatched
from ..process.fork import own
from ..process.server_process import ServerProcess
from .async_call import AsyncCall, runs_here
from .async_thread import process_loop

T = TypeVar("T")

#: How to wait, for some seconds at most or for ever, and what ends that from any thread.
Bell = tuple[Callable[[float | None], bool], Callable[[], object]]

_NOTHING = nullcontext()  # one for all: each open connection keeps what its request is within


#: Seconds that a process which exits has for each of the last things that it does.
END_TIME = 1.0

#: The error for whoever must not wait.
WOULD_STOP_LOOP = (
    "waiting here would stop the loop that everybody waits for: await in a coroutine, "
    "and use send_nowait() in a callback"
)


class Engine(ABC):
    """One way to run handlers: makes connections, and runs the rules in a request."""

    #: Its key in :data:`~.helpers.engines.ENGINES`.
    name: str
    #: What ends a handler from outside, without being an error of its own.
    killed: tuple[type[BaseException], ...] = ()
    worker_class: type[Worker]
    connection_class: type[Connection]

    def __init__(self, process: ServerProcess) -> None:
        self.process = process
        self._workers: dict[int, Worker] = {}  # by process: a fork must not inherit it
        self._starting = RLock()
        own(self)

    @property
    def asynchronous(self) -> bool:
        """Whether handlers are coroutine functions."""
        return ENGINES[self.name].asynchronous

    def prepare(self) -> None:  # noqa: B027
        """Do what must be done in each worker before it serves its first request."""

    def _make_worker(self) -> Worker:
        return self.worker_class(self.process)

    def worker(self) -> Worker:
        """Return the worker of this process; make it, on the loop of whoever asks first."""
        pid = os.getpid()
        worker = self._workers.get(pid)
        if worker is None:
            with self._starting:
                worker = self._workers.get(pid)
                if worker is None:
                    worker = self._make_worker()
                    # In no context: its timers keep that which they are set in, for ever.
                    Context().run(worker.start)
                    self._workers[pid] = worker
        return worker

    def running_worker(self) -> Worker | None:
        """Return the worker of this process, if it has been made."""
        return self._workers.get(os.getpid())

    def leave_to_parent(self) -> None:
        """Give up what is the parent's, in a child process; see fork.py."""
        self._starting = RLock()
        workers, self._workers = self._workers, {}
        for worker in workers.values():
            worker.leave_to_parent()

    def open(self, sock: Socket, protocol: Protocol, limits: Limits) -> Connection:
        """Take over a descriptor after its handshake."""
        worker = self.worker()
        connection = self.connection_class(sock, protocol, limits, worker)
        worker.add(connection)
        return connection

    def request(self) -> AbstractContextManager[None]:
        """Surround a request that becomes a WebSocket, from before its handshake."""
        return _NOTHING

    def run_detachable(self, application: Application) -> Body:
        """Run a request that asks for a WebSocket so that it can be detached; see detached.py."""
        raise NotImplementedError

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a handler and what belongs to it, in a request."""
        run_to_end(coroutine)

    def call_in_background(self, delay: float, callback: Callable[[], None]) -> None:
        """Call what may wait, beside the calling request, ``delay`` seconds from now."""
        self.worker().call_later(delay, callback)

    @abstractmethod
    def when_serving(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` once this process serves; from where it is prepared for that."""

    def begin_on_loop(self, callback: Callable[[], object]) -> None:
        """Call ``callback``, which must not wait, on the worker's loop, once this process serves;
        from where it is prepared for that."""
        self.when_serving(lambda: self.worker().run_on_loop(callback))

    @abstractmethod
    def start_task(self, work: Callable[[], Any], timeout: float, finish: bool = False) -> Any:
        """Run ``work`` beside all requests until the worker stops; from anywhere in it.

        :param work: a coroutine function where handlers are; raises nothing but :attr:`killed`.
        :param timeout: seconds that it has to end, once the worker stops.
        :param finish: whether nothing breaks into it then.
        :return: the thread, greenlet or Task, where this is called from one of its kind.
        """

    @abstractmethod
    def call_after(self, wait: Callable[[], None], callback: Callable[[], object]) -> None:
        """Block a thread in ``wait``, then call ``callback`` where the engine's work runs."""

    def async_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop for asynchronous work of this process, such as that of its backplanes.

        It is the worker's own under asyncio, elsewhere one in a native thread.
        """
        return process_loop()

    def run_async(self, coroutine: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Wait as blocking handlers do until a coroutine has run on :meth:`async_loop`.

        What it had called on the worker's loop has been called then. It sees no context variable of
        the caller's, and is cancelled when something breaks into the wait.

        :raises TimeoutError: after ``timeout`` seconds.
        :raises concurrent.futures.CancelledError: where it was cancelled.
        :raises RuntimeError: where waiting would stop a loop.
        """
        try:
            loop = self.async_loop()
            wait, ring = self._make_bell(loop)
        except BaseException:
            coroutine.close()  # no "was never awaited"
            raise
        call = AsyncCall(coroutine, loop, ring)
        try:
            wait(timeout)
        except BaseException:
            call.abandon()
            raise
        if not call.is_over():
            call.abandon()
            raise TimeoutError
        return call.result()

    def at_end(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Have a coroutine run when this process is about to exit, and has no connection left.

        It has :data:`END_TIME`. It may be run twice, and is not by a process that is killed.
        """
        self.process.at_exit(partial(self._end, work))

    def call_at_end(self, callback: Callable[[], None]) -> None:
        """Call what does not wait, in the same moment; perhaps twice, from whichever thread."""
        self.process.at_exit(callback)

    def ends_for_good(self) -> bool:
        """Return, at the end of this process, whether its whole instance ends."""
        worker = self.running_worker()
        code = None if worker is None else worker.stopping
        return code == 1001 or (code is None and self.process.is_interrupted())

    def _end(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        if self.async_loop().is_running():
            with suppress(Exception):
                self.run_async(work(), END_TIME)

    def block(
        self, begin: Callable[[Callable[[], object]], object], timeout: float | None = None
    ) -> bool:
        """Wait as blocking handlers do for a call; in fewer steps than :meth:`run_async`.

        :param begin: begins what is waited for, and is given what that calls at its end, from any
            thread.
        :return: whether the call came, within ``timeout`` seconds.
        :raises RuntimeError: where waiting would stop a loop; then nothing has begun.
        """
        wait, ring = self._make_bell(self.async_loop())
        begin(ring)
        return wait(timeout)

    def _make_bell(self, loop: asyncio.AbstractEventLoop) -> Bell:
        """Return a bell for the caller. It rings on the worker's loop, behind earlier calls.

        :raises RuntimeError: where the caller would stop that, or ``loop``.
        """
        worker = self.running_worker()
        if runs_here(loop) or (worker is not None and worker.on_loop()):
            raise RuntimeError(WOULD_STOP_LOOP)
        lock = unpatched("_thread", "allocate_lock")()
        lock.acquire()

        def wait(seconds: float | None) -> bool:
            return bool(lock.acquire(timeout=-1 if seconds is None else max(seconds, 0)))

        ring = lock.release
        return wait, ring if worker is None else partial(worker.call_soon, ring)

    def sleep(self, seconds: float) -> None:
        """Wait as blocking handlers do."""
        raise NotImplementedError

    def drive(self, awaitable: Awaitable[T]) -> Awaitable[T]:
        """Return what awaits an asynchronous handler in the quickest way."""
        return awaitable

    def pass_on(self, error: KeyboardInterrupt) -> bool:
        """Pass a ctrl-C, which came while a handler ran, on to whoever waits for it; False: nobody.

        Python raises it in its main thread, where elsewhere no handler runs.
        """
        return False

    def interrupter(self) -> Callable[[], object] | None:
        """Return what breaks into the running handler; None where nothing can."""
        return None
