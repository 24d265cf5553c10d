"""Handlers that are classes: an instance for each connection, a method for each event.

Flask apps mount them with :meth:`~.extension.WebSocket.server`, other WSGI applications with
:class:`~.uwasp.WebSocketMiddleware`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import cache
from typing import Any

from ..connection.base import Message
from ..connection.blocking import run_to_end
from ..helpers.functions import is_coroutine_function
from ..helpers.wsgi import WSGIEnvironment
from ..rooms.targets import Target
from .base import USER, BaseClient, Data


class WebSocket:
    """A connection as its server sees it; for any thread or greenlet.

    :param environ: the WSGI environment of the upgrade request.
    """

    def __init__(self, environ: WSGIEnvironment) -> None:
        self.environ = environ
        self._client: Any = None

    @property
    def client(self) -> Any:
        """The client as a handler that is a function gets it: ``subprotocol``, ``close_code``,
        ``send_json()`` and so on.

        :raises RuntimeError: before the handshake, that is in ``__init__`` of a server.
        """
        if self._client is None:
            raise RuntimeError("the WebSocket is not open before on_open()")
        return self._client

    def attach(self, client: BaseClient[Any]) -> None:
        """Give it the client, once the handshake is done. For handlers."""
        self._client = client

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more. Messages from before may still be handled."""
        return self._client is not None and self._client._connection.ended

    def fileno(self) -> int:
        """Return the descriptor of the connection; -1 once it is released."""
        return int(self.client.fd)

    def send(self, message: Data, binary: bool | None = None) -> Any:
        """Send a message: str as text, bytes as binary, unless ``binary`` says otherwise.

        Waits while more than :attr:`Limits.send_queue_size` bytes are queued because the client
        does not read.

        :raises ConnectionClosed: when the connection is closed. A server need not catch it.
        """
        self.client.send(message, binary)

    def close(self, code: int = 1000, reason: str = "") -> Any:
        """Close the connection (RFC 6455 7.1.2); wait at most the timeout for the client.

        Does nothing on a closed connection.

        :param code: 1000 to 1003, 1007 to 1014, or 3000 to 4999 (RFC 6455 7.4).
        :param reason: at most 123 bytes of UTF-8.
        :raises ValueError: for a code or reason that may not be sent.
        """
        self.client.close(code, reason)

    @property
    def user(self) -> str | None:
        """Who is at the other end, as ``identify`` tells; None for somebody unknown."""
        user: str | None = self.environ.get(USER)
        return user

    @property
    def rooms(self) -> frozenset[str]:
        """The names of the rooms that it is in."""
        rooms: frozenset[str] = self.client.rooms
        return rooms

    def join(self, room: str, **options: Any) -> Any:
        """Join a room, until the end; see :meth:`.WebSocketClient.join`."""
        return self.client.join(room, **options)

    def leave(self, room: str) -> Any:
        """Leave a room."""
        return self.client.leave(room)

    def to(self, *rooms: str) -> Target[Any]:
        """Return the target of all others in these rooms, on every worker."""
        target: Target[Any] = self.client.to(*rooms)
        return target


class AwaitableWebSocket(WebSocket):
    """The same under asyncio: its methods act at once, and their results may be awaited.

    So plain functions and other threads, which cannot await, can send as well.
    """

    def send(self, message: Data, binary: bool | None = None) -> Awaitable[None]:
        """Send a message: str as text, bytes as binary, unless ``binary`` says otherwise.

        Await the result to wait for a client that does not read. Where nobody waits, a client
        with more than :attr:`Limits.send_queue_size` bytes queued is closed with code 1013.

        :raises ConnectionClosed: when the connection is closed. A server need not catch it.
        """
        self.client.send_nb(message, binary)
        return _Wait(self._settle)

    async def join(self, room: str, **options: Any) -> Any:
        """Join a room, as :meth:`WebSocket.join`. Has to be awaited."""
        return await self.client.join(room, **options)

    async def _settle(self) -> None:
        connection = self.client._connection
        if connection.congested:
            await connection.drained()

    def close(self, code: int = 1000, reason: str = "") -> Awaitable[None]:
        """Close the connection, as :meth:`WebSocket.close`; await the result to wait for the
        client."""
        connection = self.client._connection
        connection.start_closing(code, reason)
        return _Wait(connection.close)


