"""The state of an upgrade request, which travels with its WSGI environment.

It also sees to it that the request is answered, whatever the application raises. Whoever opens a
WebSocket waits for an answer; uWSGI gives none when an application raises, and a ``SystemExit``
ends the worker, or parks it for good under gevent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Any

from ..connection.detached import Body, DetachedRequest, close_body, is_made_late
from ..helpers.log import log_exception
from ..helpers.text import path_of, shown
from ..helpers.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Headers = list[tuple[str, str]]

#: The key of the :class:`Upgrade` in the WSGI environment.
UPGRADE = "flask_uwsgi_websocket.upgrade"

_FAILED = "500 Internal Server Error"
_FAILED_BODY = b"Internal Server Error\n"
_FAILED_HEADERS = [
    ("Content-Type", "text/plain; charset=utf-8"),
    ("Content-Length", str(len(_FAILED_BODY))),
]

_find_bad = re.compile(r"[^\x01-\x09\x0b\x0c\x0e-\xff]").search

#: A whole answer, for a connection on which the server will not answer any more.
RAW_FAILURE = f"HTTP/1.1 {_FAILED}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode()


def check_headers(headers: Iterable[tuple[str, str]]) -> None:
    """Check that header fields can be sent; ValueError without the value: it may be secret."""
    for name, value in headers:
        bad = _find_bad(name) or _find_bad(value)
        if bad:
            raise ValueError(
                f"the header field {name!a} cannot be sent: it has the character {bad[0]!a}, and "
                "HTTP takes those of latin-1 that are no line breaks"
            )


class Upgrade:
    """An upgrade request on its way through the application: how it is answered, what it becomes.

    All copies of its environment share it.

    :param tells_end: whether the server hears of a connection's end by a response 101.
    """

    __slots__ = (
        "_path",
        "_start",
        "_tells_end",
        "detachable",
        "detached",
        "early",
        "failure",
        "input",
        "opening",
        "start_response",
        "switched",
        "taken_in",
        "told",
    )

    def __init__(
        self, environ: WSGIEnvironment, start_response: StartResponse, *, tells_end: bool
    ) -> None:
        self._path = shown(path_of(environ))
        self._start = start_response
        self._tells_end = tells_end
        #: The function that whoever answers 101 was called with.
        self.start_response = start_response
        #: ``wsgi.input``, while the request may be detached.
        self.input = Input(environ.get("wsgi.input"))
        #: What runs the application, if the request may be detached; and whether it was.
        self.detachable: DetachedRequest | None = None
        self.detached = False
        #: The thread or greenlet in which the connection was taken over.
        self.taken_in: Any = None
        #: What the server had read behind the request by then.
        self.early = b""
        #: The connection is no longer HTTP, or has got its last answer: say nothing more.
        self.switched = False
        #: uWSGI itself has sent the 101.
        self.told = False
        #: What the framework that serves the request keeps of its handshake.
        self.opening: Any = None
        #: The exception that ended the handler, or by which the request was refused.
        self.failure: BaseException | None = None

    def begin(self, status: str, headers: Headers, exc_info: Any = None) -> Any:
        """Begin the HTTP response, for the application; ValueError as :func:`check_headers`."""
        if self.switched:
            if self._tells_end:
                self._tells_end = False
                self.tell_server()
            return _ignore
        check_headers(headers)
        return self._start(status, headers, exc_info) if exc_info else self._start(status, headers)

    def tell_server(self) -> None:
        """Let the server know, for its log, what was answered without it."""
        self._start("101 Switching Protocols", [])

    def run(self, application: WSGIApplication, environ: WSGIEnvironment) -> Body:
        """Call the application; if it raises, answer 500 in its place."""
        try:
            body = application(environ, self.begin)
        except BaseException as error:
            return self.fail(error)
        return _AnsweredBody(self, body) if is_made_late(body) else body

    def fail(self, error: BaseException) -> Body:
        """Log what the application raised; return the body of a 500, unless something was sent."""
        when = "at the end of" if self.switched else "in"
        log_exception("Exception %s a WebSocket's request, %s", when, self._path, error=error)
        if self.switched:
            return ()
        try:
            self._start(_FAILED, list(_FAILED_HEADERS))
        except Exception:  # the headers of its own response are sent
            return ()
        return [_FAILED_BODY]


def upgrade_of(environ: WSGIEnvironment) -> Upgrade:
    """Return the state of an upgrade request."""
    upgrade: Upgrade = environ[UPGRADE]
    return upgrade


class _AnsweredBody:
    """A body that is made when the server asks for it."""

    def __init__(self, upgrade: Upgrade, body: Body) -> None:
        self._upgrade = upgrade
        self._body = body
        self._chunks: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._chunks is None:
                self._chunks = iter(self._body)
            return next(self._chunks)
        except StopIteration:
            raise
        except BaseException as error:
            self._chunks = iter(self._upgrade.fail(error))
            return next(self._chunks)

    def close(self) -> None:
        try:
            close_body(self._body)
        except BaseException as error:
            self._upgrade.fail(error)


class _NothingMore(BytesIO):
    """An input at its end, which all detached requests share: nobody may close it."""

    def close(self) -> None:
        pass


_NOTHING_MORE = _NothingMore()


class Input:
    """``wsgi.input`` of a request that may be detached, wherever it has got to by then.

    uWSGI's own reads what the next request on the same core sends.
    """

    __slots__ = ("stream",)

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.stream)

    def end(self) -> None:
        """Have nothing more to read."""
        self.stream = _NOTHING_MORE


def _ignore(data: bytes) -> None:
    """Take what is written to a connection that is not HTTP any more."""
