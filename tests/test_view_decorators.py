"""Decorators that are made for views, around handlers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
from flask import Flask, abort, current_app, make_response, request

from flask_uwsgi_websocket import AsyncioWebSocket, GeventWebSocket, WebSocket
from flask_uwsgi_websocket.testing import HandshakeRejected

Handler = Callable[..., Any]
CLASSES = [WebSocket, GeventWebSocket, AsyncioWebSocket]


# As they are written, in their authors' documentation.


def no_cache(view: Handler) -> Handler:
    @wraps(view)
    def decorated(*args: Any, **kwargs: Any) -> Any:
        response = make_response(view(*args, **kwargs))
        response.headers["Cache-Control"] = "no-store"
        return response

    return decorated


def cross_origin(view: Handler) -> Handler:
    # As Flask-CORS, which asks Flask to run coroutine functions.
    @wraps(view)
    def decorated(*args: Any, **kwargs: Any) -> Any:
        if request.method == "OPTIONS":
            response = current_app.make_default_options_response()
        else:
            response = make_response(current_app.ensure_sync(view)(*args, **kwargs))
        response.headers.add("Access-Control-Allow-Origin", "*")
        return response

    return decorated


def with_status(view: Handler) -> Handler:
    @wraps(view)
    def decorated(*args: Any, **kwargs: Any) -> Any:
        return view(*args, **kwargs), 200, {"X-Frame-Options": "DENY"}

    return decorated


def two_arguments(view: Handler) -> Handler:
    @wraps(view)
    def decorated(*args: Any, **kwargs: Any) -> Any:
        return make_response(view(*args, **kwargs), 200)

    return decorated


def awaiting(view: Handler) -> Handler:
    @wraps(view)
    async def decorated(*args: Any, **kwargs: Any) -> Any:
        response = make_response(await view(*args, **kwargs))
        response.headers["Cache-Control"] = "no-store"
        return response

    return decorated


def takes_it_for_a_response(view: Handler) -> Handler:
    @wraps(view)
    def decorated(*args: Any, **kwargs: Any) -> Any:
        response = view(*args, **kwargs)
        response.headers["Cache-Control"] = "no-store"
        return response

    return decorated


def looks_into_it(view: Handler) -> Handler:
    @wraps(view)
    def decorated(*args: Any, **kwargs: Any) -> Any:
        return view(*args, **kwargs)["key"]

    return decorated


def fails_afterwards(view: Handler) -> Handler:
    @wraps(view)
    def decorated(*args: Any, **kwargs: Any) -> Any:
        view(*args, **kwargs)
        raise OSError("the database is gone, on purpose")

    return decorated


MAKE_RESPONSES = [no_cache, cross_origin, with_status, two_arguments]
USE_NONE = [takes_it_for_a_response, looks_into_it]


@pytest.fixture(params=CLASSES, ids=lambda cls: cls.__name__)
def websocket(request: pytest.FixtureRequest) -> WebSocket:
    app = Flask("under test")
    app.config.update(UWSGI_WEBSOCKET_AGGRESSIVE_PATCH=False)
    extension: type[WebSocket] = request.param
    return extension(app, timeout=1)


def handler_for(websocket: WebSocket, *, uses: bool = True, error: Any = None) -> Handler:
    """A handler of the extension's kind, which ends well unless it shall not."""

    async def coroutine(ws: Any) -> None:
        if uses:
            await ws.send("hello")
        if error is not None:
            raise error

    def plain(ws: Any) -> None:
        if uses:
            ws.send("hello")
        if error is not None:
            raise error

    return coroutine if isinstance(websocket, AsyncioWebSocket) else plain


