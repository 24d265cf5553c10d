"""The members that the clients of all engines have in common."""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..connection.base import Message
from ..connection.connection import Connection
from ..exceptions import ConnectionClosed
from ..helpers.text import path_of, printable
from ..helpers.wsgi import WSGIEnvironment
from ..rooms.channels import room_channel
from ..rooms.positions import Joined
from ..rooms.rooms import Rooms
from ..rooms.targets import Target
from ..servers import uwsgi
from ..session.lazy import Unopened

if TYPE_CHECKING:
    from flask import Flask
    from flask.ctx import AppContext, RequestContext

Data = str | bytes | bytearray | memoryview

#: In the environment of a request: who has sent it, where that is known.
USER = "flask_uwsgi_websocket.user"

#: What a method that waits gives when it has nothing to return: None, or a coroutine of None.
Done = TypeVar("Done")


def decode_text(msg: bytes | bytearray | memoryview) -> str:
    """Decode bytes that are to go as a text message.

    :raises ValueError: when they are not UTF-8.
    """
    try:
        return str(msg, "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            "a text message must be UTF-8 (RFC 6455 5.6); send other bytes with send_binary()"
        ) from error


class BaseClient(Generic[Done]):
    """A client, whatever its engine.

    Methods that only hand on to one that waits are here, too: they return what it returns.

    :param environ: the WSGI environment of the upgrade request.
    :param connection: the connection, after the handshake.
    :param subprotocol: the one agreed on in the handshake (RFC 6455 1.9), or None.
    :param app: the Flask app, for :meth:`request_context` and JSON; None without Flask.
    :param extension: the extension whose route was asked for, for its ``clients``.
    """

    #: Whether bytes go out as text, unless told otherwise.
    _bytes_are_text = False
    #: Whether what is sent goes in envelopes: see :mod:`~.rooms.envelope`.
    enveloped = False

    def __init__(
        self,
        environ: WSGIEnvironment,
        connection: Connection,
        *,
        subprotocol: str | None = None,
        app: Flask | None = None,
        extension: Any = None,
    ) -> None:
        self.environ = environ
        self.subprotocol = subprotocol
        self._connection = connection
        self._extension = extension
        self._app = app
        self._json: Any = json if app is None else app.json
        if isinstance(connection, Unopened):
            connection.opened = self._opened
        else:
            self._opened(connection)

    def _opened(self, connection: Connection) -> None:
        self._connection = connection
        connection.client = self
        if self._extension is not None:
            self._rooms.welcome(connection, self.user)
        if connection.route is not None:
            connection.route.notify_opened(self)

    @property
    def _rooms(self) -> Rooms:
        if self._extension is None:
            raise RuntimeError("this client is none of an app's: it has no rooms")
        rooms: Rooms = self._extension._rooms.of(self._app)
        return rooms

    @cached_property
    def id(self) -> str:
        """Unique for each connection, across workers and machines."""
        return str(uuid.uuid4())

    @property
    def user(self) -> str | None:
        """Who the client is, as the app's ``identify`` tells; None for somebody unknown."""
        return self.environ.get(USER)

    @property
    def rooms(self) -> frozenset[str]:
        """The names of the rooms that it is in."""
        connection: Connection | Unopened = self._connection
        return frozenset() if isinstance(connection, Unopened) else self._rooms.rooms_of(connection)

    def join(
        self, room: str, info: Any = None, since: str | None = None, replay: int = 0
    ) -> Joined | Coroutine[Any, Any, Joined]:
        """Join a room, until :meth:`leave` or the end; return when that is in force.

        What is sent to the room after that, from anywhere, arrives. To be in it already is no
        error; then only the info changes.

        :param info: what the others in the room may know of this client, where that has
            ``presence``: what JSON has, 4 KiB of it at most.
        :param since: where the room has ``history``: the position from which on the client has to
            get all. Where that is impossible, it gets nothing, and ``recovered`` is False. It may
            come from the client, and be anything.
        :param replay: where the room has ``history``, and without ``since``: how many of the last
            messages to send first.
        :return: the ``room``, the client's ``position`` there, whether it has ``recovered``, and
            how many messages were ``replayed``.
        :raises BackplaneUnavailable: when it cannot be in force now, after two seconds. A handler
            need not catch it: it closes the client with code 1013.
        :raises ConnectionClosed: when the connection has ended.
        :raises RoomFull: when the room has as many members as its ``max_members``.
        :raises TooManyRooms: above ``UWSGI_WEBSOCKET_MAX_ROOMS``.
        :raises TypeError: for an info that is no JSON.
        :raises ValueError: for one that is too long; for a ``replay`` that is no number of
            messages.
        """
        raise NotImplementedError

    def leave(self, room: str) -> Awaitable[None] | None:
        """Leave a room, at once; under asyncio the result may be awaited, but need not."""
        connection: Connection | Unopened = self._connection
        if not isinstance(connection, Unopened):
            self._rooms.leave(connection, room)
        return None

    def _target(self, rooms: Iterable[str]) -> Any:
        """Make the target of all others in some rooms."""
        channels = [room_channel(room) for room in rooms]
        return Target(self._rooms, channels, self)

    @property
    def path(self) -> str:
        """The decoded path of the request, without the part that mounts the app.

        As the client sent it: it may forge lines of a log.
        """
        return path_of(self.environ)

    @property
    def fd(self) -> int:
        """The descriptor of the connection; -1 once it is released."""
        return self._connection.socket.fileno()

    @property
    def timeout(self) -> float:
        """Seconds of grace for a closing handshake."""
        return self._connection.limits.timeout

    @property
    def connected(self) -> bool:
        """False once the connection is closed and all that came before has been received."""
        return self._connection.connected

    @property
    def close_code(self) -> int | None:
        """The code the connection ended with (RFC 6455 7.4); None while it is open.

        1005 where the peer's Close gave no code, 1006 where it vanished without one.
        """
        return self._connection.close_code

    @property
    def close_reason(self) -> str | None:
        """The reason that came, or went, with the close code; None while it is open."""
        return self._connection.close_reason

    @property
    def latency(self) -> float | None:
        """Round trip of the last heartbeat, in seconds; None before the first."""
        return self._connection.latency

    def accept(self) -> None:
        """Answer the handshake now.

        For a handler that has decorators, or whose route is ``lazy``: there the handshake waits
        for the first use of the client. Elsewhere it was answered before the handler ran.

        :raises ConnectionClosed: when the client has gone.
        """
        connection: Connection | Unopened = self._connection
        if isinstance(connection, Unopened):
            connection.open()

    def request_context(self) -> RequestContext:
        """Make a Flask request context of the upgrade request."""
        return self._flask().request_context(self.environ)

    def app_context(self) -> AppContext:
        """Make a fresh Flask app context, for one unit of work of a long connection.

        ``with ws.app_context():`` has a ``g`` of its own. What Flask's extensions take for it,
        such as a database session, they give back at its end.
        """
        return self._flask().app_context()

    def release_resources(self) -> None:
        """Give back what Flask's extensions hold for this request, in the middle of it.

        Runs the app's ``teardown_appcontext`` functions, as the end of the request will again:
        a database session goes back to its pool, and the next query takes a new one.
        """
        app = self._flask()
        for function in reversed(app.teardown_appcontext_funcs):
            app.ensure_sync(function)(None)

    def _flask(self) -> Flask:
        if self._app is None:
            raise RuntimeError("this client was not accepted by a Flask app")
        return self._app

    def __repr__(self) -> str:
        state = "connected" if self.close_code is None else f"closed {self.close_code}"
        return f"<{type(self).__name__} {printable(self.path)} {state}>"

    def receive(self, timeout: float | None = None) -> Any:
        """Wait for the next message: str for a text message, bytes for a binary one.

        :return: None once the connection is closed and every message has been received.
        :raises TimeoutError: when ``timeout`` seconds pass without a message.
        :raises ConnectionClosed: after two times None, for a handler that heeds neither.
        """
        raise NotImplementedError

    def recv_nb(self) -> Message | None:
        """Return a message that is already here, else ``''``; None once the connection is closed.

        :raises ConnectionClosed: after two times None, for a handler that heeds neither.
        """
        return self._connection.receive_nowait()

    def receive_json(self, timeout: float | None = None) -> Any:
        """Wait for the next message and read it as JSON; None is JSON's ``null``.

        :raises ConnectionClosed: once the connection is closed and every message has been
            received. A handler need not catch it.
        :raises ValueError: when it isn't JSON.
        :raises TimeoutError: as :meth:`receive`.
        """
        raise NotImplementedError

    def send(self, msg: Data, binary: bool | None = None) -> Done:
        """Send a message: str as text, bytes as binary, unless ``binary`` says otherwise.

        Waits while more than ``UWSGI_WEBSOCKET_SEND_QUEUE_SIZE`` bytes are queued because the
        client does not read.

        :raises ConnectionClosed: when the connection is closed, or the client took nothing for
            ``UWSGI_WEBSOCKET_SEND_TIMEOUT`` seconds. A handler need not catch it.
        :raises ValueError: when bytes that are not UTF-8 are to go as text.
        """
        raise NotImplementedError

    def send_nb(self, msg: Data, binary: bool | None = None) -> None:
        """Send without ever waiting: queue what the client does not take yet.

        :raises ConnectionClosed: when the connection is closed; or when more than
            ``UWSGI_WEBSOCKET_SEND_QUEUE_SIZE`` bytes are queued already, by which this client
            is closed with code 1013.
        """
        self._connection.post_nowait(self._encoder(msg, binary), msg)

    def send_binary(self, msg: Data) -> Done:
        """Send a binary message."""
        return self.send(msg, binary=True)

    def send_json(self, obj: Any) -> Done:
        """Send an object as JSON text, with the app's JSON provider."""
        return self.send(self._json.dumps(obj), binary=False)

    def send_from_sharedarea(self, id: int, pos: int) -> Done:
        """Send what a uWSGI shared area holds from ``pos`` on, as text."""
        return self.send(uwsgi.shared_area(id, pos), binary=False)

    def send_binary_from_sharedarea(self, id: int, pos: int) -> Done:
        """Send what a uWSGI shared area holds from ``pos`` on, as binary."""
        return self.send(uwsgi.shared_area(id, pos), binary=True)

    def close(self, code: int = 1000, reason: str = "") -> Done:
        """Close the connection (RFC 6455 7.1.2); wait at most ``timeout`` seconds for the peer.

        Does nothing on a closed connection.

        :param code: 1000 to 1003, 1007 to 1014, or 3000 to 4999 (RFC 6455 7.4).
        :param reason: at most 123 bytes of UTF-8.
        :raises ValueError: for a code or reason that may not be sent.
        """
        raise NotImplementedError

    def _encoder(self, msg: Data, binary: bool | None) -> Callable[[Any], bytes] | None:
        """Choose what makes the frame for ``msg``; None where its type says what it is."""
        if isinstance(msg, str):
            return self._encode_binary if binary else None
        if isinstance(msg, (bytes, bytearray, memoryview)):
            if binary or (binary is None and not self._bytes_are_text):
                return None
            return self._decode_text
        if self._connection.ended:  # send(receive()) after the end: say that, not the type
            raise self._connection.closed_error()
        raise TypeError(f"a message is str or bytes, not {type(msg).__name__}")

    def _encode_binary(self, msg: str) -> bytes:
        return self._connection.protocol.binary(msg.encode())

    def _decode_text(self, msg: bytes | bytearray | memoryview) -> bytes:
        return self._connection.protocol.text(decode_text(msg))

    def _loads(self, message: Message | None) -> Any:
        if message is None:
            raise self._connection.closed_error()
        return self._json.loads(message)

    def _close_after(self, exc_type: type[BaseException] | None) -> Done:
        """Close at the end of a ``with`` block."""
        expected = exc_type is None or issubclass(exc_type, ConnectionClosed)
        return self.close(1000 if expected else 1011)
