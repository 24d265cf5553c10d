"""Run requests and handlers in one of uWSGI's ways: what an engine has to do."""

from __future__ import annotations

import os
from _socket import socket as Socket
from _thread import RLock
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from ..codec import Protocol
from ..connection.base import Limits
from ..connection.blocking import run_to_end
from ..connection.connection import Connection
from ..connection.detached import Application, Body
from ..connection.worker import Worker
from ..helpers.engines import ENGINES
from ..process.fork import own
from ..process.server_process import ServerProcess

T = TypeVar("T")

_NOTHING = nullcontext()  # one for all: each open connection keeps what its request is within


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
                    worker.start()
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

    @abstractmethod
    def start_task(self, work: Callable[[], Any], timeout: float) -> Any:
        """Run ``work`` beside all requests until the worker stops; from anywhere in it.

        :param work: a coroutine function where handlers are; raises nothing but :attr:`killed`.
        :param timeout: seconds that it has to end, once the worker stops.
        :return: the thread, greenlet or Task, where this is called from one of its kind.
        """

    @abstractmethod
    def call_after(self, wait: Callable[[], None], callback: Callable[[], object]) -> None:
        """Block a thread in ``wait``, then call ``callback`` where the engine's work runs."""

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
