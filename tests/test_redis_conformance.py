"""What every backplane promises, of Redis and Valkey: one server, and a cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flask_uwsgi_websocket.rooms.backplane import Backplane, BackplaneOptions
from flask_uwsgi_websocket.rooms.redis.backplane import RedisBackplane
from flask_uwsgi_websocket.testing import BackplaneConformance
from tests.redis_servers import PROGRAMS, RedisServer

pytestmark = pytest.mark.slow


class OneServer(BackplaneConformance):
    timeout = 0.5
    program = "redis-server"
    query = ""

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        server = RedisServer(tmp_path_factory.mktemp("redis"), program=cls.program)
        cls.server = server.start()
        cls.url = server.url + cls.query
        yield
        server.kill()

    server: RedisServer

    def backplane(self, options: BackplaneOptions) -> Backplane:
        return RedisBackplane(self.url, options)


class WithFaults(OneServer):
    def fail(self) -> None:
        self.server.kill()

    def pause(self) -> None:
        self.server.pause()

    def lose(self) -> None:
        self.server.call("CLIENT", "KILL", "TYPE", "pubsub")
        self.server.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def recover(self) -> None:
        if self.server.running:
            self.server.resume()
        else:
            self.server.start()


class TestRedis(WithFaults):
    """Debian's, by RESP2."""


class TestRedis3(OneServer):
    """By RESP3."""

    query = "?protocol=3"


@pytest.mark.skipif("valkey" not in PROGRAMS, reason="no Valkey for this version of Python")
class TestValkey(WithFaults):
    """Of today."""

    program = PROGRAMS.get("valkey", "")
