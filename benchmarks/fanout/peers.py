"""Who takes part, and how the processes of each are started: `WORKERS` of them, on as many ports.

Ours is one uWSGI, each of whose workers has a port to itself; the others are as many instances as a
proxy would choose from. All but ours on its own backplane publish through one Redis.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.peer import NodePeer, Peer
from benchmarks.peers import SOCKETIO_PACKAGE, SOCKETIO_WORKER
from flask_uwsgi_websocket.inspection.binaries import find_uwsgi

SERVERS = "benchmarks.fanout.servers"
FOLDER = "benchmarks/fanout/servers"

#: Members in all that a peer with a thread for each is asked to hold.
MOST_THREADS = 1000


@dataclass(frozen=True)
class RoomPeer(Peer):
    """A server with rooms; `command` starts one of its instances.

    :param redis: whether its workers talk through a Redis.
    :param whole: whether one instance has all the workers, and all the ports.
    """

    redis: bool = True
    whole: bool = False

    def missing(self) -> str | None:
        if self.redis and shutil.which("redis-server") is None:
            return "there is no redis-server"
        if shutil.which("cc") is None:
            return "there is no C compiler for the client"
        return super().missing()

    def surroundings(self, ports: Sequence[int], cores: int, redis: str | None) -> dict[str, str]:
        """Environment variables for an instance on these ports."""
        variables = self.variables(ports[0], cores, compression=False)
        variables["BENCHMARK_PORTS"] = ",".join(map(str, ports))
        if redis:
            variables["BENCHMARK_REDIS"] = redis
        return variables


@dataclass(frozen=True)
class NodeRoomPeer(RoomPeer, NodePeer):
    """A server for Node, with rooms."""


def _module(name: str, *arguments: str) -> Callable[[int, int], list[str]]:
    """An instance that is a module, ``{port}`` and ``{cores}`` filled in."""

    def command(port: int, cores: int) -> list[str]:
        filled = (argument.format(port=port, cores=cores) for argument in arguments)
        return [sys.executable, "-m", name, *filled]

    return command


def _ours(kind: str, redis: bool) -> RoomPeer:
    engine = "asyncio" if kind == "uvloop" else kind
    needs = {"threads": (), "gevent": ("gevent",), "asyncio": ("greenlet",)}[engine]
    return RoomPeer(
        name=f"ours-{kind}-{'redis' if redis else 'local'}",
        label=f"ours, {kind}, {'Redis' if redis else 'local'}",
        kind=kind,
        command=lambda port, cores: [sys.executable, f"{FOLDER}/ours.py"],
        packages=(
            *("uWSGI", "Flask", *needs),
            *(("uvloop",) if kind == "uvloop" else ()),
            *(("redis",) if redis else ()),
        ),
        environment={
            "BENCHMARK_ENGINE": engine,
            "FLASK_UWSGI_UVLOOP": "1" if kind == "uvloop" else "0",
        },
        path="/rooms/ready",
        most=MOST_THREADS if engine == "threads" else None,
        redis=redis,
        whole=True,
    )


def _socketio_uwsgi(port: int, cores: int) -> list[str]:
    return [
        *(find_uwsgi(), "--http-socket", f"127.0.0.1:{port}", "--virtualenv", sys.prefix),
        *("--master", "--die-on-term", "--need-app", "--disable-logging", "--enable-threads"),
        *("--gevent", str(cores), "--gevent-monkey-patch"),
        *("--wsgi", f"{SERVERS}.with_flask_socketio:app"),
    ]


def _flask_socketio(
    server: str, mode: str, command: Callable[[int, int], list[str]], *packages: str
) -> RoomPeer:
    return RoomPeer(
        name=f"flask-socketio-{server.lower()}",
        label=f"Flask-SocketIO, {server}, gevent",
        kind="python",
        command=command,
        packages=(
            *("Flask-SocketIO", "python-socketio", "python-engineio", *packages),
            *("Flask", "gevent", "redis"),
        ),
        environment={"BENCHMARK_MODE": mode},
        path="/socket.io/?EIO=4&transport=websocket",
        dialect="socket.io",
    )


def _uvicorn(app: str) -> Callable[[int, int], list[str]]:
    return _module(
        "uvicorn",
        *(f"{SERVERS}.{app}:app", "--host=127.0.0.1", "--port={port}", "--loop=uvloop"),
        *("--log-level=warning", "--no-access-log"),
    )


def _channels(layer: str, backend: str) -> RoomPeer:
    return RoomPeer(
        name=f"channels-{layer}",
        label=f"Channels, uvicorn, {layer} layer",
        kind="python",
        command=_uvicorn("with_channels"),
        packages=("channels", "channels-redis", "Django", "uvicorn", "websockets", "uvloop"),
        environment={"BENCHMARK_LAYER": backend},
        path="/rooms/ready",
    )


def _node(name: str, label: str, script: str, *packages: str, dialect: str) -> RoomPeer:
    return NodeRoomPeer(
        name=name,
        label=label,
        kind="node",
        command=lambda port, cores: ["node", f"{FOLDER}/{script}.js"],
        packages=packages,
        path="/rooms/ready" if dialect == "websocket" else "/socket.io/?EIO=4&transport=websocket",
        dialect=dialect,
    )


PEERS = (
    _ours("gevent", redis=False),
    _ours("gevent", redis=True),
    _ours("uvloop", redis=False),
    _ours("uvloop", redis=True),
    _ours("asyncio", redis=False),
    _ours("asyncio", redis=True),
    _ours("threads", redis=False),
    _ours("threads", redis=True),
    _node(
        "ws-redis", "Node's ws, ioredis by hand", "with_ws", "ws", "ioredis", dialect="websocket"
    ),
    _node(
        *("socketio", "Node's Socket.IO, redis-adapter", "with_socketio"),
        *("socket.io", "@socket.io/redis-adapter", "ioredis"),
        dialect="socket.io",
    ),
    RoomPeer(
        name="starlette-redis",
        label="Starlette, uvicorn, Redis by hand",
        kind="python",
        command=_uvicorn("with_starlette"),
        packages=("starlette", "uvicorn", "websockets", "uvloop", "redis"),
        path="/rooms/ready",
    ),
    _channels("pubsub", "channels_redis.pubsub.RedisPubSubChannelLayer"),
    _channels("core", "channels_redis.core.RedisChannelLayer"),
    _flask_socketio(
        "gunicorn",
        "gevent",
        _module(
            "gunicorn",
            *(f"{SERVERS}.with_flask_socketio:app", "--bind=127.0.0.1:{port}", "--workers=1"),
            f"--worker-class={SOCKETIO_WORKER}",
            "--worker-connections={cores}",
        ),
        *("gunicorn", SOCKETIO_PACKAGE),
    ),
    _flask_socketio("uWSGI", "gevent_uwsgi", _socketio_uwsgi, "uWSGI"),
)

BY_NAME = {peer.name: peer for peer in PEERS}
