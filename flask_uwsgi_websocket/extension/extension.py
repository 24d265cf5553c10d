"""The Flask extension: routes, the WSGI middleware, and what a handler sees of Flask.

An upgrade request goes the way of any request through Flask: its context is pushed, the
``before_request`` functions run, the view is dispatched, ``after_request`` functions and the
session see the response. Only that the view is replaced by the opening handshake, and the
response is ``101 Switching Protocols``, in which the handler runs. So whatever Flask and its
extensions do before a view, they do before a handshake, and may refuse it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from functools import cache, cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from flask import Flask, Response, current_app, has_app_context, has_request_context, request
from flask.globals import request_ctx
from flask.signals import got_request_exception
from werkzeug.exceptions import (
    HTTPException,
    InternalServerError,
    MethodNotAllowed,
    NotFound,
    default_exceptions,
)
from werkzeug.http import HTTP_STATUS_CODES

from ..clients.class_based import handler_of, subprotocol_options
from ..clients.client import Data, UWSGIWebSocketClient, WebSocketClient
from ..clients.open_clients import Clients, Excluded, send_to_all
from ..codec import DeflateSettings, UpgradeRequest, validate_request
from ..connection.connection import Connection, Limits
from ..engines.base import Engine
from ..exceptions import ConnectionClosed, EngineError, HandshakeError
from ..helpers.checks import SECONDS_OR_NONE
from ..helpers.environment import is_on
from ..helpers.functions import is_coroutine_function, is_decorated, name_of
from ..helpers.text import path_of, printable
from ..launch.run import leaves_open, run_uwsgi
from ..process.fork import end_of_children
from ..process.host import log_exception
from ..servers import uwsgi
from ..servers.base import FAILED_WITH, START_RESPONSE, Server, server_of
from ..session.session import (
    Negotiation,
    Settings,
    answer_to,
    is_upgrade_request,
    log_lost_upgrade,
    negotiate,
    serve,
    serve_lazily,
    switch_headers,
)
from . import config
from .background import Background
from .legacy import legacy_class
from .origins import how_to_allow, is_allowed
from .routing import Router, WebSocketRule
from .view_decorators import StandIn, missed_response

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from flask import Blueprint, Request
    from werkzeug.datastructures import Headers

    from ..testing import WebSocketTestClient

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type[Any])

#: For the log, where a handler ends with another client's ConnectionClosed.
ANOTHER_HAD_LEFT = (
    ": it sent to another client, which had left. Send to many with websocket.send_to_all(), or to "
    "each of websocket.clients within try ... except ConnectionClosed"
)

#: Statuses for which the close code is 1008, "policy violation" (RFC 6455 7.4.1).
_NOT_ALLOWED = {401, 402, 403, 407, 451}

#: Connections with the same limits share them.
_limits = lru_cache(Limits)

# In the WSGI environment of an upgrade request: the middlewares that may take it, and the one that
# does (with the rule that matched).
_OFFERED_TO = "flask_uwsgi_websocket.offered_to"
_TAKEN_BY = "flask_uwsgi_websocket.taken_by"
# And, while its handler runs, the response 101.
_UPGRADE = "flask_uwsgi_websocket.upgrade"


#: What proxies may call the scheme of a request for a WebSocket, and what WSGI does (PEP 3333).
_HTTP_SCHEMES = {"ws": "http", "wss": "https"}


def _name_scheme_as_http(environ: WSGIEnvironment) -> None:
    """Have ``wss``, as Traefik says in X-Forwarded-Proto, mean what ``https`` does.

    uWSGI takes the scheme from there, and so does ProxyFix, which may come before or after us.
    """
    scheme = environ.get("wsgi.url_scheme", "")
    environ["wsgi.url_scheme"] = _HTTP_SCHEMES.get(scheme, scheme)
    forwarded = environ.get("HTTP_X_FORWARDED_PROTO")
    if forwarded:
        schemes = [name.strip() for name in forwarded.split(",")]
        environ["HTTP_X_FORWARDED_PROTO"] = ", ".join(_HTTP_SCHEMES.get(s, s) for s in schemes)


class WebSocketMiddleware:
    """WSGI middleware that performs the WebSocket handshake and calls the routed handler.

    :param wsgi_app: the WSGI application for all other requests.
    :param websocket: the extension whose routes it serves.
    :param app: the Flask app around ``wsgi_app``.
    """

    #: What handlers get.
    client: type[Any] = WebSocketClient

    def __init__(self, wsgi_app: WSGIApplication, websocket: WebSocket, app: Flask) -> None:
        self.wsgi_app = wsgi_app
        self.websocket = websocket
        self.app = app

    #: The engine of uWSGI that :attr:`client` is made for.
    engine_name = "threads"

    @cached_property
    def engine(self) -> Engine:
        """How handlers run on uWSGI. Loaded when needed: its modules may not be installed."""
        return uwsgi.engine(self.engine_name)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self.websocket._background.waits_for_request:
            self.websocket._background.start_with_request(environ)
        if is_upgrade_request(environ):
            _name_scheme_as_http(environ)
            environ[START_RESPONSE] = start_response
            environ.setdefault(_OFFERED_TO, []).append(self)
            server = server_of(environ)
            return server.carry(self.wsgi_app, environ, start_response, self.engine_name)
        return self.wsgi_app(environ, start_response)

    def take(self, request: Request) -> bool:
        """Take an upgrade request if a route matches it; Flask then dispatches that route.

        :raises HTTPException: when the route answers by itself, with a redirect.
        """
        try:
            rule, values = self.websocket.router.match(self.app, request)
        except NotFound:
            return False
        except MethodNotAllowed:
            raise HandshakeError(405, "a WebSocket begins with GET", (("Allow", "GET"),)) from None
        request.url_rule, request.view_args, request.routing_exception = rule, values, None
        request.environ[_TAKEN_BY] = self, rule
        return True

    def accept(
        self,
        request: Request,
        rule: WebSocketRule,
        process_response: Callable[[Response], Response],
    ) -> Any:
        """Return the response that switches protocols, and runs the handler when it is sent.

        Or whatever else the handler answers, where the handshake waits for it.

        :param process_response: what Flask does to a response before it is sent.
        """
        upgrade = validate_request(
            request.method, request.headers, request.environ.get("SERVER_PROTOCOL", "HTTP/1.1")
        )
        environ = request.environ
        server = server_of(environ)
        server.check(environ, self.engine_name)
        self._check_origin(request, rule, upgrade)
        engine = server.engine(environ, self.engine_name)
        self.websocket.clients.look_in(engine)
        handshake = _Handshake(
            self,
            environ,
            rule,
            request.view_args,
            negotiate(upgrade, self._settings(rule)),
            server,
            engine,
        )
        if self._waits_for_handler(rule):
            return handshake.accept_lazily(process_response)
        handshake.response.upgrade_connection = handshake.accept
        return handshake.response

    def _fail(
        self, environ: WSGIEnvironment, start_response: StartResponse, error: Exception
    ) -> Iterable[bytes]:
        """Answer 500, with nothing of what made it impossible to answer 101."""
        propagate = self.app.config["PROPAGATE_EXCEPTIONS"]
        if self.app.testing or self.app.debug if propagate is None else propagate:
            raise error
        path = printable(path_of(environ))
        log_exception("WebSocket %s refused", path, error=error, logger=self.app.logger)
        return InternalServerError()(environ, start_response)

    def _waits_for_handler(self, rule: WebSocketRule) -> bool:
        """Whether the handler may still refuse: see :class:`~.routing.WebSocketRule`."""
        if not self._config("REQUEST_CONTEXT") or issubclass(self.client, UWSGIWebSocketClient):
            return False  # a response of Flask's needs the context, and ours the codec
        if rule.lazy is None:
            return is_decorated(self.websocket.router.handler(self.app, rule.endpoint))
        return rule.lazy

    def _serve_uwsgi(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        headers: list[tuple[str, str]],
        handler: Callable[[Any], Any],
        rule: WebSocketRule,
    ) -> Iterable[bytes]:
        """Run a handler on uWSGI's own WebSocket functions."""
        sock = uwsgi.take()
        try:
            uwsgi.answer(environ, start_response, headers)
            handler(self.client(environ, sock.fileno(), self.websocket.timeout))
        except ConnectionClosed:
            pass  # it went on until its client left
        except BaseException as error:
            self._report(environ, rule, error)
        finally:
            sock.close()
        return []

    def _check_origin(self, request: Request, rule: WebSocketRule, upgrade: UpgradeRequest) -> None:
        """Browsers send WebSocket requests across sites, with cookies: RFC 6455 10.2."""
        allowed = rule.origins if rule.origins is not None else self._config("ALLOWED_ORIGINS")
        if not is_allowed(upgrade.origin, request.host, allowed):
            setting = "UWSGI_WEBSOCKET_ALLOWED_ORIGINS, or the route's origins="
            if rule.origins is not None:
                setting = "the route's origins=, which go before UWSGI_WEBSOCKET_ALLOWED_ORIGINS"
            self.app.logger.warning(
                "WebSocket %s refused: %s",
                printable(request.path),
                printable(how_to_allow(upgrade.origin, request.host, setting)),
            )
            raise HandshakeError(403, f"origin {upgrade.origin} is not allowed")

    def _config(self, name: str) -> Any:
        return config.read(self.app.config, name)

    def _settings(self, rule: WebSocketRule) -> Settings:
        compression = rule.compression
        if compression is None:
            compression = self._config("COMPRESSION")
        if compression is True:
            compression = DeflateSettings()
        return Settings(
            limits=_limits(
                timeout=self.websocket.timeout,
                ping_interval=self._config("PING_INTERVAL"),
                ping_timeout=self._config("PING_TIMEOUT"),
                send_queue_size=self._config("SEND_QUEUE_SIZE"),
                send_timeout=self._config("SEND_TIMEOUT"),
                max_message_size=rule.max_message_size or self._config("MAX_MESSAGE_SIZE"),
            ),
            subprotocols=rule.subprotocols,
            require_subprotocol=rule.require_subprotocol,
            compression=compression or None,
        )

    def _report(
        self,
        environ: WSGIEnvironment,
        rule: WebSocketRule,
        error: BaseException,
        another_had_left: bool = False,
    ) -> tuple[int, str]:
        """Log an exception of a handler; the close reason tells it in debug mode only."""
        if isinstance(error, HTTPException) and not self.app.trap_http_exception(error):
            return self._report_late_answer(environ, rule, error)
        log_exception(
            "Exception in the WebSocket handler of %s%s",
            printable(path_of(environ)),
            ANOTHER_HAD_LEFT if another_had_left else "",
            error=error,
            logger=self.app.logger,
        )
        environ[FAILED_WITH] = error
        got_request_exception.send(self.app, exception=error)
        return 1011, f"{type(error).__name__}: {error}" if self.app.debug else ""

    def _forgive(self, environ: WSGIEnvironment, rule: WebSocketRule, error: BaseException) -> bool:
        """Tell whether it is a decorator's mistake alone, and has been logged as one."""
        handler = self.websocket.view_functions[rule.endpoint]
        if not missed_response(error, handler):
            return False
        self.app.logger.warning(
            "A decorator of the WebSocket handler of %s takes its result for a response: %s",
            printable(path_of(environ)),
            error,
        )
        return True

    def _report_late_answer(
        self, environ: WSGIEnvironment, rule: WebSocketRule, error: HTTPException
    ) -> tuple[int, str]:
        """Log an ``abort()`` that came when HTTP was over; no failure, as in Flask."""
        status = error.code or error.get_response().status_code
        code = 1008 if status in _NOT_ALLOWED else 1011
        reason = f"{status} {HTTP_STATUS_CODES.get(status, 'Unknown')}"
        hint = "route(..., lazy=True) makes it an HTTP response, until the handler uses its client"
        if self._waits_for_handler(rule):
            hint = "it is an HTTP response only until the handler uses its client, or for a second"
        self.app.logger.warning(
            "WebSocket %s closed with %d (%s): its handler called abort() after the handshake; %s",
            printable(path_of(environ)),
            code,
            reason,
            hint,
        )
        return code, reason


