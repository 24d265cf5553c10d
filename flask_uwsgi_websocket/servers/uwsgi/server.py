"""uWSGI as the server of an upgrade request."""

from __future__ import annotations

from _socket import socket as Socket
from collections.abc import Mapping
from functools import lru_cache

from ...connection.detached import Body, DetachedRequest
from ...engines.base import Engine
from ...exceptions import HandshakeError, UnsupportedFront
from ...helpers.log import RateLimit, logger
from ...helpers.threads import caller
from ...helpers.wsgi import WSGIApplication, WSGIEnvironment
from ..base import Server
from ..upgrade import Headers, upgrade_of
from . import request, start
from .descriptors import no_room_reason
from .requirements import detaches, require_engine, unsupported_reason

#: Characters up to which a string of an environment is shared: cookies are each client's own.
LONGEST_SHARED = 256


@lru_cache(1024)  # sys.intern() would keep all that clients ever sent: Python 3.12 frees none
def _shared(text: str) -> str:
    """Return an equal string, if there was one lately: for what most connections have in common.

    uWSGI makes each string of an environment anew.
    """
    return text


def _copy(environ: WSGIEnvironment) -> WSGIEnvironment:
    """Copy an environment, with strings that others have as well; with no call for each."""
    return {
        _shared(name) if len(name) <= LONGEST_SHARED else name: (
            _shared(value) if type(value) is str and len(value) <= LONGEST_SHARED else value
        )
        for name, value in environ.items()
    }


class _Detachable:
    """An application with a request that may be detached.

    A class, since each open connection keeps one, and a function weighs twice as much.
    """

    __slots__ = ("_application", "_environ")

    def __init__(self, application: WSGIApplication, environ: WSGIEnvironment) -> None:
        self._application = application
        # A copy: uWSGI clears its own when the request ends.
        self._environ = _copy(environ)
        self._environ["wsgi.input"] = upgrade_of(environ).input

    def run(self, detachable: DetachedRequest) -> Body:
        """Call the application, for a greenlet that carries it."""
        upgrade = upgrade_of(self._environ)
        upgrade.detachable = detachable
        return upgrade.run(self._application, self._environ)


class UWSGI(Server):
    """uWSGI, which can end a request before its WebSocket ends."""

    hears_end_by_response = False

    def __init__(self) -> None:
        self._full = RateLimit()

    def check(self, environ: WSGIEnvironment, engine: str, classes: Mapping[str, str]) -> None:
        require_engine(engine, classes)
        problem = unsupported_reason()
        if problem:
            raise UnsupportedFront(problem)
        problem = no_room_reason(environ)
        if problem:
            reason = "there is no room for another WebSocket: try again later"
            error = HandshakeError(503, reason, kind="full")
            if self._full.passes():
                error.is_logged = True
                logger.warning("WebSockets are refused with 503: %s", problem)
            raise error

    def engine(self, environ: WSGIEnvironment, name: str) -> Engine:
        return start.engine(name)

    def _call(self, application: WSGIApplication, environ: WSGIEnvironment, engine: str) -> Body:
        upgrade = upgrade_of(environ)
        if not detaches(engine):
            return upgrade.run(application, environ)
        try:
            return self._call_detachable(application, environ, engine)
        except Exception as error:
            return upgrade.fail(error)

    def _call_detachable(
        self, application: WSGIApplication, environ: WSGIEnvironment, engine: str
    ) -> Body:
        upgrade = upgrade_of(environ)
        devnull = request.devnull()
        detachable = _Detachable(application, environ)
        body = start.engine(engine).run_detachable(detachable.run)
        if upgrade.detached:
            request.redirect_request(devnull)
            if not upgrade.told:
                upgrade.tell_server()
        return body

    def detach(self, environ: WSGIEnvironment) -> None:
        upgrade = upgrade_of(environ)
        if upgrade.detachable is not None and not upgrade.detached:
            upgrade.input.end()
            upgrade.detached = True
            upgrade.detachable.detach()

    def take(self, environ: WSGIEnvironment) -> Socket:
        upgrade = upgrade_of(environ)
        upgrade.taken_in = caller()
        sock = request.take()
        upgrade.early = request.read_ahead()
        return sock

    def answer(self, environ: WSGIEnvironment, sock: Socket, headers: Headers) -> None:
        # uWSGI then knows, and logs, what was answered. But its functions serve the request of
        # the thread or greenlet that calls them.
        upgrade = upgrade_of(environ)
        taken_here, upgrade.taken_in = upgrade.taken_in == caller(), None
        if taken_here:
            request.answer(environ, upgrade.start_response, headers)
            upgrade.told = True
        else:
            super().answer(environ, sock, headers)
