"""WebSockets under ``uwsgi --asyncio N --greenlet``: handlers are coroutine functions."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from functools import wraps
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from ..clients.client import BaseClient, Data
from ..clients.open_clients import Excluded
from ..connection.connection import Message
from ..exceptions import AsyncioNotAvailable, ConnectionClosed, EngineError
from ..helpers.functions import is_coroutine_function, name_of
from ..process.fork import end_of_children
from ..servers import uwsgi
from .extension import WebSocket
from .middleware import WebSocketMiddleware

if TYPE_CHECKING:
    from types import TracebackType

    from flask import Flask
    from typing_extensions import Self

    from ..engines.asyncio import AsyncioConnection, AsyncioEngine

T = TypeVar("T")


class AsyncioWebSocketClient(BaseClient):
    """The client of an ``async def`` handler.

    The members are those of :class:`~.client.WebSocketClient`; those that wait are coroutines.
    """

    _connection: AsyncioConnection

    async def receive(self, timeout: float | None = None) -> Message | None:
        """Wait for the next message: str for a text message, bytes for a binary one.

        :return: None once the connection is closed and every message has been received.
        :raises TimeoutError: when ``timeout`` seconds pass without a message.
        :raises ConnectionClosed: after two times None, for a handler that heeds neither.
        """
        return await self._connection.receive(timeout)

    recv = a_recv = receive

    async def send(self, msg: Data, binary: bool | None = None) -> None:
        """Send a message: str as text, bytes as binary, unless ``binary`` says otherwise.

        Waits while more than ``UWSGI_WEBSOCKET_SEND_QUEUE_SIZE`` bytes are queued because the
        client does not read.

        :raises ConnectionClosed: when the connection is closed, or the client took nothing for
            ``UWSGI_WEBSOCKET_SEND_TIMEOUT`` seconds. A handler need not catch it.
        :raises ValueError: when bytes that are not UTF-8 are to go as text.
        """
        connection = self._connection
        encode: Callable[[Any], bytes] = self._text
        if binary or type(msg) is not str:
            encode = self._encoder(msg, binary)
        try:
            if connection.post(encode, msg):
                await connection.drained()
        except ConnectionClosed:
            await connection.send_failed()
            raise

    a_send = send

    async def send_binary(self, msg: Data) -> None:
        """Send a binary message."""
        await self.send(msg, binary=True)

    async def send_json(self, obj: Any) -> None:
        """Send an object as JSON text, with the app's JSON provider."""
        await self.send(self._json.dumps(obj), binary=False)

    async def receive_json(self, timeout: float | None = None) -> Any:
        """Wait for the next message and read it as JSON; None is JSON's ``null``.

        :raises ConnectionClosed: once the connection is closed and every message has been
            received. A handler need not catch it.
        :raises ValueError: when it isn't JSON.
        :raises TimeoutError: as :meth:`receive`.
        """
        return self._loads(await self.receive(timeout))

    async def send_from_sharedarea(self, id: int, pos: int) -> None:
        """Send what a uWSGI shared area holds from ``pos`` on, as text."""
        await self.send(self._shared_area(id, pos), binary=False)

    async def send_binary_from_sharedarea(self, id: int, pos: int) -> None:
        """Send what a uWSGI shared area holds from ``pos`` on, as binary."""
        await self.send(self._shared_area(id, pos), binary=True)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection (RFC 6455 7.1.2); wait at most ``timeout`` seconds for the peer.

        Does nothing on a closed connection.

        :param code: 1000 to 1003, 1007 to 1014, or 3000 to 4999 (RFC 6455 7.4).
        :param reason: at most 123 bytes of UTF-8.
        :raises ValueError: for a code or reason that may not be sent.
        """
        await self._connection.close(code, reason)

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    def __anext__(self) -> Awaitable[Message]:
        # Neither an asynchronous generator nor a coroutine, which are slower.
        return self._connection.next_message()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None or issubclass(exc_type, ConnectionClosed):
            await self.close()
        else:
            await self.close(1011)


class _Done(Awaitable[None]):
    """What need not be awaited, and is done when it is."""

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()


class AsyncioWebSocketMiddleware(WebSocketMiddleware):
    """:class:`WebSocketMiddleware` for the asyncio engine."""

    client = AsyncioWebSocketClient
    engine_name = "asyncio"


class AsyncioWebSocket(WebSocket):
    """:class:`WebSocket` for ``uwsgi --asyncio N --greenlet``; handlers are ``async def``.

    :raises AsyncioNotAvailable: when greenlet is not installed.
    """

    middleware = AsyncioWebSocketMiddleware
    engine_options: ClassVar[dict[str, Any]] = {"asyncio": 100, "greenlet": True}

    def __init__(self, app: Flask | None = None, timeout: float = 5) -> None:
        if find_spec("greenlet") is None:
            raise AsyncioNotAvailable(
                "AsyncioWebSocket needs greenlet, and uWSGI with its asyncio engine: "
                "pip install 'Flask-uWSGI-WebSocket[asyncio]' && "
                "python -m flask_uwsgi_websocket install-uwsgi"
            )
        super().__init__(app, timeout)

    def init_app(self, app: Flask) -> None:
        """As :meth:`WebSocket.init_app`; also lets the app's own views be ``async def``."""
        super().init_app(app)
        if not uwsgi.inside() or _runs_asyncio():
            # https://flask.palletsprojects.com/en/stable/async-await/#extensions: what Flask, and
            # extensions through ensure_sync, call coroutine functions with.
            app.async_to_sync = _on_our_loop(app.async_to_sync)  # type: ignore[method-assign]

    def send_to_all(
        self, msg: Data, binary: bool | None = None, *, exclude: Excluded = ()
    ) -> Awaitable[None]:
        """As :meth:`WebSocket.send_to_all`: done when it returns, and may be awaited."""
        super().send_to_all(msg, binary, exclude=exclude)
        return _Done()

    async def sleep(self, seconds: float) -> None:
        """Let others run, for some seconds: ``asyncio.sleep()``."""
        await asyncio.sleep(seconds)

    def _check_handler(self, handler: Callable[..., Any]) -> None:
        if not is_coroutine_function(handler):
            raise TypeError(
                f"{name_of(handler)} is a plain function: the handlers of AsyncioWebSocket are "
                "coroutine functions (async def)"
            )


