"""uWASP: servers that are classes, mounted on any WSGI application; needs no Flask app.

::

    from flask_uwsgi_websocket.uwasp import Server, WebSocketMiddleware

    class Echo(Server):
        def on_message(self, message):
            self.ws.send(message)

    application = WebSocketMiddleware(application, servers=[('/echo', Echo)])

A middleware makes a :class:`WebSocket`, a server and a :class:`Handler` for each connection; the
handler runs it in the request, with an engine of this package.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

from werkzeug.wsgi import get_host

from .clients.base import USER, BaseClient
from .clients.class_based import AwaitableWebSocket, Server, WebSocket, check_methods, converse
from .clients.client import AsyncioWebSocketClient, GeventWebSocketClient, WebSocketClient
from .clients.hosting import ClientsHost, settings_for
from .clients.open_clients import Clients
from .codec import DeflateSettings, UpgradeRequest
from .connection.base import Limits
from .connection.blocking import run_to_end
from .connection.connection import Connection
from .exceptions import ConnectionClosed, EngineError, HandshakeError
from .extension.config import COMPRESSION, check_backplane, check_origins
from .helpers.engines import ENGINES, HANDLERS
from .helpers.log import log_exception
from .helpers.text import path_of, shown
from .helpers.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
from .rooms.channels import user_of
from .rooms.live import RoomSettings
from .rooms.options import RoomPatterns
from .rooms.rooms import Rooms
from .rooms.targets import Targets
from .servers import uwsgi
from .servers.find import server_of
from .servers.upgrade import upgrade_of
from .session.negotiate import Settings, admit, is_upgrade_request, negotiate, refusal, refuse
from .session.session import Session

__all__ = [
    "AsyncioHandler",
    "ConnectionClosed",
    "GeventHandler",
    "Handler",
    "HandshakeError",
    "Limits",
    "Server",
    "ThreadHandler",
    "WebSocket",
    "WebSocketMiddleware",
]

#: For the log, where a method ends with another client's ConnectionClosed.
ANOTHER_HAD_LEFT = (
    ": it sent to another client, which had left. Catch ConnectionClosed around each send() to one"
)


class _Offer(NamedTuple):
    """A valid upgrade request, and what may be offered in return."""

    request: UpgradeRequest
    settings: Settings
    middleware: WebSocketMiddleware


class Handler:
    """Runs the connection of one client.

    Derive a class of your own from one of :class:`ThreadHandler`, :class:`GeventHandler` and
    :class:`AsyncioHandler`.

    :param ws: the connection, before its handshake.
    :param server: what it is for.
    """

    #: Which of uWSGI's modes it is for.
    engine_name: ClassVar[str]
    #: What wraps the connection, first for functions, then for servers.
    client_class: ClassVar[type[BaseClient[Any]]]
    websocket_class: ClassVar[type[WebSocket]] = WebSocket

    def __init__(self, ws: WebSocket, server: Any) -> None:
        self.ws = ws
        self.server = server

    def handle(self, environ: WSGIEnvironment, protocol_name: str | None = None) -> Iterable[bytes]:
        """Answer the handshake, and run the server until the connection has ended.

        :param environ: the WSGI environment that the middleware has got.
        :param protocol_name: the subprotocol that the server speaks.
        :return: the body of the WSGI response.
        """
        upgrade = upgrade_of(environ)
        offer: _Offer = upgrade.opening
        settings = replace(
            offer.settings,
            subprotocols=(protocol_name,) if protocol_name else (),
            require_subprotocol=getattr(self.server, "PROTOCOL_REQUIRED", False),
        )
        negotiation = negotiate(offer.request, settings)
        engine = server_of(environ).engine(environ, self.engine_name)
        offer.middleware.clients.look_in(engine)
        session = _ServerSession(environ, negotiation, engine)
        session.handler, session.middleware = self, offer.middleware
        return session.serve(upgrade.start_response)


class _ServerSession(Session):
    """A session whose handler is the server of a :class:`Handler`."""

    __slots__ = ("handler", "middleware")

    handler: Handler
    middleware: WebSocketMiddleware

    def handle(self, connection: Connection) -> Any:
        handler = self.handler
        client = handler.client_class(
            self.environ,
            connection,
            subprotocol=self.negotiation.subprotocol,
            extension=self.middleware,
        )
        handler.ws.attach(client)
        conversation = converse(handler.server, client)
        return conversation if self.engine.asynchronous else run_to_end(conversation)

    def report(self, error: BaseException, another_had_left: bool = False) -> tuple[int, str]:
        log_exception(
            "Exception in the WebSocket server %s of %s%s",
            type(self.handler.server).__name__,
            shown(path_of(self.environ)),
            ANOTHER_HAD_LEFT if another_had_left else "",
            error=error,
        )
        return 1011, ""


class ThreadHandler(Handler):
    """Runs connections under ``uwsgi --threads N`` or ``--processes N``."""

    engine_name = "threads"
    client_class = WebSocketClient


class GeventHandler(Handler):
    """Runs connections under ``uwsgi --gevent N``."""

    engine_name = "gevent"
    client_class = GeventWebSocketClient


class AsyncioHandler(Handler):
    """Runs connections under ``uwsgi --asyncio N --greenlet``; methods may be ``async def``."""

    engine_name = "asyncio"
    client_class = AsyncioWebSocketClient
    websocket_class = AwaitableWebSocket


class _Host(ClientsHost):
    """A middleware, as its rooms see it."""

    def __init__(self, middleware: WebSocketMiddleware, url: str | None, prefix: str) -> None:
        name = middleware.handler_class.engine_name
        super().__init__(name, middleware.clients, middleware.patterns)
        self._settings = settings_for(url, self, prefix=prefix)

    def settings(self) -> RoomSettings:
        return self._settings

    def dumps(self, value: Any) -> str:
        return json.dumps(value)


class _Rooms:
    """The rooms of a middleware, where those of an extension are by the app."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    def of(self, app: None) -> Rooms:
        return self._rooms


