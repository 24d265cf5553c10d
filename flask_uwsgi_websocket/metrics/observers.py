"""Observers, which are notified when connections open and end, and when one is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from ..helpers.log import RateLimit, log_exception

#: Who ended a connection: whoever sent its Close first; ``lost`` where nobody did (1006).
By = Literal["client", "server", "lost"]

#: Times that are measured while connections last: from a ping to its pong, and from the sending of
#: a message to a room until it is with the clients of a worker.
Timed = Literal["ping", "lag"]

#: Why a request for a WebSocket was refused, and the statuses that answer it.
REASONS = {
    "handshake": "it is no proper request for a WebSocket (400, 405, 431)",
    "version": "it asks for another version of the protocol (426)",
    "origin": "a page of another origin may not connect (403)",
    "subprotocol": "it offers no subprotocol of those that it must (400)",
    "engine": "the server was started without what the handlers need (500, 501)",
    "full": "no descriptor is left for it (503; 500 where that shows late)",
    "not_found": "no route has its URL (404; 400 for a page's, 308 for another form of a route's)",
    "max_connections": "its user or address has as many connections as it may (429)",
    "app": "the app answered instead: before_request, a decorator, a lazy handler, an error",
    "left": "the client had left before the answer",
}


class End(NamedTuple):
    """How a connection has ended."""

    code: int
    reason: str
    by: By
    #: From the handshake to the release of the descriptor.
    seconds: float
    messages_received: int
    messages_sent: int
    bytes_received: int
    bytes_sent: int
    #: The name of the class of the handler's exception.
    error: str | None
    #: The pattern of its route.
    route: str


class Refusal(NamedTuple):
    """How a request for a WebSocket was answered instead."""

    #: Of the HTTP response; 0 where there was nobody to get one.
    status: int
    #: A key of :data:`REASONS`.
    reason: str
    #: The pattern of the route that was asked for, where there is one.
    route: str | None
    #: In words, for a log; it may quote the client.
    detail: str


class Observer:
    """Is notified of each opening, end and refusal, in the process and thread where it happens.

    Those that are there before uWSGI forks its workers are notified in each of them.

    Never of a message. What its methods raise is logged, and stops nobody. While one waits, all
    connections of the worker may have to.
    """

    def client_class(self, client_class: type[Any], config: Any) -> type[Any]:
        """Return the class of a client that is about to be made, or one derived from it.

        :param config: of the app.
        """
        return client_class

    def handling(self, client: Any, route: str) -> None:
        """Take note that a handler is about to be called, in its context.

        Its connection need not be open yet: a lazy handler may still refuse it.
        """

    def opened(self, client: Any) -> None:
        """Take note that a connection is open, before its handler runs."""

    def closed(self, client: Any, end: End) -> None:
        """Take note that a connection has ended and was released.

        In the context of the handler's request, where there is one.

        :param client: None where none was made.
        """

    def refused(self, environ: dict[str, Any], refusal: Refusal) -> None:
        """Take note that a request for a WebSocket is answered otherwise, in its context."""


class Observers(list[Observer]):
    """The observers of an extension."""

    def __init__(self) -> None:
        super().__init__()
        #: Called with each time that is measured: what it is, whose, and how many seconds. On the
        #: worker's loop, too, where nobody may wait.
        self.timers: list[Callable[[Timed, str, float], object]] = []
        self._errors = RateLimit(5)

    def notify(self, method: str, *args: Any) -> None:
        """Call a method of each; log what it raises."""
        # A context manager around each call would cost a handshake more than the calls.
        for observer in self:
            try:
                getattr(observer, method)(*args)
            except Exception as error:
                self._report(method, error)

    def timed(self, what: Timed, whose: str, seconds: float) -> None:
        """Call each timer with a time; log what it raises.

        :param whose: the route, or the pattern of rooms.
        """
        for timer in self.timers:
            try:
                timer(what, whose, seconds)
            except Exception as error:
                self._report("timed", error)

    def client_class(self, client_class: type[Any], config: Any) -> type[Any]:
        """Return the class that all of them have derived from one of clients."""
        for observer in self:
            try:
                client_class = observer.client_class(client_class, config)
            except Exception as error:
                self._report("client_class", error)
        return client_class

    def _report(self, method: str, error: Exception) -> None:
        if self._errors.passes():
            log_exception("an observer of WebSockets failed in %s()", method, error=error)
