"""The backplane of an app that is tested fails on demand."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_uwsgi_websocket import (
    AsyncioWebSocket,
    BackplaneUnavailable,
    GeventWebSocket,
    Publisher,
    WebSocket,
)
from flask_uwsgi_websocket.testing import RoomFaults

CLASSES = [WebSocket, GeventWebSocket, AsyncioWebSocket]


def make_app(**config: Any) -> Flask:
    app = Flask("under test")
    app.config.update(TESTING=True, UWSGI_WEBSOCKET_AGGRESSIVE_PATCH=False, **config)
    return app


@pytest.fixture(params=CLASSES)
def websocket(request: pytest.FixtureRequest) -> Any:
    websocket = request.param(make_app())

    if request.param is AsyncioWebSocket:

        @websocket.route("/<name>")
        async def talk(ws: Any, name: str) -> None:
            await ws.join(name)
            async for message in ws:
                await ws.to(name).send(message)
    else:

        @websocket.route("/<name>")
        def chat(ws: Any, name: str) -> None:
            ws.join(name)
            for message in ws:
                ws.to(name).send(message)

    return websocket


def test_failing(websocket: Any, caplog: pytest.LogCaptureFixture) -> None:
    app = websocket.app
    client = websocket.test_client()
    with client.connect("/a") as ann, client.connect("/a") as bob, RoomFaults(app) as faults:
        ann.send("1")
        assert bob.receive() == "1"
        faults.fail("the cable was cut")
        ann.send("lost")
        assert ann.receive() is None
        assert ann.close_code == 1013
        with client.connect("/b") as late:
            assert late.receive() is None
        assert late.close_code == 1013
        faults.recover()
        with client.connect("/a") as eve:
            eve.send("2")
            assert bob.receive() == "2"
    assert "the cable was cut" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_view_is_told(websocket: Any) -> None:
    with RoomFaults(websocket.app) as faults:
        faults.fail("gone")
        if not isinstance(websocket, AsyncioWebSocket):
            with pytest.raises(BackplaneUnavailable, match="gone"):
                websocket.to("a").send("x")
        websocket.to("a").send_nowait("x")


def test_losing(websocket: Any, caplog: pytest.LogCaptureFixture) -> None:
    client = websocket.test_client()
    with (
        client.connect("/a") as ann,
        client.connect("/a") as bob,
        RoomFaults(websocket.app) as faults,
    ):
        faults.lose(2)
        for text in ("1", "2", "3"):
            ann.send(text)
        assert bob.receive() == "3"
    assert "may be missing" in caplog.text


def test_a_member_that_joins_again_in_vain_stays_one() -> None:
    app = make_app()
    websocket = WebSocket(app)

    @websocket.route("/")
    def talk(ws: Any) -> None:
        ws.join("a")
        ws.send("in")
        for _ in ws:
            try:
                ws.join("a")
                ws.send("in")
            except BackplaneUnavailable:
                ws.send("in vain")

    with websocket.test_client().connect("/") as ann, RoomFaults(app) as faults:
        faults.fail()
        while ann.receive() == "in":  # it takes a moment until the failure is known
            ann.send("again")
        faults.recover()
        websocket.to("a").send("hi")
        assert ann.receive() == "hi"


def test_all_is_well_again_afterwards(websocket: Any) -> None:
    client = websocket.test_client()
    with RoomFaults(websocket.app) as faults:
        faults.fail()
        faults.lose(10)
    with client.connect("/a") as ann, client.connect("/a") as bob:
        ann.send("1")
        assert bob.receive() == "1"


def test_a_publisher_is_told_too() -> None:
    app = make_app(UWSGI_WEBSOCKET_BACKPLANE="memory://tests")
    WebSocket(app)
    with Publisher.from_config(app.config) as rooms, RoomFaults(app) as faults:
        rooms.to("a").send("x")
        faults.fail()
        with pytest.raises(BackplaneUnavailable):
            rooms.to("a").send("x")


@pytest.mark.parametrize("url", ["local:///tmp/x", "redis://localhost"])
def test_others_do_not_fail_on_demand(url: str) -> None:
    app = make_app(UWSGI_WEBSOCKET_BACKPLANE=url)
    WebSocket(app)
    with pytest.raises(ValueError, match="only a backplane memory://"):
        RoomFaults(app)
    with pytest.raises(ValueError, match="without WebSockets"):
        RoomFaults(Flask("plain"))


def test_the_fixture(tmp_path: Path) -> None:
    code = """
        import pytest
        from flask import Flask
        from flask_uwsgi_websocket import BackplaneUnavailable, WebSocket

        made = Flask("x")
        websocket = WebSocket(made)

        @pytest.fixture
        def app():
            return made

        def test_failing(room_faults):
            room_faults.fail()
            with pytest.raises(BackplaneUnavailable):
                websocket.to("a").send("x")

        def test_afterwards():
            websocket.to("a").send("x")
    """
    (tmp_path / "test_x.py").write_text(textwrap.dedent(code))
    (tmp_path / "pytest.ini").write_text("[pytest]")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "2 passed" in done.stdout, done.stdout
