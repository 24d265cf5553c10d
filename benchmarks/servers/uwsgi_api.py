"""uWSGI's own WebSocket API in a plain WSGI app, on threads or gevent.

A request can only send from within itself, so that there is no ``/all``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import uwsgi

if os.environ["BENCHMARK_ENGINE"] == "gevent":
    from gevent.monkey import patch_all

    patch_all()


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    uwsgi.websocket_handshake()
    try:
        while True:
            uwsgi.websocket_send(uwsgi.websocket_recv())
    except OSError:
        return []
