"""The code of docs/uwasp.rst, as it stands there."""

from __future__ import annotations

from typing import Any

import flask
import pytest

import flask_uwsgi_websocket
from flask_uwsgi_websocket.uwasp import Server, ThreadHandler, WebSocketMiddleware
from tests.pages import Page

PAGE = Page("uwasp")


def connect(names: dict[str, Any], path: str) -> Any:
    return names["websocket"].test_client(names["app"]).connect(path)


def test_an_echo_on_any_application(capsys: pytest.CaptureFixture[str]) -> None:
    names = PAGE.run("WebSocketMiddleware(application", application=flask.Flask("shop").wsgi_app)
    assert isinstance(names["application"], WebSocketMiddleware)
    # Its connections need a server: here the class alone, in Flask.
    websocket = names["websocket"]
    websocket.server("/echo")(names["Echo"])
    with connect(names, "/echo") as conn:
        assert conn.receive() == "hello"
        conn.send("hi")
        assert conn.receive() == "hi"
    assert capsys.readouterr().out == "gone\n"


def test_an_echo_in_flask() -> None:
    names = PAGE.run("@websocket.server('/echo')", Server=Server)
    assert isinstance(names["websocket"], flask_uwsgi_websocket.WebSocket)
    with connect(names, "/echo") as conn:
        conn.send("hi")
        assert conn.receive() == "hi"


def test_a_chat() -> None:
    names = PAGE.run("class Chat(Server)", Server=Server)
    names["websocket"].server("/chat")(names["Chat"])
    with connect(names, "/chat") as ann, connect(names, "/chat") as bob:
        ann.send("hi")
        assert bob.receive() == "hi"


def test_a_handler_that_counts() -> None:
    counted = []

    class statistics:
        count = counted.append

    names = PAGE.run("class Counting", GeventHandler=Quiet, statistics=statistics)
    names["Counting"](None, None).handle({"PATH_INFO": "/chat"})
    assert counted == ["/chat"]


class Quiet(ThreadHandler):
    """A handler that has no connection."""

    def __init__(self, ws: Any, server: Any) -> None:
        pass

    def handle(self, environ: Any, protocol_name: str | None = None) -> list[bytes]:
        return []


def test_variables_of_the_url() -> None:
    names = PAGE.run("'/room/<name>'", Server=Server)
    with connect(names, "/room/lobby") as conn:
        assert conn.receive() == "Welcome to lobby"
