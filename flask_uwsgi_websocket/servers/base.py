"""Who accepted the connection of an upgrade request: the port to the WSGI server.

uWSGI is the home of everything here. The other servers are those that hand their socket over in
the WSGI environment: Werkzeug's development server (``flask run``), gunicorn with threads or with
gevent, and the test client. On them a blocking handler runs in whatever the server runs its
requests in, a thread or a greenlet; a coroutine function runs on a loop in a thread of its own.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from _socket import dup
from _socket import socket as Socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from io import BufferedReader, BytesIO
from socket import SHUT_WR
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary, ref

from ..connection.detached import DetachedRequest
from ..engines.base import Engine
from ..engines.threads import ThreadsEngine
from ..exceptions import ConnectionClosed, EngineError, HandshakeError, UnsupportedFront
from ..helpers.log import RateLimit, logger
from ..helpers.threads import caller, threads_are_greenlets, wait_until
from ..inspection.effects import CLASSES
from ..process.server_process import ServerProcess
from . import uwsgi
from .upgrade import RAW_FAILURE, UPGRADE, Headers, Upgrade, upgrade_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

#: Seconds for which clients that a stopping process has told to leave are waited for.
LEAVE_TIME = 0.5


class Server(ABC):
    """A WSGI server that can hand a connection over."""

    #: Whether a response 101 tells it, at the end, that a connection is over.
    hears_end_by_response = True

    @abstractmethod
    def check(
        self, environ: WSGIEnvironment, engine: str, classes: Mapping[str, str] = CLASSES
    ) -> None:
        """Check that WebSockets can be served here, by the class made for this engine.

        :param classes: the class for each engine, for the messages.
        :raises HandshakeError: when there is no room for another one.
        :raises EngineError: when another class, or another way to start it, is needed.
        """

    @abstractmethod
    def engine(self, environ: WSGIEnvironment, name: str) -> Engine:
        """What runs the handlers of the class made for this engine."""

    @abstractmethod
    def take(self, environ: WSGIEnvironment) -> Socket:
        """The connection of the request, from its own thread or greenlet.

        :raises OSError: when the process has no descriptor left.
        """

    def answer(self, environ: WSGIEnvironment, sock: Socket, headers: Headers) -> None:
        """Answer 101 with these headers, on a connection that was taken; from anywhere.

        :raises ConnectionClosed: when the client has gone.
        """
        lines = [f"{name}: {value}\r\n" for name, value in headers]
        # RFC 6455 4.2.2. Not through start_response: servers add headers of their own.
        answer = f"HTTP/1.1 101 Switching Protocols\r\n{''.join(lines)}\r\n"
        try:
            # Never waits: nothing was sent on this connection, and this is small.
            sock.sendall(answer.encode("latin-1"))
        except OSError as error:
            raise ConnectionClosed(1006, "the client left during the handshake") from error

    def early(self, environ: WSGIEnvironment) -> bytes:
        """Return what the server has read behind a request whose connection was taken.

        RFC 6455 4.1 has clients wait for the answer before they send more; some do not.
        """
        upgrade = upgrade_of(environ)
        data, upgrade.early = upgrade.early, b""
        return data

    def accept(self, environ: WSGIEnvironment, headers: Headers) -> Socket:
        """Take the connection and answer 101, within the request.

        :raises ConnectionClosed: when the client has gone.
        :raises OSError: when the process has no descriptor left.
        """
        sock = self.take(environ)
        try:
            self.switch(environ, sock, headers)
        except BaseException:
            sock.close()
            raise
        return sock

    def switch(self, environ: WSGIEnvironment, sock: Socket, headers: Headers) -> None:
        """:meth:`answer`; what the application says of HTTP after this, nobody hears."""
        self.answer(environ, sock, headers)
        upgrade_of(environ).switched = True

    def fail(self, environ: WSGIEnvironment, sock: Socket) -> None:
        """Answer 500 at once, on a connection that was taken; from anywhere."""
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
    ) -> Iterable[bytes]:
        """Call an application with a request that asks for a WebSocket.

        :param engine: that of the class which may serve it.
        """
        upgrade = environ.get(UPGRADE)
        if upgrade is not None:  # within another middleware of ours
            upgrade.start_response = start_response
            return application(environ, start_response)
        upgrade = environ[UPGRADE] = Upgrade(
            environ, start_response, tells_end=self.hears_end_by_response
        )
        return self._call(application, environ, upgrade, engine)

    def _call(
        self,
        application: WSGIApplication,
        environ: WSGIEnvironment,
        upgrade: Upgrade,
        engine: str,
    ) -> Iterable[bytes]:
        return application(environ, upgrade.begin)

    def detach(self, environ: WSGIEnvironment) -> None:  # noqa: B027
        """The connection was taken over and answered: let the request end, where it can."""

    def leave(self, start_response: StartResponse) -> Sequence[bytes]:
        """The body of the WSGI response, at the end of a connection that was taken over."""
        return ()


class UWSGI(Server):
    """uWSGI itself."""

    hears_end_by_response = False

    def __init__(self) -> None:
        self._full = RateLimit()

    def check(
        self, environ: WSGIEnvironment, engine: str, classes: Mapping[str, str] = CLASSES
    ) -> None:
        uwsgi.require_engine(engine, classes)
        problem = uwsgi.unsupported_reason()
        if problem:
            raise UnsupportedFront(problem)
        problem = uwsgi.no_room_reason(environ)
        if problem:
            if self._full.passes():
                logger.warning("WebSockets are refused with 503: %s", problem)
            raise HandshakeError(503, "there is no room for another WebSocket: try again later")

    def engine(self, environ: WSGIEnvironment, name: str) -> Engine:
        return uwsgi.engine(name)

    def _call(
        self,
        application: WSGIApplication,
        environ: WSGIEnvironment,
        upgrade: Upgrade,
        engine: str,
    ) -> Iterable[bytes]:
        if not uwsgi.detaches(engine):
            return upgrade.run(application, environ)
        try:
            return self._call_detachable(application, environ, upgrade, engine)
        except Exception as error:
            return upgrade.fail(error)

    def _call_detachable(
        self,
        application: WSGIApplication,
        environ: WSGIEnvironment,
        upgrade: Upgrade,
        engine: str,
    ) -> Iterable[bytes]:
        devnull = uwsgi.devnull()
        # In a copy of the environment: uWSGI clears its own when the request ends.
        own = {**environ, "wsgi.input": upgrade.input}

        def run(detached: DetachedRequest) -> Iterable[bytes]:
            upgrade.detached = detached
            return upgrade.run(application, own)

        body = uwsgi.engine(engine).carry(run)
        if upgrade.detach:
            uwsgi.redirect_request(devnull)
            if not upgrade.told:
                upgrade.tell_server()
        return body

    def detach(self, environ: WSGIEnvironment) -> None:
        upgrade = upgrade_of(environ)
        if upgrade.detached is not None and not upgrade.detach:
            upgrade.input.end()
            upgrade.detach = True
            upgrade.detached.detach()

    def take(self, environ: WSGIEnvironment) -> Socket:
        upgrade = upgrade_of(environ)
        upgrade.taken_in = caller()
        sock = uwsgi.take()
        upgrade.early = uwsgi.read_ahead()
        return sock

    def answer(self, environ: WSGIEnvironment, sock: Socket, headers: Headers) -> None:
        # uWSGI then knows, and logs, what was answered. But its functions serve the request of
        # the thread or greenlet that calls them.
        upgrade = upgrade_of(environ)
        if upgrade.taken_in == caller():
            uwsgi.answer(environ, upgrade.start_response, headers)
            upgrade.told = True
        else:
            super().answer(environ, sock, headers)


class SocketServer(Server):
    """A server that puts its socket into the WSGI environment, and answers 500 to an exception."""

    #: Where in the environment.
    key: ClassVar[str]

    def _call(
        self,
        application: WSGIApplication,
        environ: WSGIEnvironment,
        upgrade: Upgrade,
        engine: str,
    ) -> Iterable[bytes]:
        try:
            return super()._call(application, environ, upgrade, engine)
        except Exception:
            raise
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and current_thread() is main_thread():
                raise  # Ctrl-C, where the server has no threads
            # These it would not answer, and some would end its thread, or its worker.
            raise RuntimeError(f"the app ended with {type(error).__name__}") from error

    def check(
        self, environ: WSGIEnvironment, engine: str, classes: Mapping[str, str] = CLASSES
    ) -> None:
        ssl = sys.modules.get("ssl")
        if ssl is not None and isinstance(environ[self.key], ssl.SSLSocket):
            raise UnsupportedFront(
                "WebSockets don't work here over TLS: put a proxy that speaks it in front"
            )
        if engine == "asyncio" and threads_are_greenlets():
            raise EngineError(
                f"{classes[engine]} needs real threads, which gevent has replaced in this "
                f"process: use {classes['gevent']}, or uWSGI"
            )

    def engine(self, environ: WSGIEnvironment, name: str) -> Engine:
        if name == "asyncio":
            return _loop_engine()
        return _gevent_engine() if self.uses_greenlets(environ) else _threads_engine()

    def uses_greenlets(self, environ: WSGIEnvironment) -> bool:
        """Whether requests run in greenlets, not in threads."""
        return threads_are_greenlets()

    def take(self, environ: WSGIEnvironment) -> Socket:
        upgrade_of(environ).early = self.held(environ)
        return Socket(fileno=dup(environ[self.key].fileno()))

    def held(self, environ: WSGIEnvironment) -> bytes:
        """Return what the server has read behind the request and keeps in a buffer."""
        return b""

    def leave(self, start_response: StartResponse) -> Sequence[bytes]:
        # The server writes this to its access log, then to a socket that is shut down, by which
        # it learns that the connection is over.
        start_response("101 Switching Protocols", [])
        return ()


class Werkzeug(SocketServer):
    """Werkzeug's development server: ``flask run``."""

    key = "werkzeug.socket"

    def held(self, environ: WSGIEnvironment) -> bytes:
        stream, sock = environ["wsgi.input"], environ[self.key]
        if not isinstance(stream, BufferedReader):
            return b""
        timeout = sock.gettimeout()
        sock.setblocking(False)  # an empty buffer would be filled
        try:
            return bytes(stream.peek())
        finally:
            sock.settimeout(timeout)


