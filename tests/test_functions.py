"""Handlers of every kind of callable are known for what they are: coroutine functions or plain."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, partialmethod, wraps
from typing import Any

import pytest
from flask import Flask

from flask_uwsgi_websocket import AsyncioWebSocket, GeventWebSocket, WebSocket
from flask_uwsgi_websocket.helpers.functions import is_coroutine_function
from flask_uwsgi_websocket.uwasp import Server, ThreadHandler, WebSocketMiddleware


def make_app() -> Flask:
    app = Flask("under test")
    app.config.update(TESTING=True, UWSGI_WEBSOCKET_AGGRESSIVE_PATCH=False)
    return app


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def decorated_by_a_coroutine_function(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return wrapper


class Coroutines:
    """An object that is called as a coroutine function, and has methods that are."""

    async def __call__(self, ws: Any, greeting: str = "hello") -> None:
        await ws.send(greeting)

    @classmethod
    async def of_the_class(cls, ws: Any) -> None:
        await ws.send("hello")

    @staticmethod
    async def static(ws: Any) -> None:
        await ws.send("hello")

    @decorated
    async def decorated(self, ws: Any) -> None:
        await ws.send("hello")

    partial = partialmethod(__call__, greeting="hello")


class Plain:
    """The same of plain functions."""

    def __call__(self, ws: Any, greeting: str = "hello") -> None:
        ws.send(greeting)

    @classmethod
    def of_the_class(cls, ws: Any) -> None:
        ws.send("hello")

    @staticmethod
    def static(ws: Any) -> None:
        ws.send("hello")

    @decorated
    def decorated(self, ws: Any) -> None:
        ws.send("hello")

    partial = partialmethod(__call__, greeting="hello")


def kinds(made_of: type[Any]) -> dict[str, Callable[..., Any]]:
    thing = made_of()
    return {
        "object": thing,
        "method": thing.__call__,
        "classmethod": thing.of_the_class,
        "staticmethod": thing.static,
        "decorated method": thing.decorated,
        "partialmethod": thing.partial,
        "partial of an object": partial(thing, greeting="hello"),
        "partial of a method": partial(thing.__call__, greeting="hello"),
        "partial of a partial": partial(partial(thing), greeting="hello"),
        "decorated partial": decorated(partial(thing, greeting="hello")),
        "partial of what is decorated": partial(decorated(thing), greeting="hello"),
    }


COROUTINES, PLAIN = kinds(Coroutines), kinds(Plain)


@pytest.mark.parametrize("kind", COROUTINES)
def test_asyncio_takes_coroutine_functions_and_the_others_do_not(kind: str) -> None:
    websocket = AsyncioWebSocket(make_app())
    websocket.add_url_rule("/", "endpoint", COROUTINES[kind])
    with websocket.test_client().connect("/") as connection:
        assert connection.receive() == "hello"
    for extension in (WebSocket(), GeventWebSocket()):
        with pytest.raises(TypeError, match=r"is a coroutine function.*use AsyncioWebSocket"):
            extension.add_url_rule("/", "endpoint", COROUTINES[kind])


@pytest.mark.parametrize("kind", PLAIN)
def test_asyncio_refuses_plain_functions_and_the_others_do_not(kind: str) -> None:
    websocket = WebSocket(make_app())
    websocket.add_url_rule("/", "endpoint", PLAIN[kind])
    with websocket.test_client().connect("/") as connection:
        assert connection.receive() == "hello"
    with pytest.raises(TypeError, match="is a plain function"):
        AsyncioWebSocket().add_url_rule("/", "endpoint", PLAIN[kind])


def test_a_coroutine_function_around_a_plain_one() -> None:
    def plain(ws: Any) -> None: ...

    assert is_coroutine_function(decorated_by_a_coroutine_function(plain))
    assert not is_coroutine_function(decorated(plain))


def test_what_wraps_itself() -> None:
    def loop(ws: Any) -> None: ...

    loop.__wrapped__ = loop  # type: ignore[attr-defined]
    assert not is_coroutine_function(loop)


def test_an_endpoint_for_what_has_no_name() -> None:
    with pytest.raises(TypeError, match=r"endpoint="):
        AsyncioWebSocket().route("/")(COROUTINES["partial of an object"])
    AsyncioWebSocket().route("/", endpoint="named")(COROUTINES["partial of an object"])


@pytest.mark.parametrize("kind", COROUTINES)
def test_methods_of_servers(kind: str) -> None:
    def application(environ: Any, start_response: Any) -> Any: ...

    server = type("Made", (Server,), {"on_message": staticmethod(COROUTINES[kind])})
    with pytest.raises(TypeError, match=r"Made.on_message is a coroutine function"):
        WebSocketMiddleware(application, ThreadHandler, [("/", server)])
    with pytest.raises(TypeError, match=r"Made.on_message is a coroutine function"):
        WebSocket().server("/")(server)
    assert AsyncioWebSocket().server("/")(server) is server


def test_flasks_decorators_around_an_object() -> None:
    # Flask's own ensure_sync, which Flask-Login and others call, does not know such an object for
    # a coroutine function, and calls it: what it gives is awaited all the same.
    app = make_app()
    websocket = AsyncioWebSocket(app)

    def ensured(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function, updated=())
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return app.ensure_sync(function)(*args, **kwargs)

        return wrapper

    for number, kind in enumerate(COROUTINES):
        websocket.add_url_rule(f"/{number}", kind.replace(" ", "-"), ensured(COROUTINES[kind]))
        with websocket.test_client().connect(f"/{number}") as connection:
            assert connection.receive() == "hello", kind
