"""From an upgrade request to the end of its connection: knows no Flask, any WSGI server side.

A middleware asks whether a request :func:`is_attempt`, checks it, and chooses what to
:func:`agree` on; :func:`serve` answers the handshake and runs the handler in the request, and the
handler's outcome closes the connection.
"""

from __future__ import annotations

import contextvars
from _socket import socket as Socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from http.client import responses
from typing import TYPE_CHECKING, Any, cast

from .codec import (
    SERVER,
    Deflate,
    DeflateSettings,
    Protocol,
    UpgradeRequest,
    negotiate,
    response_headers,
    select_subprotocol,
)
from .engines.connection import Connection, Limits
from .engines.engine import Engine
from .engines.fork import end_of_children
from .exceptions import ConnectionClosed, EngineError, HandshakeError
from .servers import START_RESPONSE, UWSGI_SERVER, Server
from .text import printable
from .unopened import OPEN_TIME, Unopened

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

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
class Agreement:
    """What client and server agreed on in the opening handshake."""

    headers: list[tuple[str, str]]
    subprotocol: str | None
    deflate: Deflate | None
    settings: Settings


def agree(request: UpgradeRequest, settings: Settings) -> Agreement:
    """Choose among what the client offers (RFC 6455 4.2.2, RFC 7692 5).

    :raises HandshakeError: 400, when it offers no subprotocol of those that it must.
    """
    subprotocol = select_subprotocol(request.subprotocols, settings.subprotocols)
    if subprotocol is None and settings.require_subprotocol:
        names = ", ".join(settings.subprotocols)
        raise HandshakeError(400, f"Sec-WebSocket-Protocol must offer a subprotocol of: {names}")
    deflate, extensions = None, None
    if settings.compression is not None:
        deflate, extensions = negotiate(request.extensions, settings.compression)
    headers = response_headers(request.key, subprotocol, extensions or None)
    return Agreement(headers, subprotocol, deflate, settings)


def is_attempt(environ: WSGIEnvironment) -> bool:
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
    agreement: Agreement,
    engine: Engine,
    handle: Callable[[Connection], Any],
    report: Callable[..., str],
    *,
    server: Server = UWSGI_SERVER,
    keep_context: bool = True,
) -> Sequence[bytes]:
    """Accept the connection and run its handler, in this request.

    :param handle: called with the connection; awaited if the engine's handlers are coroutines.
    :param report: called with an exception of the handler; gives the close reason. With
        ``another_had_left=True`` where it is ConnectionClosed of another client's.
    :param server: who accepted the connection.
    :param keep_context: whether the handler sees the request's context variables.
    :return: the body of the WSGI response: nothing.
    """
    limits = agreement.settings.limits
    protocol = Protocol(SERVER, max_message_size=limits.max_message_size, deflate=agreement.deflate)
    environ[START_RESPONSE] = start_response
    with engine.request():
        try:
            sock = server.accept(environ, agreement.headers)
        except ConnectionClosed:
            return server.leave(start_response)
        connection = engine.open(sock, protocol, limits)
        connection.receive_early(server.early(environ))
        server.let_go(environ)
        rules = _session(connection, engine, handle, report)
        if keep_context:
            engine.run(rules)
        else:
            contextvars.Context().run(engine.run, rules)
    return server.leave(start_response)


def serve_lazily(
    environ: WSGIEnvironment,
    agreement: Agreement,
    headers: Callable[[], list[tuple[str, str]]],
    engine: Engine,
    handle: Callable[[Connection], Any],
    report: Callable[..., str],
    *,
    server: Server,
) -> Any:
    """Run a handler, and accept the connection when the handler first uses it.

    :param headers: called for the header fields of the 101, when it is about to be sent.
    :return: what the handler returned instead of using its connection; None after it was used.
    :raises Exception: what the handler raised instead.
    """
    limits = agreement.settings.limits
    protocol = Protocol(SERVER, max_message_size=limits.max_message_size, deflate=agreement.deflate)
    answer: Any = None

    async def attempt(sock: Socket) -> None:
        nonlocal answer
        interrupt = engine.interrupter()

        def open_() -> Connection:
            server.answer(environ, sock, headers())
            connection = engine.open(sock, protocol, limits)
            connection.receive_early(server.early(environ))
            connection.interrupt = interrupt
            server.let_go(environ)
            return connection

        unopened = Unopened(protocol, limits, open_)
        engine.run_beside(OPEN_TIME, unopened.open_late)
        failure: BaseException | None = None
        try:
            with end_of_children():
                answer = handle(cast(Connection, unopened))
                if engine.asynchronous and isinstance(answer, Awaitable):
                    answer = await engine.drive(answer)
        except (SystemExit, KeyboardInterrupt) as error:
            failure = RuntimeError(f"the handler ended with {error!r}")
        except BaseException as error:
            failure = error
        if (failure is not None or answer is not None) and unopened.withdraw():
            if failure is not None:
                raise failure
            return

        def conclude(connection: Connection) -> None:
            if failure is not None:
                raise failure
            if answer is not None and unopened.opened_late:
                connection.start_closing(1008, "refused")

        await _session(unopened.open(), engine, conclude, report)
        answer = None

    with engine.request():
        sock = server.take(environ)
        engine.worker()  # is that of the thread, and of its loop, in which it is asked for first
        try:
            engine.run(attempt(sock))
        except ConnectionClosed:
            return None  # the client left before it was answered
        finally:
            sock.close()
    return answer


async def _session(
    connection: Connection,
    engine: Engine,
    handle: Callable[[Connection], Any],
    report: Callable[..., str],
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
    report: Callable[..., str],
) -> tuple[int, str]:
    """Run the handler; the close code and reason that its end means (RFC 6455 7.4.1)."""
    try:
        with end_of_children():
            result = handle(connection)
            if engine.asynchronous and isinstance(result, Awaitable):
                await engine.drive(result)
    except engine.killed:
        return 1011, ""
    except BaseException as error:  # sys.exit() in a handler must not end the worker
        if not _says_closed(error):
            return 1011, _shorten(report(error))
        if not connection.ended:
            return 1011, _shorten(report(error, another_had_left=True))
        # It went on until its client left: nothing to report.
    return 1000, ""


def _says_closed(error: BaseException) -> bool:
    """Tell whether it is ConnectionClosed, or a group of nothing else, as a TaskGroup raises."""
    members = getattr(error, "exceptions", None)  # Python 3.10 has no groups to ask for
    if isinstance(members, tuple) and members:
        return all(isinstance(one, BaseException) and _says_closed(one) for one in members)
    return isinstance(error, ConnectionClosed)


def _shorten(reason: str) -> str:
    return reason.encode()[:MAX_REASON].decode(errors="ignore")
