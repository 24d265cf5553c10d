"""The Flask extension, as apps use it: routes, background work, the clients, run()."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from flask import (
    Blueprint,
    Flask,
    Response,
    current_app,
    has_app_context,
    has_request_context,
    request,
    send_file,
)

from ..clients.base import Data
from ..clients.class_based import handler_of, subprotocol_options
from ..clients.open_clients import Clients, Excluded, send_to_all
from ..helpers.checks import SECONDS_OR_NONE, is_on
from ..helpers.engines import ENGINES
from ..helpers.functions import check_kind
from ..helpers.wsgi import StartResponse, WSGIEnvironment
from ..launch.defaults import leaves_open
from ..launch.run import run_uwsgi
from ..metrics.extension import ExtensionMetrics
from ..monitoring.admin.mounting import AdminPages
from ..monitoring.logs import LogLines
from ..monitoring.otel.telemetry import Telemetry
from ..monitoring.shared_stats import begin_with_workers
from ..process.fork import own
from ..servers import uwsgi
from . import config
from .background import Background
from .dispatch import dispatch_of
from .middleware import WebSocketMiddleware
from .monitoring import MonitoringMethods, prefix_of
from .rooms import RoomMethods, RoomsOfApps
from .routing import Router

if TYPE_CHECKING:
    from ..testing import WebSocketTestClient

#: The module that browsers import.
CLIENT_JS = Path(__file__).parent.parent / "static" / "rooms.js"

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type[Any])


class WebSocket(RoomMethods, MonitoringMethods):
    """Routes WebSockets to handlers, for Flask apps on uWSGI.

    :param app: an app for :meth:`init_app`.
    :param timeout: grace in seconds, for a closing handshake and for a handler whose connection
        has ended.

    The configuration keys are those of ``SETTINGS`` in ``extension/config.py``.

    :raises ValueError: for a timeout that is none.
    """

    #: Installed around the app by :meth:`init_app`.
    middleware = WebSocketMiddleware

    def __init__(self, app: Flask | None = None, timeout: float = 5) -> None:
        uwsgi.require_main_interpreter()
        self.app: Flask | None = None
        SECONDS_OR_NONE.check("timeout", timeout)
        self.timeout = timeout
        self.router = Router(__name__, self._check_handler)
        #: The open clients of this worker process, to iterate over.
        self.clients = Clients(self)
        self._metrics = ExtensionMetrics(self.clients.connections, self.router.patterns)
        self._telemetry = Telemetry(self)
        self._metrics.observers += [LogLines(), self._telemetry]
        self._rooms = RoomsOfApps(
            self.middleware.engine_name, self.clients, timeout, self._metrics.observers
        )
        self._background = Background(self)
        self._admin_pages = AdminPages(self)
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
        """Serve the routes on an app: wrap ``app.wsgi_app``, replace ``app.run`` and more.

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
        dispatch_of(app).add(middleware)
        self.router.serve(app)
        self._rooms.add(app)
        middleware.metrics.sources["rooms"] = self._rooms.of(app).snapshot
        own(middleware.metrics)
        self._admin_pages.add(app)
        if uwsgi.inside():
            ping_interval = app.config["UWSGI_WEBSOCKET_PING_INTERVAL"]
            uwsgi.set_up(middleware.engine, self.timeout, ping_interval)
            self._background.begin_with_workers(middleware.engine)
            self._rooms.begin_with_workers(app, middleware.engine)
            self._telemetry.begin_with_workers(app.config, middleware.engine)
            begin_with_workers(partial(prefix_of, app), middleware.metrics, middleware.engine)

    def route(self, rule: str, **options: Any) -> Callable[[F], F]:
        """Route WebSockets that match ``rule`` to the decorated handler.

        The handler is called with a client and the variables of the URL. The options are those
        of Flask's :meth:`~flask.Flask.route` and of ``WebSocketRule``.
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
            handler = handler_of(server_class, self._asynchronous)  # type: ignore[arg-type]
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
        """Route WebSockets to a handler: :meth:`route` as a plain call.

        :raises TypeError: when the handler is of the wrong kind for the engine.
        """
        self.router.add_url_rule(rule, endpoint, view_func, **options)

    def _check_handler(self, handler: Callable[..., Any]) -> None:
        self._check_kind(handler, "handlers")

    def _check_kind(self, function: Callable[..., Any], whose: str) -> None:
        check_kind(function, self._asynchronous, f"{whose} of {type(self).__name__}")

    @property
    def _asynchronous(self) -> bool:
        return ENGINES[self.middleware.engine_name].asynchronous

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
        """Return the ws:// or wss:// URL of a handler, whole also within a request.

        Flask's own ``url_for``, in templates too, gives it for an endpoint that only we know.

        :param endpoint: as for Flask: ``".name"`` is of the blueprint that serves the request.
        :raises RuntimeError: outside of a request, when ``SERVER_NAME`` is not set.
        """
        app = self._served_app()
        if endpoint.startswith("."):
            blueprint = request.blueprint if has_request_context() else None
            endpoint = f"{blueprint}{endpoint}" if blueprint else endpoint[1:]
        app.inject_url_defaults(endpoint, values)
        return self._build_url(app, endpoint, values)

    def _served_app(self) -> Flask:
        """Return the app that is current, if it has these routes; else the latest that has."""
        if has_app_context() and self in current_app.extensions.get("uwsgi_websocket", ()):
            current: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
            return current
        if self.app is None:
            raise RuntimeError("this needs an app: call init_app() first")
        return self.app

    def _build_url(self, app: Flask, endpoint: str, values: dict[str, Any]) -> str:
        return self.router.build(app, request if has_request_context() else None, endpoint, values)

    def _build_unknown_url(
        self, app: Flask, error: Exception, endpoint: str, values: dict[str, Any]
    ) -> str:
        """Build what ``app.url_for`` cannot: the URL of an endpoint that only we know."""
        if endpoint not in self.view_functions:
            raise error
        # What Flask adds, which does not apply: these URLs are always whole, have one method and
        # no fragment (RFC 6455 3), and their scheme goes by the request's.
        own = {"_anchor", "_external", "_method", "_scheme"}
        return self._build_url(app, endpoint, {k: v for k, v in values.items() if k not in own})

    def send_to_all(self, msg: Data, binary: bool | None = None, *, exclude: Excluded = ()) -> Any:
        """Send a message to all clients of the app; from any thread or greenlet.

        Those of this worker process have been sent it on return; other workers hear of it, as by
        ``to_all().send_nowait()``. Never waits: a client whose queue is full, as for ``send_nb``,
        is closed with code 1013. Clients that have left are passed over.

        :param binary: as for the client's ``send``.
        :param exclude: a client or several, or their ids, that shall not get it.
        :raises TypeError: when the message is neither str nor bytes.
        :raises ValueError: when it shall go as text, and is no UTF-8; or, where other workers are
            to hear of it, when it is larger than ``UWSGI_WEBSOCKET_ROOM_MESSAGE_SIZE``. Nobody has
            got it then.
        """
        to_others = self._rooms.to_others(msg, binary, exclude)
        send_to_all(self.clients, msg, binary, exclude)
        for each in to_others:
            each.go()

    def client_js(self) -> Response:
        """Answer with ``rooms.js``, the client for browsers: a view for ``app.add_url_rule()``.

        Browsers keep it, and ask each time whether there is a newer one, unless Flask's
        ``SEND_FILE_MAX_AGE_DEFAULT`` says for how long they need not.
        """
        return send_file(CLIENT_JS, mimetype="text/javascript")

    def test_client(
        self, app: Flask | None = None, use_cookies: bool = True, **kwargs: Any
    ) -> WebSocketTestClient:
        """Make Flask's test client, with a ``connect()`` for WebSockets; see :mod:`~.testing`."""
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
        own = ENGINES[self.middleware.engine_name].run_options
        if leaves_open(uwsgi_options, own):
            uwsgi_options.update(own)


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
