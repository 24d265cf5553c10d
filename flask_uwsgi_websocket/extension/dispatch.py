"""The app's own dispatching, in which an upgrade request becomes a WebSocket.

An upgrade request goes the way of any request through Flask: its context is pushed, the
``before_request`` functions run, the view is dispatched, ``after_request`` functions and the
session see the response. Only that the view is replaced by the opening handshake, and the
response is ``101 Switching Protocols``, in which the handler runs. So whatever Flask and its
extensions do before a view, they do before a handshake, and may refuse it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from flask import Flask, Request, Response, has_request_context
from flask import request as current_request
from werkzeug.exceptions import HTTPException, default_exceptions
from werkzeug.routing import Map

from ..exceptions import EngineError, HandshakeError
from ..helpers.text import printable
from ..metrics.worker import WorkerMetrics
from ..process.fork import end_of_children
from ..servers.upgrade import UPGRADE, upgrade_of
from ..session.negotiate import refusal
from .middleware import WebSocketMiddleware
from .refusals import count_refusal
from .routing import WebSocketRule
from .seats import leave_seat
from .upgrade_response import is_accepted


class Dispatch:
    """The methods that replace an app's own, whose turn it still is.

    Whatever Flask hands to them (a context, from 3.2 on) they hand through.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._full_dispatch, self._dispatch = app.full_dispatch_request, app.dispatch_request
        self._process, self._make = app.process_response, app.make_response
        #: By the map of their routes, the latest last.
        self._middlewares: dict[Map, WebSocketMiddleware] = {}
        app.make_response = self.make_response  # type: ignore[method-assign]
        app.process_response = self.process_response  # type: ignore[method-assign, assignment]
        app.full_dispatch_request = self.full_dispatch_request  # type: ignore[method-assign]
        app.dispatch_request = self.dispatch_request  # type: ignore[method-assign]

    def add(self, middleware: WebSocketMiddleware) -> None:
        """Have the app's dispatching serve the routes of a middleware."""
        self._middlewares[middleware.websocket.router.url_map] = middleware

    def metrics(self) -> list[WorkerMetrics]:
        """Return what each extension counts for the app."""
        return [middleware.metrics for middleware in self._middlewares.values()]

    def full_dispatch_request(self, *args: Any) -> Response:
        """Have the first middleware whose routes match take an upgrade request."""
        # Not by the proxy, which looks for it each time.
        request: Request = current_request._get_current_object()  # type: ignore[attr-defined]
        middleware = self._take(request) if UPGRADE in request.environ else None
        try:
            # Of a view: a child that answered would spoil the request in memory that uWSGI shares.
            with end_of_children():
                response = self._full_dispatch(*args)
        except BaseException as error:
            if middleware is not None:
                leave_seat(request.environ)
                count_refusal(middleware.metrics, request, error)
            raise
        if middleware is not None and not is_accepted(response):
            leave_seat(request.environ)
            count_refusal(middleware.metrics, request, response)
        return response

    def _take(self, request: Request) -> WebSocketMiddleware:
        """Have a middleware take an upgrade request; return which, or the first that was asked."""
        for middleware in reversed(self._middlewares.values()):
            try:
                if middleware.take(request):
                    return middleware
            except HTTPException as error:
                request.routing_exception = error
                return middleware
        return next(reversed(self._middlewares.values()))

    def dispatch_request(self, *args: Any) -> Any:
        """Call the view; for an upgrade request that was taken, that is the opening handshake."""
        request: Request = current_request._get_current_object()  # type: ignore[attr-defined]
        rule = request.url_rule
        if not isinstance(rule, WebSocketRule) or request.routing_exception is not None:
            return self._dispatch(*args)
        try:
            middleware = self._middlewares[rule.map]
            return middleware.accept(request, rule, partial(self._process, *args))
        except (HandshakeError, EngineError) as error:
            upgrade_of(request.environ).failure = error
            app = self._app
            reveal = app.debug or app.testing
            answer = refusal(error, request.environ, log=app.logger, reveal=reveal)
            raise _http_error(answer) from None

    def make_response(self, rv: Any) -> Response:
        """Make a response; of a handler's result, for a decorator that asks for one, the 101."""
        upgrade = current_request.environ.get(UPGRADE) if has_request_context() else None
        response = None if upgrade is None else upgrade.opening
        if response is not None and response.stands_for(rv):
            return response  # type: ignore[no-any-return]
        return self._make(rv)

    def process_response(self, *args: Any) -> Response:
        """Process a response, unless it was sent, and therefore processed, already."""
        response: Response = args[-1]
        return response if getattr(response, "sent", False) else self._process(*args)


def dispatch_of(app: Flask) -> Dispatch:
    """Return an app's one dispatch, whichever extensions ask."""
    key = "uwsgi_websocket.dispatch"
    if key not in app.extensions:
        app.extensions[key] = Dispatch(app)
    dispatch: Dispatch = app.extensions[key]
    return dispatch


def _http_error(error: HandshakeError) -> HTTPException:
    """Make what Flask makes its answer of: ``errorhandler`` functions may shape it."""
    reason = printable(error.reason)
    response = Response(f"{reason}\n", error.status, error.headers, mimetype="text/plain")
    return default_exceptions.get(error.status, HTTPException)(
        description=reason, response=response
    )