class Gunicorn(SocketServer):
    """gunicorn, with ``--threads N`` or ``--worker-class gevent``."""

    key = "gunicorn.socket"

    def held(self, environ: WSGIEnvironment) -> bytes:
        body_reader = getattr(environ["wsgi.input"], "reader", None)
        buffer = getattr(getattr(body_reader, "unreader", None), "buf", None)
        return buffer.getvalue() if isinstance(buffer, BytesIO) else b""

    def check(
        self, environ: WSGIEnvironment, engine: str, classes: Mapping[str, str] = CLASSES
    ) -> None:
        super().check(environ, engine, classes)
        if not environ.get("wsgi.multithread"):
            raise EngineError(
                "a WebSocket would hold this gunicorn worker, which serves one request at a time: "
                "start gunicorn with --threads N, or with --worker-class gevent"
            )


UWSGI_SERVER: Server = UWSGI()
_SOCKET_SERVERS: list[SocketServer] = [Werkzeug(), Gunicorn()]


def add_server(server: SocketServer) -> None:
    """Know another server. Asked before the others: the latest is the closest to the app."""
    _SOCKET_SERVERS.insert(0, server)


def server_of(environ: WSGIEnvironment) -> Server:
    """The server of this request; uWSGI, and its complaint that it isn't, where none is known."""
    if not uwsgi.inside():
        for server in _SOCKET_SERVERS:
            if server.key in environ:
                return server
    return UWSGI_SERVER


