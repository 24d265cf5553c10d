"""From an upgrade request to the end of its connection: knows no Flask, any WSGI server side.

A middleware asks whether a request :func:`is_upgrade_request`, checks it, and has
:func:`negotiate` choose among its offers; :func:`serve` answers the handshake and runs the handler
in the request, and the handler's outcome closes the connection.
"""

from __future__ import annotations

import contextvars
from _socket import socket as Socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import responses
from socket import SHUT_RDWR
from typing import TYPE_CHECKING, Any, cast

from ..codec import (
    SERVER,
    Deflate,
    DeflateSettings,
    Protocol,
    UpgradeRequest,
    response_headers,
    select_subprotocol,
)
from ..codec import negotiate as negotiate_compression
from ..connection.connection import Connection
from ..connection.limits import Limits
from ..engines.base import Engine
from ..exceptions import ConnectionClosed, EngineError, HandshakeError
from ..helpers.log import RateLimit, log_exception, logger
from ..helpers.text import path_of, printable
from ..process.fork import end_of_children
from ..servers.base import UWSGI_SERVER, Server
from ..servers.upgrade import Headers, check_headers, upgrade_of
from .lazy import OPEN_TIME, Unopened

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

#: Is called with an exception of a handler, says so, and gives the close code and reason.
Report = Callable[..., tuple[int, str]]

#: RFC 6455 7.1.6: a close reason is UTF-8 of at most 123 bytes.
MAX_REASON = 123


@dataclass(frozen=True)
class Settings:
    """What a server offers to one connection."""

    limits: Limits = field(default_factory=Limits)
    subprotocols: Sequence[str] = ()
    #: Whether a client must offer one of them.
    require_subprotocol: bool = False
    #: permessage-deflate (RFC 7692), where the client offers it; None turns it off.
    compression: DeflateSettings | None = None


@dataclass(frozen=True)
class Negotiation:
    """What client and server agreed on in the opening handshake."""

    headers: list[tuple[str, str]]
    subprotocol: str | None
    deflate: Deflate | None
    settings: Settings


def negotiate(request: UpgradeRequest, settings: Settings) -> Negotiation:
    """Choose among what the client offers (RFC 6455 4.2.2, RFC 7692 5).

    :raises HandshakeError: 400, when it offers no subprotocol of those that it must.
    """
    subprotocol = select_subprotocol(request.subprotocols, settings.subprotocols)
    if subprotocol is None and settings.require_subprotocol:
        names = ", ".join(settings.subprotocols)
        raise HandshakeError(400, f"Sec-WebSocket-Protocol must offer a subprotocol of: {names}")
    deflate, extensions = None, None
    if settings.compression is not None:
        deflate, extensions = negotiate_compression(request.extensions, settings.compression)
    headers = response_headers(request.key, subprotocol, extensions or None)
    return Negotiation(headers, subprotocol, deflate, settings)


#: Header fields of which only the handshake knows how they must be in a 101, and those which it
#: must not have. RFC 9110 8.6: "A server MUST NOT send a Content-Length header field in any
#: response with a status code of 1xx (Informational)"; RFC 9112 6.1 says it of Transfer-Encoding;
#: and there is no content to describe.
_NOT_IN_101 = {
    "connection",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "keep-alive",
    "trailer",
    "transfer-encoding",
    "upgrade",
}


def switch_headers(negotiation: Negotiation, others: Iterable[tuple[str, str]]) -> Headers:
    """Give the header fields of the 101: what was agreed on, and what others may add to it.

    :raises ValueError: for header fields that cannot be sent.
    """
    fields = [
        (name, value)
        for name, value in others
        if name.lower() not in _NOT_IN_101 and not name.lower().startswith("sec-websocket-")
    ]
    check_headers(fields)
    return negotiation.headers + fields


def is_upgrade_request(environ: WSGIEnvironment) -> bool:
    """Whether somebody means to open a WebSocket, right or wrong."""
    return (
        "HTTP_SEC_WEBSOCKET_KEY" in environ
        or "websocket" in environ.get("HTTP_UPGRADE", "").lower()
    )


def answer_to(error: EngineError, *, tell: bool = False) -> HandshakeError:
    """Make what a client gets of an error that the log has.

    :param tell: whether the client is the developer.
    """
    reason = str(error) if tell else "WebSockets do not work here; the server's log says why"
    return HandshakeError(error.status, reason)


_upgrade_lost = RateLimit()


