"""A WSGI server, as whoever accepted the connection of an upgrade request."""

from __future__ import annotations

from _socket import socket as Socket
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from socket import SHUT_WR

from ..connection.detached import Body
from ..engines.base import Engine
from ..exceptions import ConnectionClosed
from ..helpers.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
from .upgrade import RAW_FAILURE, UPGRADE, Headers, Upgrade, upgrade_of


class Server(ABC):
    """A WSGI server that can hand a connection over."""

    #: Whether a response 101 tells it, at the end, that a connection is over.
    hears_end_by_response = True

    @abstractmethod
    def check(self, environ: WSGIEnvironment, engine: str, classes: Mapping[str, str]) -> None:
        """Check that WebSockets can be served here, by the class made for this engine.

        :raises HandshakeError: when there is no room for another one.
        :raises EngineError: when another class, or another way to start it, is needed.
        """

    @abstractmethod
    def engine(self, environ: WSGIEnvironment, name: str) -> Engine:
        """Return what runs the handlers of the class made for this engine."""

    @abstractmethod
    def take(self, environ: WSGIEnvironment) -> Socket:
        """Take the request's connection over, in its own thread or greenlet; may raise OSError."""

    def answer(self, environ: WSGIEnvironment, sock: Socket, headers: Headers) -> None:
        """Answer 101, from anywhere, on a connection taken over; may raise ConnectionClosed."""
        lines = [f"{name}: {value}\r\n" for name, value in headers]
        # RFC 6455 4.2.2. Not through start_response: servers add headers of their own.
        answer = f"HTTP/1.1 101 Switching Protocols\r\n{''.join(lines)}\r\n"
        try:
            # Never waits: nothing was sent on this connection, and this is small.
            sock.sendall(answer.encode("latin-1"))
        except OSError as error:
            raise ConnectionClosed(1006, "the client left during the handshake") from error

    def switch(self, environ: WSGIEnvironment, sock: Socket, headers: Headers) -> None:
        """Answer 101, as :meth:`answer`; ignore what the application says of HTTP after this."""
        upgrade = upgrade_of(environ)
        try:
            self.answer(environ, sock, headers)
        finally:
            del upgrade.start_response  # which leads back to the state, and would keep it
        upgrade.switched = True

    def fail(self, environ: WSGIEnvironment, sock: Socket) -> None:
        """Answer 500 at once, on a connection that was taken over; from anywhere."""
        upgrade_of(environ).switched = True
        with suppress(OSError):
            sock.sendall(RAW_FAILURE)
            sock.shutdown(SHUT_WR)

    def call(
        self,
        application: WSGIApplication,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        engine: str,
    ) -> Body:
        """Call an application with a request for a WebSocket, for a class of this engine."""
        upgrade = environ.get(UPGRADE)
        if upgrade is not None:  # within another middleware of ours
            upgrade.start_response = start_response
            return application(environ, start_response)
        tells_end = self.hears_end_by_response
        environ[UPGRADE] = Upgrade(environ, start_response, tells_end=tells_end)
        return self._call(application, environ, engine)

    def _call(self, application: WSGIApplication, environ: WSGIEnvironment, engine: str) -> Body:
        return application(environ, upgrade_of(environ).begin)

    def detach(self, environ: WSGIEnvironment) -> None:  # noqa: B027
        """Let the request end, where it can: its connection was taken over and answered."""

    def leave(self, start_response: StartResponse) -> Sequence[bytes]:
        """Return the body of the WSGI response, at the end of a connection that was taken over."""
        return ()