def engine_beside(name: str, environ: WSGIEnvironment | None = None) -> Engine:
    """Return what runs background work of the class made for an engine.

    :param environ: of a request, where there is one: it tells the server.
    """
    if uwsgi.inside():
        return uwsgi.engine(name)
    server = server_of(environ or {})
    if environ is not None and server is not UWSGI_SERVER:
        return server.engine(environ, name)
    if name == "asyncio":
        return _loop_engine()
    return _gevent_engine() if threads_are_greenlets() else _threads_engine()


class PlainProcess(ServerProcess):
    """A process that we know nothing of, but that it exits some day."""

    def parent_of_workers(self) -> int:
        # gunicorn's arbiter. Other servers are one process.
        return os.getppid() if "gunicorn.arbiter" in sys.modules else os.getpid()

    def _call_at_exit(self, callback: Callable[[], None]) -> None:
        atexit.register(callback)
        # Pools of threads (gunicorn's) are waited for before that, from Python 3.9 on; our handlers
        # in them end when their clients have been told. Twice does no harm.
        with suppress(RuntimeError):  # the process ends already
            getattr(threading, "_register_atexit", atexit.register)(callback)


def _told_to_leave(engine: Engine) -> Engine:
    """An engine whose clients are told when the process exits."""

    reference = ref(engine)

    def leave() -> None:
        engine = reference()
        if engine is None:
            return
        worker = engine.worker()
        worker.close_all(1001)
        wait_until(lambda: not worker.connections, LEAVE_TIME)

    engine.process.at_exit(leave)
    return engine


@cache
def _threads_engine() -> Engine:
    return _told_to_leave(ThreadsEngine(PlainProcess()))


@cache
def _loop_engine() -> Engine:
    from ..engines.asyncio_thread import AsyncioThreadEngine

    return _told_to_leave(AsyncioThreadEngine(PlainProcess()))


_gevent_engines: WeakKeyDictionary[Any, Engine] = WeakKeyDictionary()


def _gevent_engine() -> Engine:
    """One for each hub, of which there is one in each thread that has greenlets."""
    from gevent import get_hub

    from ..engines.gevent import GeventEngine

    hub = get_hub()
    engine = _gevent_engines.get(hub)
    if engine is None:
        engine = _gevent_engines[hub] = _told_to_leave(GeventEngine(PlainProcess()))
    return engine
