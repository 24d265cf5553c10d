"""The opening handshake of a handler that an app routes to, and what its exceptions mean."""

from __future__ import annotations

from _socket import socket as Socket
from collections.abc import Callable, Iterable
from contextlib import closing
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Protocol

from flask import Flask, Response, has_app_context
from flask.signals import got_request_exception
from werkzeug.exceptions import HTTPException, InternalServerError
from werkzeug.http import HTTP_STATUS_CODES

from .. import codec
from ..clients.legacy import legacy_class
from ..clients.resuming import enveloped_class
from ..clients.uwsgi_api import UWSGIWebSocketClient, counted
from ..connection.connection import Connection
from ..engines.base import Engine
from ..exceptions import ConnectionClosed
from ..helpers.checks import propagates
from ..helpers.log import log_exception
from ..helpers.text import path_of, shown
from ..helpers.wsgi import StartResponse, WSGIEnvironment
from ..metrics.observers import Refusal
from ..metrics.route import RouteMetrics
from ..metrics.worker import WorkerMetrics
from ..rooms.envelope import SUBPROTOCOL
from ..servers import uwsgi
from ..servers.upgrade import Headers, upgrade_of
from ..session import negotiate
from ..session.lazy import LazySession
from .routing import WebSocketRule
from .seats import leave_seat, seat_of
from .upgrade_response import missed_response, upgrade_class

#: For the log, where a handler ends with another client's ConnectionClosed.
ANOTHER_HAD_LEFT = (
    ": it sent to another client, which had left. Send to many with websocket.send_to_all(), or to "
    "each of websocket.clients within try ... except ConnectionClosed"
)

#: Statuses for which the close code is 1008, "policy violation" (RFC 6455 7.4.1).
_NOT_ALLOWED = {401, 402, 403, 407, 451}


class Middleware(Protocol):
    """As much of the middleware as is used here."""

    app: Flask
    websocket: Any
    client: type[Any]
    metrics: WorkerMetrics

    def setting(self, name: str) -> Any: ...

    def waits_for_handler(self, rule: WebSocketRule) -> bool: ...