class _Handshake:
    """A handshake that nothing speaks against, and the connection that comes of it."""

    __slots__ = (
        "_agreement",
        "_engine",
        "_environ",
        "_handler",
        "_middleware",
        "_rule",
        "_server",
        "response",
    )

    def __init__(
        self,
        middleware: WebSocketMiddleware,
        environ: WSGIEnvironment,
        rule: WebSocketRule,
        view_args: dict[str, Any] | None,
        negotiation: Negotiation,
        server: Server,
        engine: Engine,
    ) -> None:
        self._middleware = middleware
        self._environ = environ
        self._rule = rule
        self._agreement = negotiation
        self._server = server
        self._engine = engine
        handler = middleware.websocket.router.handler(middleware.app, rule.endpoint)
        self._handler = partial(handler, **view_args) if view_args else handler
        # mypy looks for __hash__ of the instances, not of the class.
        upgrade_class = _upgrade_class(middleware.app.response_class)  # type: ignore[arg-type]
        self.response = upgrade_class(status=101, headers=negotiation.headers)
        del self.response.headers["Content-Type"]

    def accept(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer 101 and run the handler, as the response that Flask has made of it is sent."""
        middleware, rule, negotiation = self._middleware, self._rule, self._agreement
        try:
            negotiation.headers[:] = switch_headers(negotiation, self.response.headers)
        except ValueError as error:
            return middleware._fail(environ, start_response, error)
        if issubclass(middleware.client, UWSGIWebSocketClient):
            return middleware._serve_uwsgi(
                environ, start_response, negotiation.headers, self._handler, rule
            )
        environ[_UPGRADE] = self.response
        try:
            return serve(
                environ,
                start_response,
                negotiation,
                self._engine,
                self._handle,
                partial(middleware._report, environ, rule),
                server=self._server,
                keep_context=middleware._config("REQUEST_CONTEXT"),
            )
        finally:
            del environ[_UPGRADE]
            self.response.end()

    def accept_lazily(self, process_response: Callable[[Response], Response]) -> Any:
        """Run the handler, and answer 101 when it uses its client.

        :return: what it answers instead; or, after a WebSocket, a response that was sent already.
        """
        middleware, environ = self._middleware, self._environ
        response, server = self.response, self._server
        environ[_UPGRADE] = response
        try:
            answer = serve_lazily(
                environ,
                self._agreement,
                partial(self._late_headers, copy_context(), process_response),
                self._engine,
                self._handle,
                partial(middleware._report, environ, self._rule),
                server=server,
                meaning=response.meant_by,
                forgive=partial(middleware._forgive, environ, self._rule),
            )
        finally:
            del environ[_UPGRADE]  # an error handler's None is none of a handler's
            response.end()
        if answer is not None:
            return answer
        response.sent = True
        response.upgrade_connection = lambda environ, start_response: server.leave(start_response)
        return response

    def _late_headers(
        self, context: Context, process_response: Callable[[Response], Response]
    ) -> list[tuple[str, str]]:
        """Return the header fields of the 101, with what Flask adds to a response.

        :param context: the request's: whoever uses the connection first, it is that which is
            answered.
        """
        response = self.response
        processed: Any = context.copy().run(process_response, response)
        if processed is not response or response.status_code != 101:
            raise RuntimeError("an after_request function has replaced the response 101")
        response.sent = True
        return switch_headers(self._agreement, response.headers)

    def _handle(self, connection: Connection) -> Any:
        """Call the handler with a client."""
        middleware = self._middleware
        client_class = middleware.client
        if middleware._config("LEGACY"):
            client_class = legacy_class(client_class)  # type: ignore[arg-type]  # it hashes
        client = client_class(
            self._environ,
            connection,
            subprotocol=self._agreement.subprotocol,
            app=middleware.app,
            extension=middleware.websocket,
        )
        return self.response.meant_by(self._handler(client))


class WebSocket:
    """Routes WebSockets to handlers, for Flask apps on uWSGI.

    :param app: an app for :meth:`init_app`.
    :param timeout: grace in seconds, for a closing handshake and for a handler whose connection
        has ended.

    The configuration keys are in :data:`.config.SETTINGS`.

    :raises ValueError: for a timeout that is none.
    """

    #: Installed around the app by :meth:`init_app`.
    middleware = WebSocketMiddleware

    #: uWSGI options that :meth:`run` adds where the caller names no engine.
    engine_options: ClassVar[dict[str, Any]] = {}

    def __init__(self, app: Flask | None = None, timeout: float = 5) -> None:
        uwsgi.require_main_interpreter()
        self.app: Flask | None = None
        SECONDS_OR_NONE.check("timeout", timeout)
        self.timeout = timeout
        self.router = Router(__name__, self._check_handler)
        #: The open clients of this worker process; see :class:`~.clients.Clients`.
        self.clients = Clients(self)
        self._background = Background(self)
        if app is not None:
            self.init_app(app)

    @property
    def url_map(self) -> Any:
        """The rules of the routes."""
        self.router.url_map.bind_rules(self.app.url_map.converters if self.app else {})
        return self.router.url_map

    @property
    def view_functions(self) -> dict[str, Callable[..., Any]]:
        """The handlers, by endpoint."""
        return self.router.view_functions

    @property
    def blueprints(self) -> dict[str, Any]:
        """The blueprints registered here, by name."""
        return self.router.blueprints

    def init_app(self, app: Flask) -> None:
        """Serve the routes on an app: wraps ``app.wsgi_app`` and replaces ``app.run``.

        :raises ValueError: for configuration that is not accepted; says what is.
        """
        config.set_up(app.config)
        self.app = app
        app.extensions.setdefault("uwsgi_websocket", []).append(self)
        if is_on("FLASK_UWSGI_DEBUG"):
            _enable_debugger(app)
        middleware = self.middleware(app.wsgi_app, self, app)
        app.wsgi_app = middleware  # type: ignore[method-assign]
        app.run = partial(self.run, app)  # type: ignore[method-assign]
        app.url_build_error_handlers.append(partial(self._build_unknown_url, app))
        _install_dispatch(app)
        self.router.serve(app)
        if uwsgi.inside():
            ping_interval = app.config["UWSGI_WEBSOCKET_PING_INTERVAL"]
            uwsgi.set_up(middleware.engine, self.timeout, ping_interval)
            self._background.begin_with_workers(middleware.engine)

    def route(self, rule: str, **options: Any) -> Callable[[F], F]:
        """Route WebSockets that match ``rule`` to the decorated handler.

        The handler is called with a client and the variables of the URL. The options are those
        of Flask's :meth:`~flask.Flask.route` and of :class:`~.routing.WebSocketRule`.
        """

        def decorator(handler: F) -> F:
            self.add_url_rule(rule, options.pop("endpoint", None), handler, **options)
            return handler

        return decorator

    def server(self, rule: str, **options: Any) -> Callable[[C], C]:
        """Route WebSockets that match ``rule`` to the decorated :class:`~.uwasp.Server`.

        There is an instance for each connection, made with its ``ws`` and the variables of the
        URL. The options are those of :meth:`route`; ``subprotocols`` and
        ``require_subprotocol`` are by default those of the class.

        :raises TypeError: when the class lacks a method, or has one of the wrong kind.
        """

        def decorator(server_class: C) -> C:
            # A handler must wait as the client's methods do.
            asynchronous = is_coroutine_function(self.middleware.client.receive)
            handler = handler_of(server_class, asynchronous)  # type: ignore[arg-type]  # it hashes
            settings = {**subprotocol_options(server_class), **options}
            self.add_url_rule(rule, settings.pop("endpoint", None), handler, **settings)
            return server_class

        return decorator

    def add_url_rule(
        self,
        rule: str,
        endpoint: str | None = None,
        view_func: Callable[..., Any] | None = None,
        **options: Any,
    ) -> None:
        """:meth:`route` as a plain call.

        :raises TypeError: when the handler is of the wrong kind for the engine.
        """
        self.router.add_url_rule(rule, endpoint, view_func, **options)

    def _check_handler(self, handler: Callable[..., Any]) -> None:
        if is_coroutine_function(handler):
            raise TypeError(
                f"{name_of(handler)} is a coroutine function: {type(self).__name__} calls plain "
                "functions; use AsyncioWebSocket for async def"
            )

    def on_worker_start(self, function: F | None = None, *, once: bool = False) -> Any:
        """Run the decorated function in each worker process, once that serves.

        It runs beside the requests, as :meth:`start_background_task` does it: in a thread, a
        greenlet or a Task, until it returns or the worker stops.

        :param once: in one worker of the instance only, and in another one when that has ended.
        :raises TypeError: when the function is of the wrong kind for the engine.
        """

        def decorator(function: F) -> F:
            self._background.add(function, once)
            return function

        return decorator if function is None else decorator(function)

    def start_background_task(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run ``function(*args, **kwargs)`` beside the requests, until the worker stops.

        From handlers, views and background work, in the engine's way: in a daemon thread, a
        greenlet, or a Task (of a coroutine function). It runs outside of the contexts of Flask:
        ``with app.app_context():`` gives it one. An exception goes to the log of the app.

        A worker that stops kills its greenlets and cancels its Tasks; a thread hears of it in
        :meth:`sleep`, and by :attr:`stopping`. None is waited for longer than ``timeout``.

        :return: the thread, greenlet or Task.
        :raises TypeError: when the function is of the wrong kind for the engine.
        :raises RuntimeError: while the app is imported, before uWSGI forks its workers.
        """
        return self._background.start(function, *args, **kwargs)

    def sleep(self, seconds: float) -> Any:
        """Wait as the engine does, so that others may run meanwhile; under asyncio, to be awaited.

        In a background thread a worker that stops ends it, with :exc:`SystemExit`.
        """
        self._background.sleep(seconds)

    @property
    def stopping(self) -> bool:
        """Whether this worker has been told to stop."""
        return self._background.is_stopping()

    def register_blueprint(self, blueprint: Blueprint, **options: Any) -> None:
        """Register a blueprint whose routes are WebSocket handlers, as Flask does.

        Its ``before_request`` functions, error handlers and so on serve these routes.
        """
        self.router.register_blueprint(blueprint, **options)

    def url_for(self, endpoint: str, **values: Any) -> str:
        """The ws:// or wss:// URL of a handler, whole also within a request.

        Flask's own ``url_for``, in templates too, gives it for an endpoint that only we know.

        :param endpoint: as for Flask: ``".name"`` is of the blueprint that serves the request.
        :raises RuntimeError: outside of a request, when ``SERVER_NAME`` is not set.
        """
        app = self.app
        if has_app_context() and self in current_app.extensions.get("uwsgi_websocket", ()):
            app = current_app._get_current_object()  # type: ignore[attr-defined]
        if app is None:
            raise RuntimeError("url_for() needs an app: call init_app() first")
        if endpoint.startswith("."):
            blueprint = request.blueprint if has_request_context() else None
            endpoint = f"{blueprint}{endpoint}" if blueprint else endpoint[1:]
        app.inject_url_defaults(endpoint, values)
        return self._build_url(app, endpoint, values)

    def _build_url(self, app: Flask, endpoint: str, values: dict[str, Any]) -> str:
        return self.router.build(app, request if has_request_context() else None, endpoint, values)

    def _build_unknown_url(
        self, app: Flask, error: Exception, endpoint: str, values: dict[str, Any]
    ) -> str:
        """For ``app.url_for``, which knows no such endpoint."""
        if endpoint not in self.view_functions:
            raise error
        # What Flask adds, which does not apply: these URLs are always whole, have one method and
        # no fragment (RFC 6455 3), and their scheme goes by the request's.
        own = {"_anchor", "_external", "_method", "_scheme"}
        return self._build_url(app, endpoint, {k: v for k, v in values.items() if k not in own})

    def send_to_all(self, msg: Data, binary: bool | None = None, *, exclude: Excluded = ()) -> Any:
        """Send a message to all clients of this worker process; from any thread or greenlet.

        Never waits: a client whose queue is full, as for ``send_nb``, is closed with code 1013.
        Clients that have left are passed over.

        :param binary: as for the client's ``send``.
        :param exclude: a client or several, or their ids, that shall not get it.
        :raises TypeError: when the message is neither str nor bytes.
        :raises ValueError: when it shall go as text, and is no UTF-8.
        """
        send_to_all(self.clients, msg, binary, exclude)

    def test_client(
        self, app: Flask | None = None, use_cookies: bool = True, **kwargs: Any
    ) -> WebSocketTestClient:
        """Flask's test client with a ``connect()`` for WebSockets; see :mod:`~.testing`."""
        served = app if app is not None else self.app
        if served is None:
            raise RuntimeError("test_client() needs an app: call init_app() first, or give it one")
        from ..testing import client_class

        return client_class(served)(
            served, served.response_class, use_cookies=use_cookies, **kwargs
        )

    def run(
        self,
        app: Flask | str | None = None,
        debug: bool | None = None,
        host: str = "localhost",
        port: int = 5000,
        uwsgi_binary: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Replace this process by uWSGI, which serves the app; see :func:`~.runner.run_uwsgi`."""
        served = app if app is not None else self.app
        if served is None:
            raise RuntimeError("run() needs an app: call init_app() first, or give it one")
        if debug is None:
            debug = served.debug if isinstance(served, Flask) else is_on("FLASK_UWSGI_DEBUG")
        self.add_engine(kwargs)
        run_uwsgi(served, debug, host, port, uwsgi_binary, **kwargs)

    def add_engine(self, uwsgi_options: dict[str, Any]) -> None:
        """Add the engine that the handlers need, unless the options may name it."""
        if leaves_open(uwsgi_options, self.engine_options):
            uwsgi_options.update(self.engine_options)


def _install_dispatch(app: Flask) -> None:
    """Have the app's own dispatching serve the requests that a middleware takes."""
    if getattr(app.full_dispatch_request, "serves_websockets", False):
        return
    full_dispatch, dispatch = app.full_dispatch_request, app.dispatch_request
    process, make = app.process_response, app.make_response

    # Whatever Flask hands to them (a context, from 3.2 on) is handed through.
    def full_dispatch_request(*args: Any) -> Response:
        for middleware in request.environ.get(_OFFERED_TO, ()):
            try:
                if middleware.take(request):
                    break
            except HandshakeError as error:
                request.routing_exception = _http_error(error)
                break
            except HTTPException as error:
                request.routing_exception = error
                break
        # Of a view: a child that answered would spoil the request in memory that uWSGI shares.
        with end_of_children():
            return full_dispatch(*args)

    def dispatch_request(*args: Any) -> Any:
        if _TAKEN_BY not in request.environ:
            return dispatch(*args)
        middleware, rule = request.environ[_TAKEN_BY]
        try:
            return middleware.accept(request, rule, partial(process, *args))
        except HandshakeError as error:
            log_lost_upgrade(error, request.environ)
            raise _http_error(error) from None
        except EngineError as error:
            app.logger.error("WebSocket %s refused: %s", printable(request.path), error)
            raise _http_error(answer_to(error, tell=app.debug or app.testing)) from None

    def make_response(rv: Any) -> Response:
        upgrade = request.environ.get(_UPGRADE) if has_request_context() else None
        if upgrade is not None and upgrade.stands_for(rv):
            return upgrade  # type: ignore[no-any-return]
        return make(rv)

    def process_response(*args: Any) -> Response:
        response: Response = args[-1]
        return response if getattr(response, "sent", False) else process(*args)

    full_dispatch_request.serves_websockets = True  # type: ignore[attr-defined]
    app.make_response = make_response  # type: ignore[method-assign]
    app.process_response = process_response  # type: ignore[method-assign, assignment]
    app.full_dispatch_request = full_dispatch_request  # type: ignore[method-assign]
    app.dispatch_request = dispatch_request  # type: ignore[method-assign]


def _http_error(error: HandshakeError) -> HTTPException:
    """What Flask makes its answer of: ``errorhandler`` functions may shape it."""
    reason = printable(error.reason)
    response = Response(f"{reason}\n", error.status, error.headers, mimetype="text/plain")
    return default_exceptions.get(error.status, HTTPException)(
        description=reason, response=response
    )


@cache
def _upgrade_class(base: type[Response]) -> type[Any]:
    """The app's class of responses, with a response that switches protocols."""
    return type("UpgradeResponse", (_Upgrade, base), {})


class _Upgrade(StandIn):
    """A response ``101 Switching Protocols``."""

    headers: Headers
    status_code: int
    upgrade_connection: Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]
    #: Whether it was sent already, with all that Flask does to a response.
    sent = False

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self.status_code != 101:  # an after_request function has made a refusal of it
            for name in ("Upgrade", "Connection", "Sec-WebSocket-Accept"):
                self.headers.pop(name, None)
            body: Iterable[bytes] = super().__call__(environ, start_response)  # type: ignore[misc]
            return body
        context = request_ctx._get_current_object()  # type: ignore[attr-defined]
        try:
            return self.upgrade_connection(environ, start_response)
        finally:
            # Flask tells teardown functions of exceptions in views, not of those in responses.
            error = environ.get(FAILED_WITH)
            if error is not None:
                pop = context.pop
                context.pop = lambda exc=None: pop(error)


def _enable_debugger(app: Flask) -> None:
    from werkzeug.debug import DebuggedApplication

    class Debugger(DebuggedApplication):
        def __call__(
            self, environ: WSGIEnvironment, start_response: StartResponse
        ) -> Iterable[bytes]:
            # The debugger writes tracebacks to it, and uWSGI's own is never flushed.
            environ["wsgi.errors"] = sys.stderr
            return super().__call__(environ, start_response)

    app.debug = True
    if not isinstance(app.wsgi_app, DebuggedApplication):
        app.wsgi_app = Debugger(app.wsgi_app, evalex=True)  # type: ignore[method-assign]
