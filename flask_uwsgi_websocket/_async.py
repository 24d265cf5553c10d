"""WebSockets under ``uwsgi --async N --greenlet``."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from . import _uwsgi
from .client import WebSocketClient
from .websocket import WebSocket, WebSocketMiddleware

if TYPE_CHECKING:
    from .engines.base import Engine


class AsyncWebSocketClient(WebSocketClient):
    """The client of a handler in a suspendable request."""


class AsyncWebSocketMiddleware(WebSocketMiddleware):
    """:class:`WebSocketMiddleware` for uWSGI's async mode."""

    client = AsyncWebSocketClient

    @cached_property
    def engine(self) -> Engine:
        return _uwsgi.engine("suspend")


class AsyncWebSocket(WebSocket):
    """:class:`WebSocket` for uWSGI's async mode: ``uwsgi --async N --greenlet``.

    Prefer gevent or asyncio, under which what a handler waits for besides its client, such as a
    database, does not stop the others.
    """

    middleware = AsyncWebSocketMiddleware
    engine_options: ClassVar[dict[str, Any]] = {"async": 100, "greenlet": True}
