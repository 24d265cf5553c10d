"""Everything that this package raises, in one tree.

::

    WebSocketError
    ├── ConnectionClosed (also a ConnectionError)   the connection is over; carries code, reason
    ├── ProtocolError                               carries the close code that answers it
    │   ├── LocalProtocolError (also a ValueError)  our caller asked for what the RFC forbids
    │   └── RemoteProtocolError         1002        the peer broke the protocol
    │       ├── InvalidPayload          1007        text that is not UTF-8, data that won't inflate
    │       ├── MessageTooBig           1009        a message above the limit
    │       └── TooManyFrames           1008        more of what carries no message than may be
    ├── HandshakeError                              an opening handshake that cannot be accepted
    ├── EngineError                                 this process cannot run the engine asked for
    │   ├── UWSGINotFound                           no uWSGI binary
    │   ├── GeventNotInstalled
    │   ├── AsyncioNotAvailable
    │   └── UnsupportedFront                        nor behind what the server was started with
    └── RoomError                                   a room that cannot be joined, or sent to
        ├── BackplaneUnavailable    1013            what connects the workers does not answer
        ├── TooManyRooms            1008            a client that joins more rooms than it may
        └── RoomFull                1013            a room with as many members as it may have

A close code is one of RFC 6455 section 7.4.
"""

from __future__ import annotations

from .helpers.text import printable


class WebSocketError(Exception):
    """The root of this package's exceptions."""


class ConnectionClosed(WebSocketError, ConnectionError):
    """The connection is closed, so nothing can be sent on it.

    A handler need not catch it: uncaught it ends the handler quietly.

    :param code: the close code (RFC 6455 7.1.5); 1006 when the peer vanished without a Close.
    :param reason: the close reason (RFC 6455 7.1.6).
    """

    def __init__(self, code: int = 1006, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        reason = f" ({printable(self.reason)})" if self.reason else ""
        return f"the WebSocket connection is closed: code {self.code}{reason}"


class ProtocolError(WebSocketError):
    """Somebody broke RFC 6455 or RFC 7692.

    :param reason: what was wrong, fit for a close reason (RFC 6455 7.1.6).
    """

    #: The code of the Close frame that answers the mistake (RFC 6455 7.4.1).
    close_code = 1002

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LocalProtocolError(ProtocolError, ValueError):
    """The caller asked for a frame that the RFC forbids to send; nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol (RFC 6455 7.1.7: fail the connection)."""


class InvalidPayload(RemoteProtocolError):
    """Text that is not UTF-8 (RFC 6455 8.1), or compressed data that does not inflate."""

    close_code = 1007


class MessageTooBig(RemoteProtocolError):
    """A message larger than the limit, counted over all its fragments after decompression."""

    close_code = 1009


class TooManyFrames(RemoteProtocolError):
    """More frames that carry no message than a client with a ``max_rate`` may send."""

    close_code = 1008


class HandshakeError(WebSocketError):
    """An opening handshake that cannot be accepted (RFC 6455 4.2.2).

    :param status: the HTTP status that answers it.
    :param reason: what was wrong and what would be right.
    :param headers: header fields that the answer must carry.
    :param kind: as what it is counted: one of ``REASONS`` in ``metrics/observers.py``.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        headers: tuple[tuple[str, str], ...] = (),
        *,
        kind: str = "handshake",
    ) -> None:
        super().__init__(reason)
        self.kind = kind
        #: Whether the log says already why, and what to do.
        self.is_logged = False
        self.status = status
        self.reason = reason
        self.headers = headers


class EngineError(WebSocketError, RuntimeError):
    """This process cannot run the engine asked for; the message names the remedy.

    It is for the log: it tells how the server is run, which is no business of its clients.
    """

    #: The HTTP status that answers a handshake.
    status = 500


class UWSGINotFound(EngineError):
    """There is no uWSGI to run, or not inside one."""


class GeventNotInstalled(EngineError):
    """gevent is not installed."""


class AsyncioNotAvailable(EngineError):
    """greenlet, or uWSGI's asyncio engine, is not there."""


class UnsupportedFront(EngineError):
    """WebSockets cannot pass what the server was started with in front of them."""

    status = 501


class RoomError(WebSocketError):
    """A room that cannot be joined, or sent to."""

    #: What closes the client of a handler that does not catch it (RFC 6455 7.4.1).
    close_code = 1011


class BackplaneUnavailable(RoomError, ConnectionError):
    """What connects the workers does not answer: nobody, or an unknown part, got the message.

    In a handler that does not catch it, it closes the client with 1013.
    """

    close_code = 1013


class TooManyRooms(RoomError):
    """A client that joins more rooms than ``UWSGI_WEBSOCKET_MAX_ROOMS``.

    In a handler that does not catch it, it closes the client with 1008.
    """

    close_code = 1008


class RoomFull(RoomError):
    """A room with as many members as its ``max_members``.

    In a handler that does not catch it, it closes the client with 1013.
    """

    close_code = 1013