def log_lost_upgrade(error: HandshakeError, environ: WSGIEnvironment) -> None:
    """Log, seldom, that a proxy in front has kept the upgrade of a handshake to itself."""
    lost = (
        environ.get("SERVER_PROTOCOL") == "HTTP/1.0"
        or "websocket" not in environ.get("HTTP_UPGRADE", "").lower()
        or "upgrade" not in environ.get("HTTP_CONNECTION", "").lower()
    )
    # A client's own mistake looks different: it has sent a key.
    if (
        error.status == 400
        and lost
        and "HTTP_SEC_WEBSOCKET_KEY" in environ
        and _upgrade_lost.passes()
    ):
        logger.warning(
            "WebSocket %s refused: %s. A proxy in front does not pass the upgrade on: beside its "
            "proxy_pass, nginx needs proxy_http_version 1.1; proxy_set_header Upgrade "
            "$http_upgrade; and proxy_set_header Connection $connection_upgrade",
            printable(path_of(environ)),
            error.reason,
        )


def refuse(error: HandshakeError, start_response: StartResponse) -> Sequence[bytes]:
    """Answer a handshake that cannot be accepted with plain HTTP."""
    body = f"{printable(error.reason)}\n".encode()
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    status = f"{error.status} {responses.get(error.status, 'Refused')}"
    start_response(status, headers + list(error.headers))
    return [body]


def serve(
    environ: WSGIEnvironment,
    start_response: StartResponse,
    negotiation: Negotiation,
    engine: Engine,
    handle: Callable[[Connection], Any],
    report: Report,
    *,
    server: Server = UWSGI_SERVER,
    keep_context: bool = True,
) -> Sequence[bytes]:
    """Accept the connection and run its handler, in this request.

    :param handle: called with the connection; awaited if the engine's handlers are coroutines.
    :param report: called with an exception of the handler; gives the close code and reason. With
        ``another_had_left=True`` where it is ConnectionClosed of another client's.
    :param server: who accepted the connection.
    :param keep_context: whether the handler sees the request's context variables.
    :return: the body of the WSGI response: nothing.
    """
    limits = negotiation.settings.limits
    protocol = Protocol(
        SERVER, max_message_size=limits.max_message_size, deflate=negotiation.deflate
    )
    upgrade_of(environ).start_response = start_response
    with engine.request():
        try:
            sock = server.accept(environ, negotiation.headers)
        except ConnectionClosed:
            return server.leave(start_response)
        connection = _connect(engine, sock, protocol, limits)
        connection.receive_early(server.early(environ))
        server.detach(environ)
        coroutine = _session(connection, engine, handle, report)
        if keep_context:
            engine.run(coroutine)
        else:
            contextvars.Context().run(engine.run, coroutine)
    return server.leave(start_response)


def _connect(engine: Engine, sock: Socket, protocol: Protocol, limits: Limits) -> Connection:
    """Open a connection that is a WebSocket by now; its client hears if that fails."""
    try:
        return engine.open(sock, protocol, limits)
    except BaseException:
        with suppress(OSError):
            sock.sendall(protocol.close(1011))
            sock.shutdown(SHUT_RDWR)
        sock.close()
        raise


def serve_lazily(
    environ: WSGIEnvironment,
    negotiation: Negotiation,
    headers: Callable[[], list[tuple[str, str]]],
    engine: Engine,
    handle: Callable[[Connection], Any],
    report: Report,
    *,
    server: Server,
    meaning: Callable[[Any], Any],
    forgive: Callable[[BaseException], bool],
) -> Any:
    """Run a handler, and accept the connection when the handler first uses it.

    :param headers: called for the header fields of the 101, when it is about to be sent.
    :param meaning: called with the handler's result: None if it is no answer.
    :param forgive: called with an exception that came after the connection was used: whether it
        is none of the handler's.
    :return: what the handler returned instead of using its connection; None once that was used, or
        otherwise answered.
    :raises Exception: what the handler raised instead.
    """
    attempt = _Attempt(environ, negotiation, headers, engine, report, server)
    attempt.meaning, attempt.forgive = meaning, forgive
    with engine.request():
        attempt.sock = server.take(environ)
        # Is that of the thread, and of its loop, in which it is asked for first.
        worker = engine.worker()
        worker.expect(attempt)
        try:
            engine.run(attempt.run(handle))
        finally:
            worker.expected.discard(attempt)
            attempt.sock.close()
    return attempt.outcome()


