"""WebSockets under ``uwsgi --async N --greenlet``."""

from __future__ import annotations

from ..clients.blocking import AsyncWebSocketClient
from .extension import WebSocket
from .middleware import WebSocketMiddleware


class AsyncWebSocketMiddleware(WebSocketMiddleware):
    """:class:`WebSocketMiddleware` for uWSGI's async mode."""

    client = AsyncWebSocketClient
    engine_name = "suspend"


class AsyncWebSocket(WebSocket):
    """:class:`WebSocket` for uWSGI's async mode: ``uwsgi --async N --greenlet``.

    Prefer gevent or asyncio, under which what a handler waits for besides its client, such as a
    database, does not stop the others.
    """

    middleware = AsyncWebSocketMiddleware
