"""Which server accepted a connection: uWSGI, or another one that hands its socket over."""

from __future__ import annotations

from ..engines.base import Engine
from ..helpers.threads import threads_are_greenlets
from ..helpers.wsgi import WSGIEnvironment
from . import uwsgi
from .base import Server
from .sockets import Gunicorn, SocketServer, Werkzeug, plain_engine
from .uwsgi.server import UWSGI

UWSGI_SERVER: Server = UWSGI()
_SOCKET_SERVERS: list[SocketServer] = [Werkzeug(), Gunicorn()]


def add_server(server: SocketServer) -> None:
    """Know another server. Asked before the others: the latest is the closest to the app."""
    _SOCKET_SERVERS.insert(0, server)


def server_of(environ: WSGIEnvironment) -> Server:
    """Return the server of this request; where none is known uWSGI, which says that it is not."""
    if not uwsgi.inside():
        for server in _SOCKET_SERVERS:
            if server.key in environ:
                return server
    return UWSGI_SERVER


def engine_here(name: str) -> Engine:
    """Return what runs an engine's handlers in this process, or waits in their place.

    The latter in a mule, a spooler, or a child of a worker, none of which has the engine's loop.
    """
    if not uwsgi.inside():
        return background_engine(name)
    engine = uwsgi.engine(name)
    return (
        engine if engine.process.worker_id() else plain_engine("threads", threads_are_greenlets())
    )


def background_engine(name: str, environ: WSGIEnvironment | None = None) -> Engine:
    """Return what runs an engine's background work; ``environ``, of a request, tells the server."""
    server = server_of(environ or {})
    if server is UWSGI_SERVER and not uwsgi.inside():
        return plain_engine(name, threads_are_greenlets())
    return server.engine(environ or {}, name)
