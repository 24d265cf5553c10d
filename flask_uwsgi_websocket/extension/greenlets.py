"""WebSockets under ``uwsgi --gevent N``, and under ``uwsgi --async N --greenlet``."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from flask import Flask

from ..clients.client import AsyncWebSocketClient, GeventWebSocketClient
from ..exceptions import GeventNotInstalled
from ..servers import uwsgi
from . import config
from .extension import WebSocket
from .middleware import WebSocketMiddleware


class GeventWebSocketMiddleware(WebSocketMiddleware):
    """:class:`WebSocketMiddleware` for the gevent engine."""

    client = GeventWebSocketClient
    engine_name = "gevent"


class GeventWebSocket(WebSocket):
    """:class:`WebSocket` for ``uwsgi --gevent N``.

    :raises GeventNotInstalled: when gevent is not installed.
    """

    middleware = GeventWebSocketMiddleware

    def __init__(self, app: Flask | None = None, timeout: float = 5) -> None:
        if find_spec("gevent") is None:
            raise GeventNotInstalled(
                "GeventWebSocket needs gevent: pip install 'Flask-uWSGI-WebSocket[gevent]'"
            )
        super().__init__(app, timeout)

    def init_app(self, app: Flask) -> None:
        """Do as :meth:`WebSocket.init_app`, and make the standard library cooperative.

        It stays as it is where ``UWSGI_WEBSOCKET_AGGRESSIVE_PATCH`` is False. Better still is
        uWSGI's ``--gevent-early-monkey-patch``, which patches before any import of the app.

        :raises EngineError: where a thread runs already that the patch would disturb.
        """
        if _may_patch() and config.read(app.config, "AGGRESSIVE_PATCH"):
            from gevent.monkey import is_module_patched, patch_all

            if not is_module_patched("threading"):
                uwsgi.check_that_gevent_can_patch()
            patch_all()
        super().init_app(app)


def _may_patch() -> bool:
    """Return whether the server bears gevent's patch, which breaks servers that use threads."""
    if uwsgi.inside():
        return uwsgi.running_engine() == "gevent"
    # gunicorn's gevent worker has patched before the app comes.
    return "gunicorn.arbiter" not in sys.modules


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
