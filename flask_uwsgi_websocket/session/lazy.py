"""A handshake that waits for the handler's first use of its connection."""

from __future__ import annotations

import threading
from _socket import socket as Socket
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, cast

from ..codec import Protocol
from ..connection.base import Limits
from ..connection.connection import Connection
from ..exceptions import ConnectionClosed
from ..process.fork import end_of_children
from ..servers.upgrade import Headers
from .session import Session

#: Seconds after which the handshake waits no longer: a client must not wait for its answer, nor
#: a core be held by one that has left unseen, because a handler waits for something else first.
OPEN_TIME = 1.0


class Unopened:
    """Stands for a :class:`~.connection.connection.Connection` until it is used.

    :param open_: answers the handshake and returns the connection; called once.
    """

    close_code = None
    close_reason = None
    latency = None

    def __init__(self, protocol: Protocol, limits: Limits, open_: Callable[[], Connection]) -> None:
        self.protocol = protocol
        self.limits = limits
        self.connection: Connection | None = None
        #: Why it cannot be opened, once that was tried.
        self.failed: BaseException | None = None
        #: Whether it was opened because :data:`OPEN_TIME` was over.
        self.opened_late = False
        self._withdrawn = False
        #: Called with the connection, which then takes the place of this.
        self.opened: Callable[[Connection], None] = lambda connection: None
        self._open = open_
        # Of threading, which gevent replaces: what opens may let other greenlets run.
        self._lock = threading.RLock()

    def open(self) -> Connection:
        """Answer the handshake, if that was not done, and return the connection.

        :raises BaseException: what went wrong; ConnectionClosed when the client has gone.
        """
        with self._lock:
            if self._withdrawn:
                raise ConnectionClosed(1006, "the handler has refused it")
            if self.failed is not None:
                raise self.failed
            if self.connection is None:
                try:
                    self.connection = self._open()
                except BaseException as error:
                    self.failed = error
                    raise
                self.opened(self.connection)
            return self.connection

    def open_late(self) -> None:
        """Open it, unless that was done or will not be."""
        with self._lock:
            if self.connection is None and not self._withdrawn:
                self.opened_late = True
                with suppress(BaseException):  # the handler gets it when it opens
                    self.open()

    def withdraw(self) -> bool:
        """Give up opening it; return False if it is open."""
        with self._lock:
            self._withdrawn = self.connection is None
            return self._withdrawn

    def __getattr__(self, name: str) -> Any:
        return getattr(self.open(), name)


class LazySession(Session):
    """A session whose handler may run before its handshake, and answer otherwise."""

    __slots__ = ()

    @abstractmethod
    def late_headers(self) -> Headers:
        """Return the header fields of the 101, when it is about to be sent."""

    @abstractmethod
    def meaning(self, result: Any) -> Any:
        """Return the answer that the handler's result means; None if it is none."""

    @abstractmethod
    def forgives(self, error: BaseException) -> bool:
        """Return whether an exception, after the first use, is no fault of the handler's."""

    def serve_lazily(self) -> Any:
        """Run the handler, and accept the connection when the handler first uses it.

        :return: what the handler returned instead of using its connection; None once that was
            used, or otherwise answered.
        :raises Exception: what the handler raised instead.
        """
        with self.engine.request():
            attempt = _Attempt(self, self.server.take(self.environ))
            # The worker belongs to the thread, and its loop, that asks for it first: this one.
            worker = self.engine.worker()
            worker.expect(attempt)
            try:
                self.engine.run(attempt.run())
            finally:
                worker.expected.discard(attempt)
                attempt.sock.close()
        return attempt.outcome()


class _Attempt:
    """A handler that runs before its handshake."""

    def __init__(self, session: LazySession, sock: Socket) -> None:
        self.sock = sock
        self._session = session
        self._protocol = session.protocol()
        self._interrupt: Callable[[], object] | None = None
        self._answer: Any = None
        # Until it has run to an end: a Task can be cancelled at any point.
        self._failure: BaseException | None = RuntimeError("the handler was cancelled")

    def outcome(self) -> Any:
        """Return, or raise, what the handler answers in place of the handshake, if anything."""
        failure = self._failure
        if failure is None:
            return self._answer
        if isinstance(failure, Exception):
            raise failure
        # A SystemExit would end the worker; a CancelledError is not the request's.
        raise RuntimeError(f"the handler ended with {type(failure).__name__}") from failure

    async def run(self) -> None:
        """Run the handler and, unless it has answered otherwise, the connection to its end."""
        session, engine = self._session, self._session.engine
        self._interrupt = engine.interrupter()
        unopened = Unopened(self._protocol, session.negotiation.limits, self._open)
        engine.call_in_background(OPEN_TIME, unopened.open_late)
        answer, failure = None, None
        try:
            with end_of_children():
                answer = session.handle(cast(Connection, unopened))
                if engine.asynchronous and isinstance(answer, Awaitable):
                    answer = await engine.drive(answer)
                answer = session.meaning(answer)
        except BaseException as error:
            failure = error
        if unopened.failed:  # and was answered
            self._failure = None
        elif (failure is not None or answer is not None) and unopened.withdraw():
            if isinstance(failure, KeyboardInterrupt):
                engine.pass_on(failure)
            self._answer, self._failure = answer, failure
        else:
            self._failure = None
            await self._go_on(unopened, answer, failure)

    async def _go_on(self, unopened: Unopened, answer: Any, failure: BaseException | None) -> None:
        """End the connection as the handler has ended."""

        def conclude(connection: Connection) -> None:
            if failure is not None and (
                unopened.opened_late or not self._session.forgives(failure)
            ):
                raise failure
            if answer is not None and unopened.opened_late:
                connection.start_closing(1008, "refused")

        try:
            connection = unopened.open()
        except BaseException:
            return  # it was answered, or the client has left
        await self._session.run(connection, conclude)

    def _open(self) -> Connection:
        """Answer the handshake: 101, or 500 if its header fields cannot be made."""
        session = self._session
        try:
            headers = session.late_headers()
        except BaseException as error:
            session.report_safely(error)
            session.server.fail(session.environ, self.sock)
            session.refused("app", 500, str(error))
            raise
        session.engine.worker().expected.discard(self)  # or the connection would count twice
        connection = session.open(self.sock, self._protocol, headers)
        connection.interrupt = self._interrupt
        return connection
