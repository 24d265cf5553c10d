"""`UWSGIWebSocketClient`: uWSGI's own functions, as they are, behind the same routes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.server import Server, eventually


@pytest.fixture(params=["threads", "gevent"])
def own_api(request: pytest.FixtureRequest, shared_server) -> Server:
    return shared_server(request.param, app="own_api")


def test_echo(own_api: Server) -> None:
    with own_api.raw() as client:
        for size in (1, 126, 70_000):
            client.echo("x" * size)


@pytest.mark.slow
def test_binary(own_api: Server) -> None:
    with own_api.raw("/binary") as client:
        client.binary(b"\x00\xff")
        assert client.message() == b"\x00\xff"


@pytest.mark.slow
def test_a_shared_area(own_api: Server) -> None:
    with own_api.raw("/sharedarea") as client:
        assert client.message() == "shared"


@pytest.mark.parametrize("way", ["abort", "close"])
def test_leaving_gives_the_core_back(own_api: Server, way: str) -> None:
    client = own_api.raw()
    client.echo("x")
    getattr(client, way)()
    own_api.wait_idle()


def test_an_exception_ends_the_connection(own_api: Server) -> None:
    with own_api.raw("/raise") as client:
        eventually(lambda: figures(own_api)["/raise"]["open"] == 1, "it to be counted")
        client.text("now")
        assert client.ended()
    own_api.wait_idle()
    eventually(lambda: figures(own_api)["/raise"]["open"] == 0, "its end to be counted")
    found = figures(own_api)["/raise"]
    assert (found["open"], found["accepted"], found["errors"]) == (0, 1, 1)
    assert found["closed"]["lost"] == {"1006": 1}
    assert "ValueError: raised on purpose" in own_api.new_log()
    own_api.allow_log("Traceback")


def figures(server: Server) -> Any:
    return json.loads(server.get("/figures").body)


def test_its_connections_count_too(shared_server) -> None:
    config = {"UWSGI_WEBSOCKET_MAX_CONNECTIONS": 1}
    server = shared_server("threads", app="own_api", config=config)
    for _ in range(2):
        with server.raw() as client:
            client.echo("x")
            assert server.refused().status == 429
        server.wait_idle()