def run_coroutine(awaitable: Awaitable[T]) -> T:
    """Wait in an ordinary view for a coroutine, which runs on the worker's loop meanwhile.

    Only this request waits: the handlers of WebSockets and other requests go on. The coroutine
    sees the request's context.

    :return: what the coroutine returns; what it raises is raised here.
    :raises EngineError: where uWSGI does not run ``--asyncio N --greenlet``.
    :raises RuntimeError: inside a coroutine, which can await, and in a thread of one's own.
    """
    try:
        _check_that_request_can_wait()
    except RuntimeError:
        if inspect.iscoroutine(awaitable):
            awaitable.close()  # it was called all right: no "was never awaited"
        raise
    engine = cast("AsyncioEngine", uwsgi.engine("asyncio"))
    result, exit_ = engine.wait_for(_contain(awaitable))
    if exit_ is not None:
        raise exit_
    return cast(T, result)


async def _contain(awaitable: Awaitable[T]) -> tuple[T | None, BaseException | None]:
    """A SystemExit that leaves a Task would end the loop, and the worker with it."""
    try:
        with end_of_children():
            return await awaitable, None
    except (SystemExit, KeyboardInterrupt) as exit_:
        return None, exit_


def _runs_asyncio() -> bool:
    return uwsgi.inside() and uwsgi.running_engine() == "asyncio"


def _check_that_request_can_wait() -> None:
    if not _runs_asyncio():
        raise EngineError("run_coroutine() needs uWSGI, started with --asyncio N --greenlet")
    from ..engines.asyncio import in_request, in_task

    if in_task():
        raise RuntimeError("run_coroutine() is for plain functions: await in a coroutine")
    if not in_request():
        raise RuntimeError(
            "run_coroutine() waits in the greenlet of a request; in a thread use "
            "asyncio.run_coroutine_threadsafe(coroutine, loop).result()"
        )


def _on_our_loop(elsewhere: Callable[..., Any]) -> Callable[..., Any]:
    """A replacement of ``Flask.async_to_sync`` that knows that a loop runs in this thread.

    Flask's own (asgiref's) refuses to work beside a running loop. A decorator such as
    Flask-Login's ``login_required`` calls it around a handler too: there the coroutine is
    given back, for the handler's Task to await.

    :param elsewhere: what it replaces, and what threads without a loop go on using.
    """
    from ..engines.asyncio import in_request, in_task

    def async_to_sync(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if in_task():
                return function(*args, **kwargs)
            if in_request():
                return run_coroutine(function(*args, **kwargs))
            return elsewhere(function)(*args, **kwargs)

        return call

    return async_to_sync
