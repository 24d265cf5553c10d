"""WebSockets for Flask apps that run on uWSGI.

Importing this package needs neither uWSGI nor gevent nor greenlet, and patches nothing.
"""

from .clients.client import UWSGIWebSocketClient, WebSocketClient
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
from .extension.asyncio import (
    AsyncioWebSocket,
    AsyncioWebSocketClient,
    AsyncioWebSocketMiddleware,
    run_coroutine,
)
from .extension.extension import WebSocket
from .extension.gevent import (
    GeventWebSocket,
    GeventWebSocketClient,
    GeventWebSocketMiddleware,
)
from .extension.middleware import WebSocketMiddleware
from .extension.suspend import (
    AsyncWebSocket,
    AsyncWebSocketClient,
    AsyncWebSocketMiddleware,
)

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