class Handshake(LazySession):
    """The session of a handler that an app routes to."""

    __slots__ = ("_context", "_handler", "_middleware", "_process_response", "_rule", "response")

    #: Of the request, for whoever opens the connection of a lazy handler beside it.
    _context: Context
    _process_response: Callable[[Response], Response]

    def __init__(
        self,
        middleware: Middleware,
        environ: WSGIEnvironment,
        rule: WebSocketRule,
        view_args: dict[str, Any] | None,
        negotiation: negotiate.Negotiation,
        engine: Engine,
    ) -> None:
        super().__init__(environ, negotiation, engine)
        self._middleware = middleware
        self._rule = rule
        handler = middleware.websocket.router.handler(middleware.app, rule.endpoint)
        self._handler = partial(handler, **view_args) if view_args else handler
        # mypy looks for __hash__ of the instances, not of the class.
        response_class = upgrade_class(middleware.app.response_class)  # type: ignore[arg-type]
        self.response = response_class(status=101, headers=negotiation.headers)

    @property
    def route(self) -> RouteMetrics:
        return self._middleware.metrics.route(self._rule.pattern)

    def refused(self, reason: str, status: int, detail: str) -> None:
        refusal = Refusal(status, reason, self._rule.pattern, detail)
        report = partial(self._middleware.metrics.report_refusal, self.environ, refusal)
        if has_app_context():
            report()
        else:
            self._context.run(report)

    def accept(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer 101 and run the handler, as the response that Flask has made of it is sent."""
        middleware, negotiation = self._middleware, self.negotiation
        try:
            try:
                # No variable: this call lasts as long as the connection, and would keep the list.
                negotiation.headers[:] = negotiate.switch_headers(
                    negotiation, self.response.headers
                )
            except ValueError as error:
                return self._fail(start_response, error)
            if issubclass(middleware.client, UWSGIWebSocketClient):
                return self._serve_uwsgi(start_response)
            upgrade_of(environ).opening = self.response
            return self.serve(start_response, keep_context=middleware.setting("REQUEST_CONTEXT"))
        finally:
            self._end()

    def accept_lazily(self, process_response: Callable[[Response], Response]) -> Any:
        """Run the handler, and answer 101 when it uses its client, as :meth:`accept` has it.

        Return what it answers instead; or, after a WebSocket, a response that was sent already.
        """
        response, server = self.response, self.server
        # Whoever uses the connection first, the response belongs to this request.
        self._context = copy_context()
        self._process_response = process_response
        upgrade_of(self.environ).opening = response
        try:
            answer = self.serve_lazily()
        finally:
            self._end()  # an error handler's None is none of a handler's
        if answer is not None:
            return answer
        response.sent = True
        response.upgrade_connection = lambda environ, start_response: server.leave(start_response)
        return response

    def open(self, sock: Socket, protocol: codec.Protocol, headers: Headers) -> Connection:
        """Open the connection; its end is that of its seat, be its handler through or not."""
        connection = super().open(sock, protocol, headers)
        seat = seat_of(self.environ)
        if seat is not None:
            connection.before_end = seat.leave
            if connection.ended:
                seat.leave()
        return connection

    def _end(self) -> None:
        """Let the response stand for the handler's result no longer; leave the seat."""
        upgrade_of(self.environ).opening = None
        self.response.end()
        leave_seat(self.environ)

    def late_headers(self) -> Headers:
        """Return the header fields of the 101, with what Flask adds to a response."""
        response = self.response
        processed: Any = self._context.run(self._process_response, response)
        if processed is not response or response.status_code != 101:
            raise RuntimeError("an after_request function has replaced the response 101")
        response.sent = True
        return negotiate.switch_headers(self.negotiation, response.headers)

    def meaning(self, result: Any) -> Any:
        """Return the answer that a handler's result means, whatever its decorators made of it."""
        return self.response.meant_by(result)

    def handle(self, connection: Connection) -> Any:
        """Call the handler with a client; return its coroutine, if it has one."""
        middleware = self._middleware
        observers = middleware.metrics.observers
        client_class = observers.client_class(middleware.client, middleware.app.config)
        if self.negotiation.subprotocol == SUBPROTOCOL:
            client_class = enveloped_class(client_class)
        if middleware.setting("LEGACY"):
            client_class = legacy_class(client_class)
        client = client_class(
            self.environ,
            connection,
            subprotocol=self.negotiation.subprotocol,
            app=middleware.app,
            extension=middleware.websocket,
        )
        observers.notify("handling", client, self._rule.pattern)
        return self.response.meant_by(self._handler(client))

    def _fail(self, start_response: StartResponse, error: Exception) -> Iterable[bytes]:
        """Answer 500, with nothing of what made it impossible to answer 101."""
        app = self._middleware.app
        upgrade_of(self.environ).failure = error
        self.refused("app", 500, str(error))
        if propagates(app):
            raise error
        log_exception("WebSocket %s refused", self._path, error=error, logger=app.logger)
        return InternalServerError()(self.environ, start_response)

    def _serve_uwsgi(self, start_response: StartResponse) -> Iterable[bytes]:
        """Run the handler on uWSGI's own WebSocket functions."""
        middleware, environ = self._middleware, self.environ
        with closing(uwsgi.take()) as sock:
            try:
                uwsgi.answer(environ, start_response, self.negotiation.headers)
            except ConnectionClosed as error:
                self.refused("left", 0, str(error))
                return []
            with counted(self.route):
                try:
                    fd = sock.fileno()
                    self._handler(middleware.client(environ, fd, middleware.websocket.timeout))
                except ConnectionClosed:
                    pass  # it went on until its client left
                except BaseException as error:
                    self.report(error)
                    if upgrade_of(environ).failure is error:
                        self.route.failed()
        return []

    @property
    def _path(self) -> str:
        """The path of the request, for the log."""
        return shown(path_of(self.environ))

    def report(self, error: BaseException, another_had_left: bool = False) -> tuple[int, str]:
        """Log an exception of the handler; the close reason tells it in debug mode only."""
        app = self._middleware.app
        if isinstance(error, HTTPException) and not app.trap_http_exception(error):
            return self._report_late_answer(error)
        log_exception(
            "Exception in the WebSocket handler of %s%s",
            self._path,
            ANOTHER_HAD_LEFT if another_had_left else "",
            error=error,
            logger=app.logger,
        )
        upgrade_of(self.environ).failure = error
        got_request_exception.send(app, exception=error)
        return 1011, f"{type(error).__name__}: {error}" if app.debug else ""

    def _report_late_answer(self, error: HTTPException) -> tuple[int, str]:
        """Log an ``abort()`` that came when HTTP was over; no failure, as in Flask."""
        status = error.code or error.get_response().status_code
        code = 1008 if status in _NOT_ALLOWED else 1011
        reason = f"{status} {HTTP_STATUS_CODES.get(status, 'Unknown')}"
        hint = "route(..., lazy=True) makes it an HTTP response, until the handler uses its client"
        if self._middleware.waits_for_handler(self._rule):
            hint = "it is an HTTP response only until the handler uses its client, or for a second"
        self._middleware.app.logger.warning(
            "WebSocket %s closed with %d (%s): its handler called abort() after the handshake; %s",
            self._path,
            code,
            reason,
            hint,
        )
        return code, reason

    def forgives(self, error: BaseException) -> bool:
        """Log an exception that is a decorator's mistake alone; return whether it is one."""
        if not missed_response(error, self._handler):
            return False
        self._middleware.app.logger.warning(
            "A decorator of the WebSocket handler of %s takes its result for a response: %s",
            self._path,
            error,
        )
        return True
