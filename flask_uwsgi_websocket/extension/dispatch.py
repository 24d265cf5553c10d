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

from flask import Flask, Response, has_request_context, request
from werkzeug.exceptions import HTTPException, default_exceptions

from ..exceptions import EngineError, HandshakeError
from ..helpers.text import printable
from ..process.fork import end_of_children
from ..session.session import answer_to, log_lost_upgrade
from .middleware import OFFERED_TO, TAKEN_BY
from .upgrade_response import UPGRADE


class Dispatch:
    """What stands in the places of an app's own methods; whatever Flask hands to those (a context,
    from 3.2 on) is handed through."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._full_dispatch, self._dispatch = app.full_dispatch_request, app.dispatch_request
        self._process, self._make = app.process_response, app.make_response

    @classmethod
    def install(cls, app: Flask) -> None:
        """Have the app's own dispatching serve the requests that a middleware takes."""
        if isinstance(getattr(app.full_dispatch_request, "__self__", None), cls):
            return
        own = cls(app)
        app.make_response = own.make_response  # type: ignore[method-assign]
        app.process_response = own.process_response  # type: ignore[method-assign, assignment]
        app.full_dispatch_request = own.full_dispatch_request  # type: ignore[method-assign]
        app.dispatch_request = own.dispatch_request  # type: ignore[method-assign]

    def full_dispatch_request(self, *args: Any) -> Response:
        """Have the first middleware whose routes match take an upgrade request."""
        for middleware in request.environ.get(OFFERED_TO, ()):
            try:
                if middleware.take(request):
                    break
            except HandshakeError as error:
                request.routing_exception = _http_error(error)
                break
            except HTTPException as error:
                request.routing_exception = error
                break
        # Of a view: a child that answered would spoil the request in memory that uWSGI shares.
        with end_of_children():
            return self._full_dispatch(*args)

    def dispatch_request(self, *args: Any) -> Any:
        """Call the view; for an upgrade request that was taken, that is the opening handshake."""
        if TAKEN_BY not in request.environ:
            return self._dispatch(*args)
        middleware, rule = request.environ[TAKEN_BY]
        try:
            return middleware.accept(request, rule, partial(self._process, *args))
        except HandshakeError as error:
            log_lost_upgrade(error, request.environ)
            raise _http_error(error) from None
        except EngineError as error:
            app = self._app
            app.logger.error("WebSocket %s refused: %s", printable(request.path), error)
            raise _http_error(answer_to(error, tell=app.debug or app.testing)) from None

    def make_response(self, rv: Any) -> Response:
        """Make a response; of a handler's result, for a decorator that asks for one, the 101."""
        upgrade = request.environ.get(UPGRADE) if has_request_context() else None
        if upgrade is not None and upgrade.stands_for(rv):
            return upgrade  # type: ignore[no-any-return]
        return self._make(rv)

    def process_response(self, *args: Any) -> Response:
        """Process a response, unless it was sent, and therefore processed, already."""
        response: Response = args[-1]
        return response if getattr(response, "sent", False) else self._process(*args)


def _http_error(error: HandshakeError) -> HTTPException:
    """What Flask makes its answer of: ``errorhandler`` functions may shape it."""
    reason = printable(error.reason)
    response = Response(f"{reason}\n", error.status, error.headers, mimetype="text/plain")
    return default_exceptions.get(error.status, HTTPException)(
        description=reason, response=response
    )