class WebSocketMiddleware(Targets[Any]):
    """A WSGI application around another, which serves WebSockets on some paths.

    :param application: gets all other requests.
    :param handler_class: fits the mode that uWSGI runs in.
    :param servers: pairs of a path, below the one that mounts this application, and a
        :class:`Server`. WebSockets on any other path get 404.
    :param origins: whose pages may connect: an origin (``https://example.com``,
        ``https://*.example.com`` for the hosts below it) or several, ``"*"`` for all; by default
        those on the host of the request.
    :param limits: what a connection may cost.
    :param compression: whether to accept permessage-deflate (RFC 7692).
    :param backplane: the URL of what connects the workers, for rooms: by default ``local://`` on
        uWSGI, ``memory://`` elsewhere.
    :param prefix: in front of all names at the backplane, for several applications at one.
    :param identify: tells by the WSGI environment who a client is: a str, or None. What it raises
        refuses the handshake, best by :exc:`.HandshakeError`.
    :raises TypeError: when a server lacks a method, or has coroutine functions which the handler
        cannot run.
    :raises ValueError: when ``origins`` are none, or ``compression`` cannot be.
    """

    def __init__(
        self,
        application: WSGIApplication,
        handler_class: type[Handler] = ThreadHandler,
        servers: Iterable[tuple[str, type[Any]]] = (),
        *,
        origins: str | Collection[str] | None = None,
        limits: Limits | None = None,
        compression: bool | DeflateSettings = False,
        backplane: str | None = None,
        prefix: str = "",
        identify: Callable[[WSGIEnvironment], str | int | None] | None = None,
    ) -> None:
        self.application = application
        self.handler_class = handler_class
        self.servers = dict(servers)
        check_origins("origins", origins)
        COMPRESSION.check("compression", compression)
        check_backplane("backplane", backplane, prefix)
        self.origins = origins
        self.settings = Settings(
            limits=limits or Limits(),
            compression=DeflateSettings() if compression is True else compression or None,
        )
        #: The open clients of this worker process.
        self.clients = Clients(self)
        #: The options of rooms: ``patterns.add("chat/*", slow="latest")``.
        self.patterns = RoomPatterns()
        self._rooms = _Rooms(Rooms(_Host(self, backplane, prefix)))
        self._identify = identify
        asynchronous = ENGINES[handler_class.engine_name].asynchronous
        for server_class in self.servers.values():
            check_methods(server_class, asynchronous)
        if uwsgi.inside():
            uwsgi.require_main_interpreter()
            bounds = self.settings.limits
            engine = uwsgi.engine(handler_class.engine_name)
            uwsgi.set_up(engine, bounds.timeout, bounds.ping_interval, HANDLERS)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not is_upgrade_request(environ):
            return self.application(environ, start_response)
        return server_of(environ).call(
            self._accept, environ, start_response, self.handler_class.engine_name
        )

    def _sender(self) -> Rooms:
        return self._rooms.of(None)

    def count(self, room: str) -> Any:
        """Count who is in a room: see :meth:`.WebSocket.count`."""
        return self._sender().count(room)

    def who(self, room: str) -> Any:
        """Return who is in a room with presence: see :meth:`.WebSocket.who`."""
        return self._sender().who(room)

    def present(self, user: str | int) -> Any:
        """Return whether a user has a client: see :meth:`.WebSocket.present`."""
        return self._sender().present(user)

    def rooms(self) -> Any:
        """Count who is in each room: see :meth:`.WebSocket.rooms`."""
        return self._sender().rooms()

    def _accept(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            return self._handle(environ, start_response)
        except (HandshakeError, EngineError) as error:
            return refuse(refusal(error, environ), start_response)

    def _handle(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = path_of(environ)
        server_class = self.servers.get(path)
        if server_class is None:
            raise HandshakeError(404, f"there is no WebSocket at {path}")
        request = admit(
            environ,
            self.handler_class.engine_name,
            self.origins,
            host=get_host(environ),
            setting="WebSocketMiddleware's origins=",
            classes=HANDLERS,
        )
        upgrade = upgrade_of(environ)
        upgrade.start_response = start_response
        upgrade.opening = _Offer(request, self.settings, self)
        user = None if self._identify is None else self._identify(environ)
        if user is not None:
            environ[USER] = user_of(user)
        ws = self.handler_class.websocket_class(environ)
        handler = self.handler_class(ws, server_class(ws))
        return handler.handle(environ, getattr(server_class, "PROTOCOL_NAME", None))