class _Wait(Awaitable[None]):
    """A coroutine that need not be awaited."""

    def __init__(self, coroutine: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._run = coroutine

    def __await__(self) -> Generator[Any, None, None]:
        return self._run().__await__()


class Server:
    """One connection. Subclass it, and override what you need.

    The methods are called one after the other, in the connection's own thread or greenlet. An
    exception in one is logged, and closes the connection with code 1011.

    :param ws: for the client at the other end. Nothing can be sent before :meth:`on_open`.
    """

    #: The subprotocol (RFC 6455 1.9) that it speaks with clients that offer it.
    PROTOCOL_NAME: str | None = None
    #: Whether clients that do not offer it are refused, with 400.
    PROTOCOL_REQUIRED = False

    def __init__(self, ws: WebSocket) -> None:
        self.ws = ws

    def on_open(self) -> Any:
        """Begin; the handshake is done."""

    def on_message(self, message: Message) -> Any:
        """Handle a message: str for a text message, bytes for a binary one."""

    def on_close(self) -> Any:
        """Clean up; the connection has ended. Called once, after all else."""


_METHODS = ("on_open", "on_message", "on_close")


def check_methods(server_class: type[Any], asynchronous: bool) -> None:
    """Check that a server is of a kind that can be run.

    :raises TypeError: when it has coroutine functions, and the engine is not asyncio.
    :raises ValueError: when it requires a subprotocol and names none.
    """
    if getattr(server_class, "PROTOCOL_REQUIRED", False) and not getattr(
        server_class, "PROTOCOL_NAME", None
    ):
        raise ValueError(f"{server_class.__name__}.PROTOCOL_REQUIRED needs a PROTOCOL_NAME")
    for name in _METHODS:
        method = getattr(server_class, name, None)
        if not callable(method):
            raise TypeError(f"{server_class.__name__} lacks {name}(): derive it from Server")
        if not asynchronous and is_coroutine_function(method):
            raise TypeError(
                f"{server_class.__name__}.{name} is a coroutine function, which only asyncio runs: "
                "use AsyncioHandler, or AsyncioWebSocket with Flask"
            )


def subprotocol_options(server_class: type[Any]) -> dict[str, Any]:
    """Return the options of a route that say which subprotocol a server speaks, if any."""
    name = getattr(server_class, "PROTOCOL_NAME", None)
    required = getattr(server_class, "PROTOCOL_REQUIRED", False)
    return {"subprotocols": (name,) if name else (), "require_subprotocol": required}


async def converse(server: Any, client: Any) -> None:
    """Call a server's methods for what happens on a connection, until its end."""
    client._connection.at_end = server.on_close
    await _settled(server.on_open())
    while (message := await _settled(client.receive())) is not None:
        await _settled(server.on_message(message))


async def _settled(result: Any) -> Any:
    return await result if isinstance(result, Awaitable) else result


@cache
def handler_of(server_class: type[Any], asynchronous: bool) -> Callable[..., Any]:
    """Make a function for :meth:`~.extension.WebSocket.add_url_rule` that runs a server.

    :param asynchronous: whether to make a coroutine function.
    """
    check_methods(server_class, asynchronous)

    def run(client: Any, values: dict[str, Any]) -> Coroutine[Any, Any, None]:
        if not isinstance(client, BaseClient):
            raise TypeError(f"a server cannot be run with a {type(client).__name__}")
        ws = (AwaitableWebSocket if asynchronous else WebSocket)(client.environ)
        ws.attach(client)
        return converse(server_class(ws, **values), client)

    def handler(client: BaseClient[Any], **values: Any) -> None:
        run_to_end(run(client, values))

    async def coroutine_handler(client: BaseClient[Any], **values: Any) -> None:
        await run(client, values)

    made: Callable[..., Any] = coroutine_handler if asynchronous else handler
    made.__name__ = server_class.__name__
    made.__doc__ = server_class.__doc__
    return made
