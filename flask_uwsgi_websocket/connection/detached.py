"""Requests that run in a greenlet of ours, so that uWSGI's can end while their handler goes on.

A request occupies one of uWSGI's cores until its application returns, and uWSGI keeps some
12 KiB for it. An engine whose requests are greenlets therefore runs the application in a greenlet
of its own on behalf of uWSGI's::

    uWSGI's greenlet   waits ───────────────── detached: the request ends, its core is free
    its own greenlet    application ── 101 ── detach() ── handler ── ... ── application returns

An application that answers with anything but a WebSocket gives its answer to uWSGI's greenlet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextvars import Context
from typing import Protocol

from ..helpers.log import log_exception

#: The body of a WSGI response.
Body = Iterable[bytes]


class DetachedRequest(Protocol):
    """Runs an application in a greenlet of its own."""

    def detach(self) -> None:
        """Let the request end: it is answered, and its connection is held by a duplicate.

        Nothing of the server's that serves a request may be used any more.
        """


#: An application with its arguments; it is told what runs it.
Application = Callable[[DetachedRequest], Body]


def end_late(body: Body) -> None:
    """Exhaust and close a body that nobody will read, as its server would have."""
    try:
        for _ in body:
            pass
    finally:
        close_body(body)


def close_body(body: Body) -> None:
    close = getattr(body, "close", None)
    if close is not None:
        close()


def is_made_late(body: Body) -> bool:
    """Return whether the app makes a body only when the server asks for it."""
    # What has a read() may be of wsgi.file_wrapper, which the server knows by its identity.
    return not (isinstance(body, (bytes, list, tuple)) or hasattr(body, "read"))


class _InContext:
    """A body that is made when somebody asks for it, in the context of its application."""

    def __init__(self, context: Context, body: Body) -> None:
        self._run = context.run
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        self._iterator = self._run(iter, self._body)
        return self

    def __next__(self) -> bytes:
        return self._run(next, self._iterator)

    def close(self) -> None:
        self._run(close_body, self._body)


def in_context(context: Context, body: Body) -> Body:
    """Return a body whose parts are made in ``context``, whatever context asks for them."""
    return _InContext(context, body) if is_made_late(body) else body


def report_late(error: BaseException) -> None:
    """Log what an application raised when there was no server above it any more."""
    log_exception("Exception at the end of a WebSocket's request", error=error)