class _Attempt:
    """A handler that runs before its handshake."""

    sock: Socket
    meaning: Callable[[Any], Any]
    forgive: Callable[[BaseException], bool]

    def __init__(
        self,
        environ: WSGIEnvironment,
        negotiation: Negotiation,
        headers: Callable[[], Headers],
        engine: Engine,
        report: Report,
        server: Server,
    ) -> None:
        self._environ = environ
        self._headers = headers
        self._engine = engine
        self._report = report
        self._server = server
        self._limits = limits = negotiation.settings.limits
        self._protocol = Protocol(
            SERVER, max_message_size=limits.max_message_size, deflate=negotiation.deflate
        )
        self._interrupt: Callable[[], None] | None = None
        self._answer: Any = None
        # Until it has run to an end: a Task can be cancelled at any point.
        self._failure: BaseException | None = RuntimeError("the handler was cancelled")

    def outcome(self) -> Any:
        """Give what the handler answers in place of the handshake, if anything.

        :raises Exception: what it raised in its place.
        """
        failure = self._failure
        if failure is None:
            return self._answer
        if isinstance(failure, Exception):
            raise failure
        # A SystemExit would end the worker; a CancelledError is not the request's.
        raise RuntimeError(f"the handler ended with {type(failure).__name__}") from failure

    async def run(self, handle: Callable[[Connection], Any]) -> None:
        """Run the handler; if it has not answered otherwise, the connection to its end."""
        engine = self._engine
        self._interrupt = engine.interrupter()
        unopened = Unopened(self._protocol, self._limits, self._open)
        engine.call_in_background(OPEN_TIME, unopened.open_late)
        answer, failure = None, None
        try:
            with end_of_children():
                answer = handle(cast(Connection, unopened))
                if engine.asynchronous and isinstance(answer, Awaitable):
                    answer = await engine.drive(answer)
                answer = self.meaning(answer)
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
            if failure is not None and (unopened.opened_late or not self.forgive(failure)):
                raise failure
            if answer is not None and unopened.opened_late:
                connection.start_closing(1008, "refused")

        try:
            connection = unopened.open()
        except BaseException:
            return  # it was answered, or the client has left
        await _session(connection, self._engine, conclude, self._report)

    def _open(self) -> Connection:
        """Answer the handshake: 101, or 500 where its header fields cannot be had."""
        try:
            headers = self._headers()
        except BaseException as error:
            _tell(self._report, error)
            self._server.fail(self._environ, self.sock)
            raise
        self._server.switch(self._environ, self.sock, headers)
        self._engine.worker().expected.discard(self)
        connection = _connect(self._engine, self.sock, self._protocol, self._limits)
        connection.receive_early(self._server.early(self._environ))
        connection.interrupt = self._interrupt
        self._server.detach(self._environ)
        return connection


async def _session(
    connection: Connection,
    engine: Engine,
    handle: Callable[[Connection], Any],
    report: Report,
) -> None:
    try:
        connection.interrupt = engine.interrupter()
        code, reason = await _outcome(connection, engine, handle, report)
        at_end, connection.at_end = connection.at_end, None  # it may refer to the connection
        if at_end is not None:
            connection.start_closing(code, reason)
            await _outcome(connection, engine, lambda _: at_end(), report)
        connection.interrupt = None
        await connection.close(code, reason)
        await connection.finish()
    except BaseException as error:
        if not isinstance(error, (ConnectionClosed, *engine.killed)):
            raise
        # An interrupt that came late: the handler is through.
    finally:
        connection.release()


async def _outcome(
    connection: Connection,
    engine: Engine,
    handle: Callable[[Connection], Any],
    report: Report,
) -> tuple[int, str]:
    """Run the handler; the close code and reason that its end means (RFC 6455 7.4.1)."""
    try:
        with end_of_children():
            result = handle(connection)
            if engine.asynchronous and isinstance(result, Awaitable):
                await engine.drive(result)
    except engine.killed as killed:
        if connection.ended:
            return 1011, ""  # by us
        return _tell(report, killed)
    except BaseException as error:  # sys.exit() in a handler must not end the worker
        if isinstance(error, KeyboardInterrupt) and engine.pass_on(error):
            return 1001, ""  # the process ends
        if not _says_closed(error):
            return _tell(report, error)
        if not connection.ended:
            return _tell(report, error, another_had_left=True)
        # It went on until its client left: nothing to report.
    return 1000, ""


def _says_closed(error: BaseException) -> bool:
    """Tell whether it is ConnectionClosed, or a group of nothing else, as a TaskGroup raises."""
    members = getattr(error, "exceptions", None)  # Python 3.10 has no groups to ask for
    if isinstance(members, tuple) and members:
        return all(isinstance(one, BaseException) and _says_closed(one) for one in members)
    return isinstance(error, ConnectionClosed)


def _tell(report: Report, error: BaseException, **facts: bool) -> tuple[int, str]:
    """Report an exception, whatever reporting it raises; give the close code and reason."""
    try:
        code, reason = report(error, **facts)
    except BaseException as another:
        log_exception("Exception in reporting that of a WebSocket handler", error=another)
        return 1011, ""
    # What UTF-8 cannot encode, an error's text may have.
    return code, reason.encode(errors="backslashreplace")[:MAX_REASON].decode(errors="ignore")
