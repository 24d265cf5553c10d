"""Servers that hand their socket over in the WSGI environment.

They are Werkzeug's development server (``flask run``), gunicorn with threads or with gevent, and
the test client. A blocking handler runs in whatever the server runs its requests in, a thread or a
greenlet; a coroutine function runs on a loop in a thread of its own. Of their processes we know
little, and so does :func:`plain_engine`, which makes the engines in them.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from _socket import dup
from _socket import socket as Socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from io import BufferedReader, BytesIO
from threading import current_thread, main_thread
from typing import Any, ClassVar
from weakref import WeakKeyDictionary, ref

from ..connection.detached import Body
from ..engines.base import Engine
from ..engines.threads import ThreadsEngine
from ..exceptions import EngineError, UnsupportedFront
from ..helpers.engines import ENGINES
from ..helpers.threads import threads_are_greenlets, wait_until
from ..helpers.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
from ..process.server_process import ServerProcess
from .base import Server
from .upgrade import upgrade_of

#: Seconds for which clients that a stopping process has told to leave are waited for.
LEAVE_TIME = 0.5


class PlainProcess(ServerProcess):
    """A process that we know nothing of, but that it exits some day."""

    def parent_of_workers(self) -> int:
        # gunicorn's arbiter. Other servers are one process.
        return os.getppid() if "gunicorn.arbiter" in sys.modules else os.getpid()

    def _call_at_exit(self, callback: Callable[[], None]) -> None:
        atexit.register(callback)
        # Pools of threads (gunicorn's) are waited for before that, from Python 3.9 on; our handlers
        # in them end when their clients have been told. Twice does no harm.
        with suppress(RuntimeError):  # the process ends already
            getattr(threading, "_register_atexit", atexit.register)(callback)


def plain_engine(name: str, greenlets: bool) -> Engine:
    """Return what runs an engine's handlers: those that block in greenlets, or in threads."""
    if ENGINES[name].asynchronous:
        return _loop_engine()
    return _gevent_engine() if greenlets else _threads_engine()


def _told_to_leave(engine: Engine) -> Engine:
    """Have an engine tell its clients when the process exits."""
    reference = ref(engine)

    def leave() -> None:
        engine = reference()
        if engine is None:
            return
        worker = engine.running_worker()
        if worker is None:
            return
        worker.close_all(1001)
        wait_until(lambda: not worker.connections, LEAVE_TIME)

    engine.process.at_exit(leave)
    return engine


@cache
def _threads_engine() -> Engine:
    return _told_to_leave(ThreadsEngine(PlainProcess()))


@cache
def _loop_engine() -> Engine:
    from ..engines.asyncio_thread import AsyncioThreadEngine

    return _told_to_leave(AsyncioThreadEngine(PlainProcess()))


_gevent_engines: WeakKeyDictionary[Any, Engine] = WeakKeyDictionary()


def _gevent_engine() -> Engine:
    """Return that of this hub, of which there is one in each thread that has greenlets."""
    from gevent import get_hub

    from ..engines.gevent import GeventEngine

    hub = get_hub()
    engine = _gevent_engines.get(hub)
    if engine is None:
        engine = _gevent_engines[hub] = _told_to_leave(GeventEngine(PlainProcess()))
    return engine


class SocketServer(Server):
    """A server that puts its socket into the WSGI environment, and answers 500 to an exception."""

    #: Where in the environment.
    key: ClassVar[str]

    def _call(self, application: WSGIApplication, environ: WSGIEnvironment, engine: str) -> Body:
        try:
            return super()._call(application, environ, engine)
        except Exception:
            raise
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and current_thread() is main_thread():
                raise  # Ctrl-C, where the server has no threads
            # These it would not answer, and some would end its thread, or its worker.
            raise RuntimeError(f"the app ended with {type(error).__name__}") from error

    def check(self, environ: WSGIEnvironment, engine: str, classes: Mapping[str, str]) -> None:
        ssl = sys.modules.get("ssl")
        if ssl is not None and isinstance(environ[self.key], ssl.SSLSocket):
            raise UnsupportedFront(
                "WebSockets don't work here over TLS: put a proxy that speaks it in front"
            )
        if ENGINES[engine].asynchronous and threads_are_greenlets():
            raise EngineError(
                f"{classes[engine]} needs real threads, which gevent has replaced in this "
                f"process: use {classes['gevent']}, or uWSGI"
            )

    def engine(self, environ: WSGIEnvironment, name: str) -> Engine:
        return plain_engine(name, self.uses_greenlets(environ))

    def uses_greenlets(self, environ: WSGIEnvironment) -> bool:
        """Return whether requests run in greenlets, not in threads."""
        return threads_are_greenlets()

    def take(self, environ: WSGIEnvironment) -> Socket:
        upgrade_of(environ).early = self.held(environ)
        return Socket(fileno=dup(environ[self.key].fileno()))

    def held(self, environ: WSGIEnvironment) -> bytes:
        """Return what the server has read behind the request and keeps in a buffer."""
        return b""

    def leave(self, start_response: StartResponse) -> Sequence[bytes]:
        # The server writes this to its access log, then to a socket that is shut down, by which
        # it learns that the connection is over.
        start_response("101 Switching Protocols", [])
        return ()


class Werkzeug(SocketServer):
    """Werkzeug's development server: ``flask run``."""

    key = "werkzeug.socket"

    def held(self, environ: WSGIEnvironment) -> bytes:
        stream, sock = environ["wsgi.input"], environ[self.key]
        if not isinstance(stream, BufferedReader):
            return b""
        timeout = sock.gettimeout()
        sock.setblocking(False)  # an empty buffer would be filled
        try:
            return bytes(stream.peek())
        finally:
            sock.settimeout(timeout)


class Gunicorn(SocketServer):
    """gunicorn, with ``--threads N`` or ``--worker-class gevent``."""

    key = "gunicorn.socket"

    def held(self, environ: WSGIEnvironment) -> bytes:
        body_reader = getattr(environ["wsgi.input"], "reader", None)
        buffer = getattr(getattr(body_reader, "unreader", None), "buf", None)
        return buffer.getvalue() if isinstance(buffer, BytesIO) else b""

    def check(self, environ: WSGIEnvironment, engine: str, classes: Mapping[str, str]) -> None:
        super().check(environ, engine, classes)
        if not environ.get("wsgi.multithread"):
            raise EngineError(
                "a WebSocket would hold this gunicorn worker, which serves one request at a time: "
                "start gunicorn with --threads N, or with --worker-class gevent"
            )
