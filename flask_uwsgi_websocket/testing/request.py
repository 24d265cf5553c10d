"""An upgrade request of a test, on its way through the app, and the server that it comes from."""

from __future__ import annotations

import contextvars
import socket
import threading
import time
from _socket import socket as Socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, ClassVar

from werkzeug.datastructures import Headers
from werkzeug.test import run_wsgi_app

from ..helpers.text import path_of, printable
from ..helpers.wsgi import StartResponse, WSGIEnvironment
from ..servers.base import Server
from ..servers.find import add_server
from ..servers.sockets import SocketServer
from ..servers.upgrade import UPGRADE, Upgrade

_Fields = Iterable[tuple[str, str]]

#: In the environment of a request: the request.
KEY = "flask_uwsgi_websocket.testing"

#: Seconds that a handler has to come to its first ``receive()``, before the test goes on.
HANDLER_TIME = 0.25


@dataclass
class UpgradeRequest:
    """An upgrade request on its way through the app, as a WSGI app of its own."""

    app: Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]
    timeout: float
    greenlets: bool
    environ: WSGIEnvironment = field(default_factory=dict)
    #: The answer: 101 of whoever accepts, or else the app's response.
    answer: tuple[Iterable[bytes], str, Headers] | None = None
    error: BaseException | None = None

    def __post_init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.ours, self.theirs = Socket(fileno=ours.detach()), Socket(fileno=theirs.detach())
        if self.greenlets:
            import gevent
            from gevent.event import Event

            self._sleep: Callable[[float], object] = gevent.sleep
            self._spawn: Callable[[Callable[[], None]], Any] = gevent.spawn
            self._event: Callable[[], Any] = Event
        else:
            self._sleep = time.sleep
            self._spawn = _start_thread
            self._event = threading.Event
        self._answered, self._ended = self._event(), self._event()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Begin the request; return once the handshake is answered, with the answer."""
        # It would keep the context of a request that goes on.
        environ.pop("werkzeug.debug.preserve_context", None)
        self.environ = environ
        # None of the test's own contexts: a server has none either.
        self._spawn(partial(contextvars.Context().run, self._serve))
        if not self._answered.wait(self.timeout):
            self.close()
            raise TimeoutError(f"the app did not answer the handshake within {self.timeout} s")
        if self.error is not None:
            self.close()
            raise self.error
        assert self.answer is not None
        body, status, headers = self.answer
        start_response(status, headers.to_wsgi_list())
        return body

    def _serve(self) -> None:
        try:
            answer = run_wsgi_app(self.app, self.environ, buffered=True)
            if self.answer is None:
                self.answer = answer
        except BaseException as error:
            self.error = error
        finally:
            self._answered.set()
            self._ended.set()

    def respond(self, environ: WSGIEnvironment, status: str, headers: _Fields = ()) -> None:
        """Answer the handshake, for the server's side."""
        self.environ = environ  # the one in which a failure will be found: Werkzeug copied ours
        self.answer = (), status, Headers(headers)
        self._answered.set()

    def wait_for_handler(self, clients: Iterable[Iterable[Any]]) -> None:
        """Wait until the handler receives, a moment at most: it has joined its rooms by then.

        :param clients: the open ones, of each extension.
        """
        deadline = time.monotonic() + HANDLER_TIME
        while not self._ended.is_set() and time.monotonic() < deadline:
            connections = (client._connection for client in chain.from_iterable(clients))
            if any(each.socket is self.theirs and _receives(each) for each in connections):
                break
            self._sleep(0.001)

    def close(self) -> None:
        """Close the sockets of a handshake that was not accepted."""
        self.ours.close()
        self.theirs.close()

    def wait(self, timeout: float) -> None:
        """Wait until the request is over; TimeoutError when it isn't after ``timeout`` seconds."""
        if not self._ended.wait(timeout):
            raise TimeoutError(
                f"the handler of {printable(path_of(self.environ))} still runs {timeout} s after "
                "the connection was closed"
            )

    def failure(self) -> BaseException | None:
        """Return what the handler raised, or what was raised after it."""
        upgrade: Upgrade | None = self.environ.get(UPGRADE)
        return self.error if upgrade is None or upgrade.failure is None else upgrade.failure

    def forget_failure(self) -> None:
        """Forget what the handler raised, because the test has been told."""
        self.error = None
        if UPGRADE in self.environ:
            self.environ[UPGRADE].failure = None


def _receives(connection: Any) -> bool:
    """Return whether a handler waits in ``receive()``, whatever its engine."""
    reading = getattr(connection, "_reading", None)
    if reading is not None:
        return bool(reading.locked())
    return connection._waiter is not None or bool(connection._waiting)


def _start_thread(function: Callable[[], None]) -> None:
    threading.Thread(target=function, name="websocket-test", daemon=True).start()


class _TestServer(SocketServer):
    """The test client, as the server that the app runs on."""

    key: ClassVar[str] = KEY

    #: The test gets whatever the app raises.
    _call = Server._call

    def uses_greenlets(self, environ: WSGIEnvironment) -> bool:
        return _request_of(environ).greenlets

    def take(self, environ: WSGIEnvironment) -> Socket:
        return _request_of(environ).theirs

    def answer(self, environ: WSGIEnvironment, sock: Socket, headers: _Fields) -> None:
        _request_of(environ).respond(environ, "101 Switching Protocols", headers)

    def fail(self, environ: WSGIEnvironment, sock: Socket) -> None:
        _request_of(environ).respond(environ, "500 Internal Server Error")


def _request_of(environ: WSGIEnvironment) -> UpgradeRequest:
    request: UpgradeRequest = environ[KEY]
    return request


SERVER = _TestServer()
add_server(SERVER)
