"""The span of a connection: from the handshake to its end, and current in its handler."""

from __future__ import annotations

from functools import cache
from typing import Any

from opentelemetry import context, propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode

from ...helpers.text import printable
from ...helpers.wsgi import WSGIEnvironment
from ...metrics.observers import End, Refusal
from ...servers.upgrade import upgrade_of
from .attributes import SCHEMA, SCOPE, request_attributes

#: In the environment of a request: the :class:`ConnectionSpan`, while it lasts.
KEY = "flask_uwsgi_websocket.span"


def is_set_up() -> bool:
    """Return whether there is an SDK, or the environment names one to be loaded."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@cache
def tracing() -> Tracing:
    """Return the one for this process, once there is an SDK."""
    return Tracing()


class ConnectionSpan:
    """The span of a connection, and of the message that its handler works on, if that has one.

    :param rate: the share of messages that have spans: none where its own goes nowhere.
    """

    __slots__ = ("before", "context", "message", "rate", "route", "span")

    def __init__(self, span: Span, parent: Context, route: str, rate: float) -> None:
        self.span = span
        self.route = route
        self.rate = rate if span.is_recording() else 0.0
        #: What was current before.
        self.before = context.get_current()
        self.context = trace.set_span_in_context(span, parent)
        #: Its span, and what is current with it, and was before.
        self.message: tuple[Span, Context, Context] | None = None
        context.attach(self.context)

    def end_message(self) -> None:
        """End the span of a message, and let what was current before it be so again."""
        if self.message is not None:
            (span, within, before), self.message = self.message, None
            span.end()
            if context.get_current() is within:
                context.attach(before)

    def end(self) -> None:
        """End it; the handler's thread goes on to other requests."""
        self.end_message()
        self.span.end()
        if context.get_current() is self.context:
            context.attach(self.before)


class Tracing:
    """Makes the spans of connections."""

    def __init__(self) -> None:
        self.tracer = trace.get_tracer(SCOPE, schema_url=SCHEMA)

    def begin(self, client: Any, route: str, rate: float) -> None:
        """Begin a span, and make it current in the handler that is about to be called.

        Where something else has one for the request, such as Flask's own instrumentation, ours is
        a part of that; else it is the server's in the trace that the client has begun.
        """
        environ = client.environ
        parent, kind = context.get_current(), SpanKind.INTERNAL
        if not trace.get_current_span(parent).get_span_context().is_valid:
            parent, kind = propagate.extract(_fields(environ), parent), SpanKind.SERVER
        attributes = request_attributes(environ, route)
        if client.subprotocol is not None:
            attributes["websocket.subprotocol"] = client.subprotocol
        span = self.tracer.start_span(f"websocket {route}", parent, kind, attributes)
        environ[KEY] = ConnectionSpan(span, parent, route, rate)

    def end(self, environ: WSGIEnvironment, end: End) -> None:
        """End the span of a connection, with all that is known of it by then."""
        ours: ConnectionSpan | None = environ.pop(KEY, None)
        if ours is None:
            return
        ours.span.set_attributes(
            {
                "http.response.status_code": 101,
                "websocket.close.code": end.code,
                "websocket.close.reason": printable(end.reason),
                "websocket.close.by": end.by,
                "websocket.received.messages": end.messages_received,
                "websocket.received.bytes": end.bytes_received,
                "websocket.sent.messages": end.messages_sent,
                "websocket.sent.bytes": end.bytes_sent,
            }
        )
        if end.error is not None:
            _fail(ours.span, end.error, upgrade_of(environ).failure)
        ours.end()

    def refuse(self, environ: WSGIEnvironment, refusal: Refusal) -> None:
        """End the span of a handler that has answered before it used its connection."""
        ours: ConnectionSpan | None = environ.pop(KEY, None)
        if ours is None:
            return
        if refusal.status:
            ours.span.set_attribute("http.response.status_code", refusal.status)
        if refusal.status >= 500:
            _fail(ours.span, str(refusal.status), None)
        ours.end()


def _fail(span: Span, kind: str, error: BaseException | None) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR)
    if error is not None:
        span.record_exception(error)


def _fields(environ: WSGIEnvironment) -> dict[str, str]:
    """Return the header fields of a request, for propagators to look among."""
    return {
        key.removeprefix("HTTP_").lower().replace("_", "-"): value
        for key, value in environ.items()
        if key.startswith("HTTP_")
    }
