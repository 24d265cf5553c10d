"""From an upgrade request that was admitted to the end of its connection; knows no Flask."""

from __future__ import annotations

from _socket import socket as Socket
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context
from socket import SHUT_RDWR
from typing import Any

from ..codec import SERVER, Protocol
from ..connection.connection import Connection
from ..connection.states import BROKEN
from ..engines.base import Engine
from ..exceptions import (
    BackplaneUnavailable,
    ConnectionClosed,
    RoomError,
    RoomFull,
    TooManyRooms,
)
from ..helpers.log import RateLimit, log_exception, logger
from ..helpers.wsgi import StartResponse, WSGIEnvironment
from ..metrics.route import RouteMetrics
from ..process.fork import end_of_children
from ..servers.base import Server
from ..servers.find import server_of
from ..servers.upgrade import Headers, upgrade_of
from .negotiate import Negotiation

#: RFC 6455 7.1.6: a close reason is UTF-8 of at most 123 bytes.
MAX_REASON = 123


class Session(ABC):
    """An upgrade request that was admitted, and the connection that it becomes.

    Frameworks derive theirs, which know the handler and what its exceptions mean.

    :param engine: what runs the handler.
    """

    __slots__ = ("engine", "environ", "negotiation", "server")

    def __init__(self, environ: WSGIEnvironment, negotiation: Negotiation, engine: Engine) -> None:
        self.environ = environ
        self.negotiation = negotiation
        self.engine = engine
        self.server: Server = server_of(environ)

    @property
    def route(self) -> RouteMetrics | None:
        """Where its connection is counted, if anywhere."""
        return None

    def refused(self, reason: str, status: int, detail: str) -> None:  # noqa: B027
        """Count a request that failed after it was admitted; see :class:`~.observers.Refusal`."""

    @abstractmethod
    def handle(self, connection: Connection) -> Any:
        """Run the handler; return what is to be awaited, where handlers are coroutines."""

    @abstractmethod
    def report(self, error: BaseException, another_had_left: bool = False) -> tuple[int, str]:
        """Log an exception of the handler; return the close code and reason.

        :param another_had_left: whether it is ConnectionClosed of another client's.
        """

    def serve(self, start_response: StartResponse, *, keep_context: bool = True) -> Sequence[bytes]:
        """Answer 101 and run the handler, in this request; return the body, which is empty.

        :param keep_context: whether the handler sees the request's context variables.
        """
        upgrade_of(self.environ).start_response = start_response
        with self.engine.request():
            try:
                sock = self.server.take(self.environ)
            except OSError as error:
                self.refused("full", 500, str(error))
                raise
            try:
                connection = self.open(sock, self.protocol(), self.negotiation.headers)
            except ConnectionClosed:
                return self.server.leave(start_response)
            self.negotiation.headers.clear()  # they were sent, and would be kept with the rest
            conversation = self.run(connection, self.handle)
            if keep_context:
                self.engine.run(conversation)
            else:
                Context().run(self.engine.run, conversation)
        return self.server.leave(start_response)

    def protocol(self) -> Protocol:
        """Make the protocol of the connection, as it was negotiated."""
        limits = self.negotiation.limits
        return Protocol(
            SERVER,
            max_message_size=limits.max_message_size,
            deflate=self.negotiation.deflate,
            fast=limits.max_rate is None,
        )

    def open(self, sock: Socket, protocol: Protocol, headers: Headers) -> Connection:
        """Answer 101, on a connection taken over, and open it; close it and raise if that fails."""
        server, environ = self.server, self.environ
        try:
            server.switch(environ, sock, headers)
        except BaseException as error:
            sock.close()
            has_left = isinstance(error, ConnectionClosed)
            self.refused("left" if has_left else "app", 0 if has_left else 500, str(error))
            raise
        connection = self._connect(sock, protocol)
        upgrade = upgrade_of(environ)
        # RFC 6455 4.1 has clients wait for the answer before they send more; some do not.
        early, upgrade.early = upgrade.early, b""
        connection.receive_early(early)
        server.detach(environ)
        return connection

    def _connect(self, sock: Socket, protocol: Protocol) -> Connection:
        """Open a connection that is a WebSocket by now; its client hears if that fails."""
        try:
            connection = self.engine.open(sock, protocol, self.negotiation.limits)
        except BaseException:
            with suppress(OSError):
                sock.sendall(protocol.close(1011))
                sock.shutdown(SHUT_RDWR)
            sock.close()
            raise
        connection.route = self.route
        if connection.route is not None:
            connection.route.opened()
        return connection

    async def run(self, connection: Connection, handle: Callable[[Connection], Any]) -> None:
        """Run what handles an open connection, then close it as that has ended."""
        engine = self.engine
        code, reason = 1000, ""
        try:
            connection.interrupt = engine.interrupter()
            try:
                # Here, since a coroutine more would be kept for each open connection, and, with
                # the stack of its greenlet, what C needs to run it.
                with end_of_children():
                    result = handle(connection)
                    if engine.asynchronous and isinstance(result, Awaitable):
                        await engine.drive(result)
            except BaseException as error:  # sys.exit() in a handler must not end the worker
                code, reason = self._code_for(error, connection)
            at_end, connection.at_end = connection.at_end, None  # it may refer to the connection
            if at_end is not None:
                connection.start_closing(code, reason)
                await self.run(connection, lambda _: at_end())
                return
            connection.interrupt = None
            await connection.close(code, reason)
            await connection.finish()
        except BaseException as error:
            if not isinstance(error, (ConnectionClosed, *engine.killed)):
                raise
            # An interrupt that came late: the handler is through.
        finally:
            connection.release()

    def _code_for(self, error: BaseException, connection: Connection) -> tuple[int, str]:
        """Return the close code and reason that a handler's exception means (RFC 6455 7.4.1)."""
        if isinstance(error, self.engine.killed) and connection.ended:
            return 1011, ""  # by us
        if isinstance(error, KeyboardInterrupt) and self.engine.pass_on(error):
            return 1001, ""  # the process ends
        for kind in _EXPECTED:
            if _is_only(kind, error):
                return _warn_of(kind, error)
        if not _is_only(ConnectionClosed, error):
            return self._report_and_count(error, connection)
        if not connection.ended and connection.state is not BROKEN:
            return self._report_and_count(error, connection, another_had_left=True)
        return 1000, ""  # it went on until its client left: nothing to report

    def _report_and_count(
        self, error: BaseException, connection: Connection, another_had_left: bool = False
    ) -> tuple[int, str]:
        code_and_reason = self.report_safely(error, another_had_left)
        if upgrade_of(self.environ).failure is error:  # not a late answer, as by abort()
            connection.traffic.error = type(error).__name__
            if connection.route is not None:
                connection.route.failed()
        return code_and_reason

    def report_safely(
        self, error: BaseException, another_had_left: bool = False
    ) -> tuple[int, str]:
        """Report an exception, even if that raises another; return the close code and reason."""
        try:
            code, reason = self.report(error, another_had_left)
        except BaseException as another:
            log_exception("Exception in reporting that of a WebSocket handler", error=another)
            return 1011, ""
        # What UTF-8 cannot encode, an error's text may have.
        return code, reason.encode(errors="backslashreplace")[:MAX_REASON].decode(errors="ignore")


#: What handlers may leave to us: a log without a traceback for each, since it happens to many.
_EXPECTED: dict[type[RoomError], RateLimit] = {
    kind: RateLimit() for kind in (BackplaneUnavailable, RoomFull, TooManyRooms)
}


def _warn_of(kind: type[RoomError], error: BaseException) -> tuple[int, str]:
    """Log why handlers end that cannot go on for now; return the code for their clients."""
    code = kind.close_code
    if _EXPECTED[kind].passes():
        logger.warning("WebSockets are closed with %d: their handlers ended with %s", code, error)
    return code, ""


def _is_only(kind: type[BaseException], error: BaseException) -> bool:
    """Return whether it is of this kind, or a group of nothing else, as a TaskGroup raises."""
    members = getattr(error, "exceptions", None)  # Python 3.10 has no groups to ask for
    if isinstance(members, tuple) and members:
        return all(isinstance(one, BaseException) and _is_only(kind, one) for one in members)
    return isinstance(error, kind)
