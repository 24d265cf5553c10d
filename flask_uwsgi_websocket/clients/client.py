"""What a handler gets: the client at the other end of its connection."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from ..connection.blocking import BlockingConnection
from ..connection.connection import ENDS_TOLD, FIRST_PAUSE, Connection, Message
from ..exceptions import ConnectionClosed
from ..helpers.text import path_of, printable
from ..servers import uwsgi
from ..session.lazy import Unopened

if TYPE_CHECKING:
    from types import TracebackType

    from _typeshed.wsgi import WSGIEnvironment
    from flask import Flask
    from flask.ctx import AppContext, RequestContext
    from typing_extensions import Self

T = TypeVar("T")
Data = str | bytes | bytearray | memoryview


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


class BaseClient:
    """What the clients of all engines have in common.

    :param environ: the WSGI environment of the upgrade request.
    :param connection: the connection, after the handshake.
    :param subprotocol: the one agreed on in the handshake (RFC 6455 1.9), or None.
    :param app: the Flask app, for :meth:`request_context` and JSON; None without Flask.
    :param extension: the extension whose route it came by, for its ``clients``.
    """

    #: Whether bytes go out as text, unless told otherwise.
    _bytes_are_text = False

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
        if isinstance(connection, Unopened):
            connection.opened = self._opened
        else:
            connection.client = self
        self._app = app
        self._json: Any = json if app is None else app.json
        self._text = connection.protocol.text
        self._binary = connection.protocol.binary

    def _opened(self, connection: Connection) -> None:
        self._connection = connection
        connection.client = self

    @cached_property
    def id(self) -> str:
        """Unique for each connection, across workers and machines."""
        return str(uuid.uuid4())

    @property
    def path(self) -> str:
        """The decoded path of the request, without the part that mounts the app.

        As the client sent it: see :func:`~.text.printable` before it goes into a log.
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
        """Why the connection ended (RFC 6455 7.4); None while it is open.

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

        For a handler whose handshake waits for its first use of the client, because it has
        decorators or its route is ``lazy``. Otherwise it was answered before the handler ran.

        :raises ConnectionClosed: when the client has gone.
        """
        connection: Connection | Unopened = self._connection
        if isinstance(connection, Unopened):
            connection.open()

    def request_context(self) -> RequestContext:
        """A Flask request context of the upgrade request."""
        if self._app is None:
            raise RuntimeError("this client was not accepted by a Flask app")
        return self._app.request_context(self.environ)

    def app_context(self) -> AppContext:
        """A fresh Flask app context, for one unit of work of a long connection.

        ``with ws.app_context():`` has a ``g`` of its own, and what Flask's extensions take for
        it, such as a database session, they give back at its end.
        """
        if self._app is None:
            raise RuntimeError("this client was not accepted by a Flask app")
        return self._app.app_context()

    def release_resources(self) -> None:
        """Give back what Flask's extensions hold for this request, in the middle of it.

        Runs the app's ``teardown_appcontext`` functions, as the end of the request will again:
        a database session goes back to its pool, and the next query takes a new one.
        """
        if self._app is None:
            raise RuntimeError("this client was not accepted by a Flask app")
        for function in reversed(self._app.teardown_appcontext_funcs):
            self._app.ensure_sync(function)(None)

    def __repr__(self) -> str:
        state = "connected" if self.close_code is None else f"closed {self.close_code}"
        return f"<{type(self).__name__} {printable(self.path)} {state}>"

    def recv_nb(self) -> Message | None:
        """Return a message that is already here, else ``''``; None once the connection is closed.

        :raises ConnectionClosed: after two times None, for a handler that heeds neither.
        """
        return self._connection.receive_nowait()

    def send_nb(self, msg: Data, binary: bool | None = None) -> None:
        """Send without ever waiting: queue what the client does not take yet.

        :raises ConnectionClosed: when the connection is closed; or when more than
            ``UWSGI_WEBSOCKET_SEND_QUEUE_SIZE`` bytes are queued already, by which this client
            is closed with code 1013.
        """
        self._connection.post_nowait(self._encoder(msg, binary), msg)

    def _encoder(self, msg: Data, binary: bool | None) -> Callable[[Any], bytes]:
        """What makes the frame for ``msg``."""
        if isinstance(msg, str):
            return self._encode_binary if binary else self._text
        if isinstance(msg, (bytes, bytearray, memoryview)):
            if binary or (binary is None and not self._bytes_are_text):
                return self._binary
            return self._decode_text
        if self._connection.ended:  # send(receive()) after the end: say that, not the type
            raise self._connection.closed_error()
        raise TypeError(f"a message is str or bytes, not {type(msg).__name__}")

    def _encode_binary(self, msg: str) -> bytes:
        return self._binary(msg.encode())

    def _decode_text(self, msg: bytes | bytearray | memoryview) -> bytes:
        return self._text(decode_text(msg))

    def _loads(self, message: Message | None) -> Any:
        if message is None:
            raise self._connection.closed_error()
        return self._json.loads(message)

    @staticmethod
    def _shared_area(number: int, position: int) -> bytes:
        return uwsgi.shared_area(number, position)


