"""What every backplane promises, of Redis and Valkey: one server, and a cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flask_uwsgi_websocket.rooms.backplane import Backplane, BackplaneOptions
from flask_uwsgi_websocket.rooms.redis import occupancy
from flask_uwsgi_websocket.rooms.redis.backplane import RedisBackplane
from flask_uwsgi_websocket.testing import BackplaneConformance
from tests.redis_servers import PROGRAMS, RedisCluster, RedisServer, running

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have workers look sooner whether a server still knows who is in rooms."""
    monkeypatch.setattr(occupancy, "RENEW_EVERY", 0.5)


class OneServer(BackplaneConformance):
    timeout = 0.5
    features = RedisBackplane.features
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


class TestCluster(BackplaneConformance):
    """Of three nodes: each keeps the rooms that are its own in one order, as nothing else is."""

    timeout = 1.0
    features = RedisBackplane.features

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _cluster(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        with running(RedisCluster(tmp_path_factory.mktemp("cluster"))) as cluster:
            cls.url = cluster.url
            yield


for _name in dir(TestCluster):
    if _name.startswith("test_") and not getattr(getattr(TestCluster, _name), "features", None):
        setattr(TestCluster, _name, None)


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
