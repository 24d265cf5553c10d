"""A test client for WebSockets, beside Flask's own; it needs no uWSGI.

::

    client = websocket.test_client(app)
    client.post("/login", data={"user": "ann"})         # Flask's test client, the same cookies
    with client.connect("/chat", subprotocols=["chat.v1"]) as conn:
        conn.send("hi")
        assert conn.receive() == "hi"

The request goes through the whole app, in a thread of its own (or a greenlet, for
``GeventWebSocket``); its handler speaks to the test over a socket pair, with the real codec on
both ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flask.testing import FlaskClient
from werkzeug.datastructures import Headers

from ..clients.base import Data
from ..clients.client import WebSocketClient
from ..codec import CLIENT, Deflate, DeflateSettings, Protocol, request_headers, validate_response
from ..codec.deflate import accept as accept_deflate
from ..codec.deflate import offer
from ..codec.handshake import new_key
from ..connection.base import Limits, Message
from ..connection.connection import Connection
from ..exceptions import ConnectionClosed, HandshakeError
from ..helpers.checks import propagates
from ..helpers.text import printable
from ..helpers.threads import threads_are_greenlets
from ..helpers.wsgi import WSGIEnvironment
from ..rooms.conformance import BackplaneConformance
from .request import KEY, SERVER, UpgradeRequest
from .room_faults import RoomFaults

if TYPE_CHECKING:
    from flask import Flask
    from werkzeug.test import TestResponse

__all__ = [
    "BackplaneConformance",
    "HandshakeRejected",
    "RoomFaults",
    "WebSocketTestClient",
    "WebSocketTestConnection",
]

#: A test's peer is trusted: only what the app may receive is limited, by the app.
_UNLIMITED = 1 << 40


class HandshakeRejected(HandshakeError):
    """The app answered the handshake with an ordinary response.

    :param response: what Flask's test client would have given.
    """

    def __init__(self, response: TestResponse) -> None:
        super().__init__(response.status_code, f"the app answered {response.status}")
        self.response = response


class WebSocketTestConnection(WebSocketClient):
    """The test's end of a connection; used as a context manager it closes at the end.

    It has the members of a handler's client. Nothing waits for longer than the ``timeout`` that
    :meth:`WebSocketTestClient.connect` was given. An exception of the handler is raised here,
    by what finds the connection ended, where Flask propagates exceptions to tests
    (``TESTING``, ``PROPAGATE_EXCEPTIONS``); elsewhere it is logged, and ``close_code`` is 1011.
    """

    #: The response 101 that opened the connection.
    response: TestResponse

    def __init__(
        self, app: Flask, request: UpgradeRequest, response: TestResponse, **options: Any
    ) -> None:
        super().__init__(request.environ, app=app, **options)
        self.response = response
        self._app: Flask = app
        self._request = request
        self._grace = max(
            (extension.timeout for extension in app.extensions.get("uwsgi_websocket", ())),
            default=0.0,
        )
        self._over = False

    def receive(self, timeout: float | None = None) -> Message | None:
        """Wait for the next message, as a handler's ``receive()``, but never for ever.

        :raises TimeoutError: after ``timeout`` seconds; by default those of the connection.
        """
        timeout = self.timeout if timeout is None else timeout
        try:
            message = super().receive(timeout)
        except TimeoutError:
            raise TimeoutError(
                f"no message from {printable(self.path)} within {timeout} s"
            ) from None
        if message is None:
            self._raise_failure()
        return message

    recv = receive

    def send(self, msg: Data, binary: bool | None = None) -> None:
        """Send a message, as a handler's ``send()``."""
        try:
            super().send(msg, binary)
        except ConnectionClosed:
            self._raise_failure()
            raise

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection and wait until the handler, and its request, are through.

        :raises TimeoutError: when the handler goes on after the connection has ended.
        """
        if self._over:
            return
        self._over = True
        self._run(self._connection.close(code, reason))
        self._run(self._connection.finish())
        # A handler that waits for something else is interrupted after the extension's timeout.
        self._request.wait(self._grace + self.timeout)
        self._raise_failure()

    def abort(self) -> None:
        """Vanish without a Close frame, as a client whose network fails."""
        self._connection.release()

    def _raise_failure(self) -> None:
        """Raise what the handler raised, once."""
        error = self._request.failure()
        if error is not None and propagates(self._app):
            self._request.forget_failure()
            raise error

    def __exit__(self, exc_type: type[BaseException] | None, *error: object) -> None:
        if exc_type is None:
            self.close()
        else:
            self._over = True
            self._connection.release()  # the test has failed, and is to say so, not we


class WebSocketTestClient(FlaskClient):
    """Flask's test client that also opens WebSockets.

    Made by ``websocket.test_client()``; or, as ``app.test_client_class``, by Flask's own
    ``app.test_client()``.
    """

    def connect(
        self,
        path: str = "/",
        *,
        headers: Any = None,
        query_string: Any = None,
        subprotocols: Sequence[str] = (),
        origin: str | None = None,
        compression: bool | DeflateSettings = False,
        timeout: float = 5,
        **kwargs: Any,
    ) -> WebSocketTestConnection:
        """Open a WebSocket.

        :param path: or a whole URL, such as ``websocket.url_for()`` gives.
        :param origin: the page that opens it; None: not a browser.
        :param compression: whether to offer permessage-deflate.
        :param timeout: seconds after which whatever waits raises TimeoutError.
        :param kwargs: what Flask's test client takes: ``base_url``, ``subdomain``, ``auth`` ...
        :raises HandshakeRejected: when the app answers otherwise; it carries the response.
        """
        settings = DeflateSettings() if compression is True else compression or None
        key, extensions = new_key(), offer(settings) if settings else None
        fields = Headers(
            request_headers(
                "", key, subprotocols=subprotocols, extensions=extensions, origin=origin
            )
        )
        del fields["Host"]  # Werkzeug's, by the URL
        fields.update(Headers(headers))
        app = self.application
        request = UpgradeRequest(app, timeout, _wants_greenlets(app))
        try:
            kwargs.update(headers=fields, query_string=query_string)
            response = self._open_upgrade(path, request, **kwargs)
            upgrade = validate_response(101, response.headers, key, subprotocols)
            deflate = accept_deflate(upgrade.extensions, settings)
        except BaseException:
            request.close()
            raise
        extensions = app.extensions.get("uwsgi_websocket", ())
        request.wait_for_handler([extension.clients for extension in extensions])
        return WebSocketTestConnection(
            *(app, request, response),
            connection=_connect(request, deflate),
            subprotocol=upgrade.subprotocol,
        )

    def _open_upgrade(self, path: str, request: UpgradeRequest, **kwargs: Any) -> TestResponse:
        """Send the upgrade request, and return the response 101."""
        if path.startswith(("ws:", "wss:")):
            path = "http" + path[2:]
        overrides = {**kwargs.pop("environ_overrides", {}), KEY: request}
        response = self.open(path, method="GET", environ_overrides=overrides, **kwargs)
        if response.status_code != 101:
            raise HandshakeRejected(response)
        return response

    def run_wsgi_app(self, environ: WSGIEnvironment, buffered: bool = False) -> Any:
        """Run as Werkzeug does, which sends the cookies and stores those that come back."""
        request = environ.get(KEY)
        if request is None:
            return super().run_wsgi_app(environ, buffered)
        app, self.application = self.application, request
        try:
            return super().run_wsgi_app(environ, buffered)
        finally:
            self.application = app


def _connect(request: UpgradeRequest, deflate: Deflate | None) -> Connection:
    """Open the test's end of the connection."""
    timeout = request.timeout
    limits = Limits(
        timeout=timeout, max_message_size=_UNLIMITED, ping_interval=0, send_timeout=timeout
    )
    protocol = Protocol(CLIENT, max_message_size=_UNLIMITED, deflate=deflate)
    return SERVER.engine(request.environ, "threads").open(request.ours, protocol, limits)


def client_class(app: Flask) -> type[WebSocketTestClient]:
    """Derive a class that opens WebSockets from the app's own class of test clients."""
    base = app.test_client_class or FlaskClient
    if issubclass(base, WebSocketTestClient):
        return base
    if base is FlaskClient:
        return WebSocketTestClient
    return type(base.__name__, (WebSocketTestClient, base), {})


def _wants_greenlets(app: Flask) -> bool:
    """Return whether handlers run in greenlets of the test's hub: those of GeventWebSocket do.

    What they hold in common (queues, events, locks of gevent) works within one hub only.
    """
    if threads_are_greenlets():
        return True
    engines = {
        extension.middleware.engine_name for extension in app.extensions.get("uwsgi_websocket", ())
    }
    return "gevent" in engines and "asyncio" not in engines