@pytest.mark.parametrize("decorator", MAKE_RESPONSES)
@pytest.mark.parametrize("lazy", [None, False])
@pytest.mark.parametrize("uses", [True, False])
def test_a_handler_that_ends_well_closes_with_1000(
    websocket: WebSocket,
    decorator: Any,
    lazy: bool | None,
    uses: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    websocket.add_url_rule("/", "it", decorator(handler_for(websocket, uses=uses)), lazy=lazy)
    with caplog.at_level(logging.WARNING), websocket.test_client().connect("/") as connection:
        if uses:
            assert connection.receive() == "hello"
        assert connection.receive() is None
        assert connection.close_code == 1000
    assert not caplog.text


def test_several_around_one(websocket: WebSocket) -> None:
    handler = handler_for(websocket)
    websocket.add_url_rule("/", "it", no_cache(cross_origin(two_arguments(handler))))
    with websocket.test_client().connect("/") as connection:
        assert [connection.receive() for _ in range(2)] == ["hello", None]
        assert connection.close_code == 1000


@pytest.mark.parametrize("uses", [True, False])
def test_one_that_awaits(uses: bool) -> None:
    websocket = AsyncioWebSocket(Flask("under test"), timeout=1)
    websocket.add_url_rule("/", "it", awaiting(handler_for(websocket, uses=uses)))
    with websocket.test_client().connect("/") as connection:
        assert connection.receive() == ("hello" if uses else None)
        assert connection.receive() is None
        assert connection.close_code == 1000


def test_header_fields_of_a_decorator_that_comes_before_the_handshake() -> None:
    # The handler is a coroutine, which runs when its decorators are through.
    websocket = AsyncioWebSocket(Flask("under test"), timeout=1)
    websocket.add_url_rule("/", "it", no_cache(handler_for(websocket)))
    with websocket.test_client().connect("/") as connection:
        assert connection.response.headers["Cache-Control"] == "no-store"
        assert connection.receive() == "hello"


@pytest.mark.parametrize("decorator", USE_NONE)
@pytest.mark.parametrize("extension", [WebSocket, GeventWebSocket])
def test_a_decorator_that_takes_none_for_a_response(
    extension: type[WebSocket], decorator: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = Flask("under test")
    app.config.update(UWSGI_WEBSOCKET_AGGRESSIVE_PATCH=False)
    websocket = extension(app, timeout=1)
    websocket.add_url_rule("/", "it", decorator(handler_for(websocket)))
    with websocket.test_client().connect("/") as connection:
        assert [connection.receive() for _ in range(2)] == ["hello", None]
        assert connection.close_code == 1000
    (record,) = caplog.records
    assert "takes its result for a response" in record.getMessage()
    assert "NoneType" in record.getMessage()


@pytest.mark.parametrize(
    "error", [ValueError("on purpose"), TypeError("NoneType, on purpose"), AttributeError("x")]
)
@pytest.mark.parametrize("decorator", [*MAKE_RESPONSES, *USE_NONE])
def test_the_handler_s_own_exceptions_are_failures(
    websocket: WebSocket, decorator: Any, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    if isinstance(websocket, AsyncioWebSocket) and decorator in USE_NONE:
        return  # they get a coroutine
    websocket.add_url_rule("/", "it", decorator(handler_for(websocket, error=error)))
    with websocket.test_client().connect("/") as connection:
        assert [connection.receive() for _ in range(2)] == ["hello", None]
        assert connection.close_code == 1011
    assert type(error).__name__ in caplog.text


def test_other_failures_of_decorators_are_failures(
    caplog: pytest.LogCaptureFixture,
) -> None:
    websocket = WebSocket(Flask("under test"), timeout=1)
    websocket.add_url_rule("/", "it", fails_afterwards(handler_for(websocket)))
    with websocket.test_client().connect("/") as connection:
        assert [connection.receive() for _ in range(2)] == ["hello", None]
        assert connection.close_code == 1011
    assert "the database is gone" in caplog.text


def test_a_refusal_inside(websocket: WebSocket) -> None:
    def refuses(view: Handler) -> Handler:
        @wraps(view)
        def decorated(*args: Any, **kwargs: Any) -> Any:
            view(*args, **kwargs).close() if asynchronous else None
            abort(403)

        return decorated

    asynchronous = isinstance(websocket, AsyncioWebSocket)
    websocket.add_url_rule("/", "it", no_cache(refuses(handler_for(websocket, uses=False))))
    with pytest.raises(HandshakeRejected) as caught:
        websocket.test_client().connect("/")
    assert caught.value.response.status_code == 403


def test_an_error_handler_that_returns_nothing_is_a_failure(websocket: WebSocket) -> None:
    assert websocket.app is not None
    websocket.app.register_error_handler(ZeroDivisionError, lambda error: None)
    error = ZeroDivisionError("on purpose")
    websocket.add_url_rule("/", "it", no_cache(handler_for(websocket, uses=False, error=error)))
    with pytest.raises(HandshakeRejected) as caught:
        websocket.test_client().connect("/")
    assert caught.value.response.status_code == 500
