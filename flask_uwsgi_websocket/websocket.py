"""Where 0.6 had these: some of its apps import them from here."""

from .clients.client import WebSocketClient
from .extension.extension import WebSocket
from .extension.middleware import WebSocketMiddleware

__all__ = ["WebSocket", "WebSocketClient", "WebSocketMiddleware"]
