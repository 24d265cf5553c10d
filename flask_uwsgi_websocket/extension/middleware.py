"""The WSGI middleware around an app: takes upgrade requests, and makes WebSockets of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, lru_cache
from typing import Any

from flask import Flask, Request, Response
from werkzeug.exceptions import NotFound

from ..clients.base import USER
from ..clients.client import WebSocketClient
from ..clients.uwsgi_api import UWSGIWebSocketClient
from ..codec import DeflateSettings, UpgradeRequest
from ..connection.base import Limits
from ..engines.base import Engine
from ..helpers.functions import is_decorated
from ..helpers.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
from ..metrics.worker import WorkerMetrics
from ..rooms.envelope import SUBPROTOCOL
from ..servers import uwsgi
from ..servers.find import server_of
from ..session import negotiate
from . import config
from .handshake import Handshake
from .routing import WebSocketRule
from .seats import take_seat

#: Connections with the same limits share them.
_limits = lru_cache(Limits)

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
    :param websocket: the :class:`~.extension.WebSocket` whose routes it serves.
    :param app: the Flask app around ``wsgi_app``.
    """

    #: What handlers get.
    client: type[Any] = WebSocketClient
    #: The engine of uWSGI that :attr:`client` is made for.
    engine_name = "threads"

    def __init__(self, wsgi_app: WSGIApplication, websocket: Any, app: Flask) -> None:
        self.wsgi_app = wsgi_app
        self.websocket = websocket
        self.app = app
        self.metrics: WorkerMetrics = websocket._metrics.of_new_app()

    @cached_property
    def engine(self) -> Engine:
        """The engine of handlers on uWSGI; loaded when needed, for it may not be installed."""
        return uwsgi.engine(self.engine_name)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self.websocket._background.waits_for_request:
            self.websocket._background.start_with_request(environ)
        if negotiate.is_upgrade_request(environ):
            _name_scheme_as_http(environ)
            server = server_of(environ)
            return server.call(self.wsgi_app, environ, start_response, self.engine_name)
        return self.wsgi_app(environ, start_response)

    def take(self, request: Request) -> bool:
        """Take an upgrade request that a route matches, for Flask; HTTPException is a redirect."""
        try:
            rule, values = self.websocket.router.match(self.app, request)
        except NotFound:
            return False
        request.url_rule, request.view_args, request.routing_exception = rule, values, None
        return True

    def accept(
        self,
        request: Request,
        rule: WebSocketRule,
        process_response: Callable[[Response], Response],
    ) -> Any:
        """Return the response 101, which runs the handler when it is sent.

        Or whatever else the handler answers, where the handshake waits for it. ``process_response``
        is what Flask does to a response before it is sent.
        """
        environ = request.environ
        upgrade = self._admit(request, rule)
        engine = server_of(environ).engine(environ, self.engine_name)
        self.websocket.clients.look_in(engine)
        negotiation = negotiate.negotiate(upgrade, self._settings(rule))
        user = self.websocket._rooms.user_of_request(self.app)
        if user is not None:
            environ[USER] = user
        take_seat(request, rule, user, engine, self.setting)
        handshake = Handshake(self, environ, rule, request.view_args, negotiation, engine)
        if self.waits_for_handler(rule):
            return handshake.accept_lazily(process_response)
        handshake.response.upgrade_connection = handshake.accept
        return handshake.response

    def waits_for_handler(self, rule: WebSocketRule) -> bool:
        """Return whether the handshake waits for the handler: see ``lazy`` of the rule."""
        if not self.setting("REQUEST_CONTEXT") or issubclass(self.client, UWSGIWebSocketClient):
            return False  # a response of Flask's needs the context, and ours the codec
        if rule.lazy is None:
            return is_decorated(self.websocket.router.handler(self.app, rule.endpoint))
        return rule.lazy

    def _admit(self, request: Request, rule: WebSocketRule) -> UpgradeRequest:
        """Check all that may speak against a handshake, by the rule's origins or the app's."""
        origins = rule.origins
        setting = "the route's origins=, which go before UWSGI_WEBSOCKET_ALLOWED_ORIGINS"
        if origins is None:
            origins = self.setting("ALLOWED_ORIGINS")
            setting = "UWSGI_WEBSOCKET_ALLOWED_ORIGINS, or the route's origins="
        return negotiate.admit(
            request.environ,
            self.engine_name,
            origins,
            host=request.host,
            setting=setting,
            log=self.app.logger,
        )

    def setting(self, name: str) -> Any:
        return config.read(self.app.config, name)

    def _settings(self, rule: WebSocketRule) -> negotiate.Settings:
        compression = rule.compression
        if compression is None:
            compression = self.setting("COMPRESSION")
        if compression is True:
            compression = DeflateSettings()
        max_rate = self.setting("MAX_RATE") if rule.max_rate is None else rule.max_rate
        return negotiate.Settings(
            limits=_limits(
                timeout=self.websocket.timeout,
                ping_interval=self.setting("PING_INTERVAL"),
                ping_timeout=self.setting("PING_TIMEOUT"),
                send_queue_size=self.setting("SEND_QUEUE_SIZE"),
                send_timeout=self.setting("SEND_TIMEOUT"),
                send_buffer=self.setting("SEND_BUFFER"),
                max_rate=tuple(max_rate) if max_rate else None,
                max_message_size=rule.max_message_size or self.setting("MAX_MESSAGE_SIZE"),
            ),
            subprotocols=self._subprotocols(rule),
            require_subprotocol=rule.require_subprotocol,
            compression=compression or None,
        )

    def _subprotocols(self, rule: WebSocketRule) -> Sequence[str]:
        if rule.resume and not issubclass(self.client, UWSGIWebSocketClient):
            return (SUBPROTOCOL, *rule.subprotocols)
        return rule.subprotocols
