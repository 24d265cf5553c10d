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
    BackplaneUnavailable,
    ConnectionClosed,
    EngineError,
    GeventNotInstalled,
    HandshakeError,
    ProtocolError,
    RoomError,
    RoomFull,
    TooManyRooms,
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
from .rooms.backplane import Backplane, Inbox
from .rooms.options import Room
from .rooms.publisher import AsyncPublisher, Publisher

__version__ = "1.0.0.dev0"

__all__ = [
    "AsyncPublisher",
    "AsyncWebSocket",
    "AsyncWebSocketClient",
    "AsyncWebSocketMiddleware",
    "AsyncioNotAvailable",
    "AsyncioWebSocket",
    "AsyncioWebSocketClient",
    "AsyncioWebSocketMiddleware",
    "Backplane",
    "BackplaneUnavailable",
    "ConnectionClosed",
    "EngineError",
    "GeventNotInstalled",
    "GeventWebSocket",
    "GeventWebSocketClient",
    "GeventWebSocketMiddleware",
    "HandshakeError",
    "Inbox",
    "ProtocolError",
    "Publisher",
    "Room",
    "RoomError",
    "RoomFull",
    "TooManyRooms",
    "UWSGINotFound",
    "UWSGIWebSocketClient",
    "WebSocket",
    "WebSocketClient",
    "WebSocketError",
    "WebSocketMiddleware",
    "run_coroutine",
]
