"""WebSockets for Flask apps that run on uWSGI.

Importing this package needs neither uWSGI nor gevent nor greenlet, and patches nothing.
"""

from .clients.client import (
    AsyncioWebSocketClient,
    AsyncWebSocketClient,
    GeventWebSocketClient,
    WebSocketClient,
)
from .clients.uwsgi_api import UWSGIWebSocketClient
from .exceptions import (
    AsyncioNotAvailable,
    ConnectionClosed,
    EngineError,
    GeventNotInstalled,
    HandshakeError,
    ProtocolError,
    UWSGINotFound,
    WebSocketError,
)
from .extension.asyncio import AsyncioWebSocket, AsyncioWebSocketMiddleware, run_coroutine
from .extension.extension import WebSocket
from .extension.greenlets import (
    AsyncWebSocket,
    AsyncWebSocketMiddleware,
    GeventWebSocket,
    GeventWebSocketMiddleware,
)
from .extension.middleware import WebSocketMiddleware

__version__ = "1.0.0.dev0"

__all__ = [
    "AsyncWebSocket",
    "AsyncWebSocketClient",
    "AsyncWebSocketMiddleware",
    "AsyncioNotAvailable",
    "AsyncioWebSocket",
    "AsyncioWebSocketClient",
    "AsyncioWebSocketMiddleware",
    "ConnectionClosed",
    "EngineError",
    "GeventNotInstalled",
    "GeventWebSocket",
    "GeventWebSocketClient",
    "GeventWebSocketMiddleware",
    "HandshakeError",
    "ProtocolError",
    "UWSGINotFound",
    "UWSGIWebSocketClient",
    "WebSocket",
    "WebSocketClient",
    "WebSocketError",
    "WebSocketMiddleware",
    "run_coroutine",
]
