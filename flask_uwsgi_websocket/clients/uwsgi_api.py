"""A client that calls uWSGI's own WebSocket functions."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..connection.receiving import ENDS_TOLD
from ..connection.sending import FIRST_PAUSE
from ..exceptions import ConnectionClosed
from ..helpers.wsgi import WSGIEnvironment
from ..metrics.route import RouteMetrics
from ..metrics.traffic import Traffic
from ..servers import uwsgi


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
        return self._unless_ended(self._uwsgi.websocket_recv)

    recv = receive

    def recv_nb(self) -> bytes | None:
        """Return a message that is already here, else ``b''``; None once the client has gone.

        :raises ConnectionClosed: as :meth:`receive`.
        """
        return self._unless_ended(self._uwsgi.websocket_recv_nb)

    def _unless_ended(self, receive: Callable[[], bytes]) -> bytes | None:
        try:
            return receive()
        except OSError:
            self.connected = False
        self._ends_told += 1
        if self._ends_told > ENDS_TOLD:
            # Patched by gevent where it runs, so that others run meanwhile.
            time.sleep(FIRST_PAUSE)
            raise ConnectionClosed(1006, "the client has gone")
        return None

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


@contextmanager
def counted(route: RouteMetrics) -> Iterator[None]:
    """Count a connection while its handler runs; what goes over it, and its code, uWSGI keeps."""
    traffic = Traffic()
    route.opened()
    try:
        yield
    finally:
        # uWSGI sends no Close: to a client that is left without one, that is 1006 as well.
        route.fold(traffic, "lost", 1006)
