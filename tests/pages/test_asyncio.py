"""The code of docs/asyncio.rst, as it stands there."""

from __future__ import annotations

import asyncio
import sys
from functools import wraps
from typing import Any

import flask
import pytest

from flask_uwsgi_websocket import AsyncioWebSocket
from tests.pages import Page

PAGE = Page("asyncio")


def of_asyncio(**names: Any) -> dict[str, Any]:
    app = flask.Flask("shop")
    return {"app": app, "websocket": AsyncioWebSocket(app), "asyncio": asyncio, **names}


async def look_up(symbol: str, what: str) -> str:
    return f"{symbol}: {what}"


def test_a_ticker() -> None:
    names = PAGE.run("def ticker", **of_asyncio(look_up=look_up))
    with names["websocket"].test_client(names["app"]).connect("/ticker/GOOG") as conn:
        conn.send("price")
        assert conn.receive() == "GOOG: price"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TaskGroup is of Python 3.11")
def test_tasks_of_a_handler() -> None:
    stored = []

    async def send_news(ws: Any) -> None:
        await ws.send("news")
        await asyncio.Event().wait()

    async def store(message: str) -> None:
        stored.append(message)

    names = PAGE.run("async def feed", **of_asyncio(send_news=send_news, store=store))
    with names["websocket"].test_client(names["app"]).connect("/feed") as conn:
        assert conn.receive() == "news"
        conn.send("hi")
    assert stored == ["hi"]


def test_a_decorator_that_knows_no_asyncio() -> None:
    def login_required(view: Any) -> Any:
        # As Flask-Login's does.
        @wraps(view)
        def decorated(*args: Any, **kwargs: Any) -> Any:
            return flask.current_app.ensure_sync(view)(*args, **kwargs)

        return decorated

    class current_user:
        name = "Ada"

    names = PAGE.run(
        "async def account", **of_asyncio(login_required=login_required, current_user=current_user)
    )
    with names["websocket"].test_client(names["app"]).connect("/account") as conn:
        assert conn.receive() == "Hello, Ada"


def test_a_view_that_waits() -> None:
    # It waits inside of uWSGI only, as tests/test_asyncio.py has it do.
    names = PAGE.run("run_coroutine(look_up", **of_asyncio(look_up=look_up))
    assert names["app"].test_client().get("/price/GOOG").status_code == 500
