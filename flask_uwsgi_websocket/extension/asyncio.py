"""WebSockets under ``uwsgi --asyncio N --greenlet``: handlers are coroutine functions."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from functools import wraps
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flask import Flask

from ..clients.base import Data
from ..clients.client import AsyncioWebSocketClient
from ..clients.open_clients import Excluded
from ..connection.blocking import DONE
from ..exceptions import AsyncioNotAvailable, EngineError
from ..process.fork import end_of_children
from ..rooms.targets import Target
from ..servers import uwsgi
from .extension import WebSocket
from .middleware import WebSocketMiddleware

if TYPE_CHECKING:
    from ..engines.asyncio import AsyncioEngine

T = TypeVar("T")


class AsyncioWebSocketMiddleware(WebSocketMiddleware):
    """:class:`WebSocketMiddleware` for the asyncio engine."""

    client = AsyncioWebSocketClient
    engine_name = "asyncio"


class AsyncioWebSocket(WebSocket):
    """:class:`WebSocket` for ``uwsgi --asyncio N --greenlet``; handlers are ``async def``.

    :raises AsyncioNotAvailable: when greenlet is not installed.
    """

    middleware = AsyncioWebSocketMiddleware

    def __init__(self, app: Flask | None = None, timeout: float = 5) -> None:
        if find_spec("greenlet") is None:
            raise AsyncioNotAvailable(
                "AsyncioWebSocket needs greenlet, and uWSGI with its asyncio engine: "
                "pip install 'Flask-uWSGI-WebSocket[asyncio]' && "
                "python -m flask_uwsgi_websocket install-uwsgi"
            )
        super().__init__(app, timeout)

    def init_app(self, app: Flask) -> None:
        """Do as :meth:`WebSocket.init_app`; let the app's own views be ``async def``, too."""
        super().init_app(app)
        if not uwsgi.inside() or _runs_asyncio():
            # https://flask.palletsprojects.com/en/stable/async-await/#extensions: what Flask, and
            # extensions through ensure_sync, call coroutine functions with.
            app.async_to_sync = _on_our_loop(app.async_to_sync)  # type: ignore[method-assign]

    def send_to_all(
        self, msg: Data, binary: bool | None = None, *, exclude: Excluded = ()
    ) -> Awaitable[None]:
        """Do as :meth:`WebSocket.send_to_all`; the result may be awaited, but need not."""
        super().send_to_all(msg, binary, exclude=exclude)
        return DONE

    if TYPE_CHECKING:
        # What these targets send is to be awaited; or need not be: it goes out all the same.
        def to(  # type: ignore[override]
            self, *rooms: str, exclude: Any = ()
        ) -> Target[Awaitable[None]]: ...
        def to_user(  # type: ignore[override]
            self, *users: str | int, exclude: Any = ()
        ) -> Target[Awaitable[None]]: ...
        def to_all(  # type: ignore[override]
            self, *, exclude: Any = ()
        ) -> Target[Awaitable[None]]: ...

        # To be awaited in a coroutine, and there already in a plain view.
        def count(self, room: str) -> Any: ...
        def rooms(self) -> Any: ...
        def who(self, room: str) -> Any: ...
        def present(self, user: str | int) -> Any: ...
        def position(self, room: str) -> Any: ...
        def history(self, room: str, after: str | None = None, limit: int = 100) -> Any: ...
        def forget(self, room: str) -> Any: ...

    async def sleep(self, seconds: float) -> None:
        """Let others run, for some seconds: ``asyncio.sleep()``."""
        await asyncio.sleep(seconds)


def run_coroutine(awaitable: Awaitable[T]) -> T:
    """Wait in an ordinary view for a coroutine, which runs on the worker's loop meanwhile.

    Only this request waits: the handlers of WebSockets and other requests go on. The coroutine
    sees the request's context.

    :return: what the coroutine returns; what it raises is raised here.
    :raises EngineError: where uWSGI does not run ``--asyncio N --greenlet``.
    :raises RuntimeError: inside a coroutine, which can await, and in a thread of one's own.
    :raises TypeError: for what cannot be awaited.
    """
    try:
        _check_that_request_can_wait()
    except RuntimeError:
        if inspect.iscoroutine(awaitable):
            awaitable.close()  # it was called all right: no "was never awaited"
        raise
    if not inspect.isawaitable(awaitable):
        raise TypeError(
            f"run_coroutine() was given {type(awaitable).__name__}, which cannot be awaited; "
            "websocket.count() and rooms() have waited already, in a plain view"
        )
    engine = cast("AsyncioEngine", uwsgi.engine("asyncio"))
    result, exit_ = engine.wait_for(_contain(awaitable))
    if exit_ is not None:
        raise exit_
    return cast(T, result)


async def _contain(awaitable: Awaitable[T]) -> tuple[T | None, BaseException | None]:
    """Keep a SystemExit from leaving the Task: it would end the loop, and the worker with it."""
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
    from ..engines.asyncio_loop import in_request, in_task

    if in_task():
        raise RuntimeError("run_coroutine() is for plain functions: await in a coroutine")
    if not in_request():
        raise RuntimeError(
            "run_coroutine() waits in the greenlet of a request; in a thread use "
            "asyncio.run_coroutine_threadsafe(coroutine, loop).result()"
        )


def _on_our_loop(elsewhere: Callable[..., Any]) -> Callable[..., Any]:
    """Replace ``Flask.async_to_sync`` by one that knows that a loop runs in this thread.

    Flask's own (asgiref's) refuses to work beside a running loop. A decorator such as
    Flask-Login's ``login_required`` calls it around a handler too: there the coroutine is
    given back, for the handler's Task to await.

    :param elsewhere: what it replaces, and what threads without a loop go on using.
    """
    from ..engines.asyncio_loop import in_request, in_task

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