class WebSocketClient(BaseClient):
    """The client of a blocking handler; its methods may be called from any thread."""

    _connection: BlockingConnection

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._connection.run(coroutine)

    def receive(self, timeout: float | None = None) -> Message | None:
        """Wait for the next message: str for a text message, bytes for a binary one.

        :return: None once the connection is closed and every message has been received.
        :raises TimeoutError: when ``timeout`` seconds pass without a message.
        :raises ConnectionClosed: after two times None, for a handler that heeds neither.
        """
        return self._connection.receive_blocking(timeout)

    recv = receive

    def send(self, msg: Data, binary: bool | None = None) -> None:
        """Send a message: str as text, bytes as binary, unless ``binary`` says otherwise.

        Waits while more than ``UWSGI_WEBSOCKET_SEND_QUEUE_SIZE`` bytes are queued because the
        client does not read.

        :raises ConnectionClosed: when the connection is closed, or the client took nothing for
            ``UWSGI_WEBSOCKET_SEND_TIMEOUT`` seconds. A handler need not catch it.
        :raises ValueError: when bytes that are not UTF-8 are to go as text.
        """
        connection = self._connection
        encode: Callable[[Any], bytes] = self._text
        if binary or type(msg) is not str:
            encode = self._encoder(msg, binary)
        try:
            if connection.post(encode, msg):
                self._run(connection.drained())
        except ConnectionClosed:
            self._run(connection.send_failed())
            raise

    def send_binary(self, msg: Data) -> None:
        """Send a binary message."""
        self.send(msg, binary=True)

    def send_json(self, obj: Any) -> None:
        """Send an object as JSON text, with the app's JSON provider."""
        self.send(self._json.dumps(obj), binary=False)

    def receive_json(self, timeout: float | None = None) -> Any:
        """Wait for the next message and read it as JSON; None is JSON's ``null``.

        :raises ConnectionClosed: once the connection is closed and every message has been
            received. A handler need not catch it.
        :raises ValueError: when it isn't JSON.
        :raises TimeoutError: as :meth:`receive`.
        """
        return self._loads(self.receive(timeout))

    def send_from_sharedarea(self, id: int, pos: int) -> None:
        """Send what a uWSGI shared area holds from ``pos`` on, as text."""
        self.send(self._shared_area(id, pos), binary=False)

    def send_binary_from_sharedarea(self, id: int, pos: int) -> None:
        """Send what a uWSGI shared area holds from ``pos`` on, as binary."""
        self.send(self._shared_area(id, pos), binary=True)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection (RFC 6455 7.1.2); wait at most ``timeout`` seconds for the peer.

        Does nothing on a closed connection.

        :param code: 1000 to 1003, 1007 to 1014, or 3000 to 4999 (RFC 6455 7.4).
        :param reason: at most 123 bytes of UTF-8.
        :raises ValueError: for a code or reason that may not be sent.
        """
        self._run(self._connection.close(code, reason))

    def __iter__(self) -> Iterator[Message]:
        while True:
            message = self.receive()
            if message is None:
                return
            yield message

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None or issubclass(exc_type, ConnectionClosed):
            self.close()
        else:
            self.close(1011)


class UWSGIWebSocketClient:
    """uWSGI's own WebSocket functions, as they are.

    Set it as ``WebSocketMiddleware.client`` to get them. They share one buffer for fragments
    among all clients of a process, crash the worker on a stray continuation frame, and don't
    tell text from binary: prefer :class:`WebSocketClient`.

    https://uwsgi-docs.readthedocs.io/en/latest/WebSockets.html
    """

    def __init__(self, environ: WSGIEnvironment, fd: int, timeout: float = 5) -> None:
        self.environ = environ
        self.fd = fd
        self.timeout = timeout
        self.id = str(uuid.uuid4())
        self.connected = True
        self._ends_told = 0
        self._uwsgi = uwsgi.websocket_api()

    def receive(self) -> bytes | None:
        """Wait for the next message; None once the client has gone.

        :raises ConnectionClosed: after two times None, for a handler that heeds neither.
        """
        try:
            return self._uwsgi.websocket_recv()  # type: ignore[no-any-return]
        except OSError:
            self._tell_end()
            return None

    recv = receive

    def recv_nb(self) -> bytes | None:
        """Return a message that is already here, else ``b''``; None once the client has gone.

        :raises ConnectionClosed: as :meth:`receive`.
        """
        try:
            return self._uwsgi.websocket_recv_nb()  # type: ignore[no-any-return]
        except OSError:
            self._tell_end()
            return None

    def _tell_end(self) -> None:
        self.connected = False
        self._ends_told += 1
        if self._ends_told > ENDS_TOLD:
            # Patched by gevent where it runs, so that others run meanwhile.
            time.sleep(FIRST_PAUSE)
            raise ConnectionClosed(1006, "the client has gone")

    def send(self, msg: str | bytes, binary: bool = False) -> None:
        """Send a message.

        :raises OSError: when the client has gone.
        """
        if binary:
            self._uwsgi.websocket_send_binary(msg)
        else:
            self._uwsgi.websocket_send(msg)

    def send_binary(self, msg: str | bytes) -> None:
        """Send a binary message; raises as :meth:`send`."""
        self.send(msg, binary=True)

    def send_from_sharedarea(self, id: int, pos: int) -> None:
        """Send a shared area from ``pos`` on, as text.

        uWSGI's function for it is missing from its Python module (and ignores ``pos``), so this
        reads the area and sends what it read.
        """
        self.send(uwsgi.shared_area(id, pos))

    def send_binary_from_sharedarea(self, id: int, pos: int) -> None:
        """Send a shared area from ``pos`` on, as binary."""
        self.send(uwsgi.shared_area(id, pos), binary=True)

    def close(self) -> None:
        """End the connection when the handler returns."""
        self.connected = False
