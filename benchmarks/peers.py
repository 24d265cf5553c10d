"""Who takes part, and how each server is started.

One worker process for each, on 127.0.0.1. Those of a *kind* wait for their connections in the same
way, so that a user of one could use the other: ``threads``, ``gevent``, ``asyncio`` (its own loop)
and ``uvloop``. ``other`` are those with a loop that Python does not have; ``ceiling`` are picows
and a loop in C, which do less than the others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from benchmarks.peer import ROOT, SERVERS, CPeer, NodePeer, Peer
from flask_uwsgi_websocket.inspection.binaries import find_uwsgi

ORIGINAL = ROOT / "benchmarks" / ".peers" / "original"

#: The connections that a peer with a thread for each is asked to hold.
MOST_THREADS = 100

OURS = {
    "threads": "ours-threads",
    "gevent": "ours-gevent",
    "asyncio": "ours-asyncio",
    "uvloop": "ours-uvloop",
    "other": "ours-uvloop",
    "ceiling": "ours-uvloop",
}


def _script(name: str) -> Callable[[int, int], list[str]]:
    return lambda port, cores: [sys.executable, str(SERVERS / f"{name}.py")]


def _module(name: str, *arguments: str) -> Callable[[int, int], list[str]]:
    """A server that is a module, ``{port}`` and ``{cores}`` filled in."""

    def command(port: int, cores: int) -> list[str]:
        filled = (argument.format(port=port, cores=cores) for argument in arguments)
        return [sys.executable, "-m", name, *filled]

    return command


#: Flask-SocketIO takes gevent-websocket where it is installed, and simple-websocket otherwise.
SOCKETIO_WORKER, SOCKETIO_PACKAGE = (
    ("geventwebsocket.gunicorn.workers.GeventWebSocketWorker", "gevent-websocket")
    if find_spec("geventwebsocket")
    else ("gevent", "simple-websocket")
)


def _gunicorn(app: str, *arguments: str) -> Callable[[int, int], list[str]]:
    return _module(
        "gunicorn",
        f"benchmarks.servers.{app}",
        "--bind=127.0.0.1:{port}",
        "--workers=1",
        *arguments,
    )


def _uwsgi(engine: str, app: str, binary: Path | None = None) -> Callable[[int, int], list[str]]:
    def command(port: int, cores: int) -> list[str]:
        return [
            *(str(binary) if binary else find_uwsgi(), "--http-socket", f"127.0.0.1:{port}"),
            *("--master", "--enable-threads", "--die-on-term", "--need-app", "--disable-logging"),
            *(f"--{engine}", str(cores), "--websocket-max-size", "4096"),
            *("--virtualenv", str(binary.parent.parent) if binary else sys.prefix),
            *("--wsgi", app),
        ]

    return command


def _ours(kind: str, label: str, front: str = "http-socket", uvloop: bool = False) -> Peer:
    engine = "asyncio" if kind == "uvloop" else kind
    environment = {
        "BENCHMARK_ENGINE": engine,
        "BENCHMARK_FRONT": front,
        "FLASK_UWSGI_UVLOOP": "1" if uvloop else "0",
    }
    needs = {"threads": (), "gevent": ("gevent",), "asyncio": ("greenlet",)}[engine]
    return Peer(
        name=f"ours-{kind}" + ("-router" if front == "http" else ""),
        label=label,
        kind=kind,
        command=_script("ours"),
        packages=("uWSGI", "Flask", *needs, *(("uvloop",) if uvloop else ())),
        environment=environment,
        compresses=True,
        most=MOST_THREADS if engine == "threads" else None,
    )


def _bare(engine: str) -> Peer:
    return Peer(
        name=f"uwsgi-{engine}",
        label=f"uWSGI's API, {engine}",
        kind=engine,
        command=_uwsgi(engine, "benchmarks.servers.uwsgi_api"),
        packages=("uWSGI", *(("gevent",) if engine == "gevent" else ())),
        environment={"BENCHMARK_ENGINE": engine},
        most=MOST_THREADS if engine == "threads" else None,
        sends_to_others=False,
    )


def _original(engine: str) -> Peer:
    return Peer(
        name=f"original-{engine}",
        label=f"Flask-uWSGI-WebSocket 0.6, {engine}",
        kind=engine,
        command=_uwsgi(engine, "original:app", ORIGINAL / "bin" / "uwsgi"),
        packages=("uWSGI", "Flask-uWSGI-WebSocket", "Flask", "Werkzeug", "gevent"),
        environment={"BENCHMARK_ENGINE": engine},
        most=MOST_THREADS if engine == "threads" else None,
        python=ORIGINAL / "bin" / "python",
    )


def _uvicorn(implementation: str, package: str) -> Peer:
    return Peer(
        name=f"uvicorn-{implementation}",
        label=f"Starlette, uvicorn, {implementation}",
        kind="uvloop",
        command=_module(
            "uvicorn",
            *("benchmarks.servers.with_starlette:app", "--host=127.0.0.1", "--port={port}"),
            *("--loop=uvloop", f"--ws={implementation}", "--log-level=warning"),
        ),
        packages=("uvicorn", "starlette", package, "uvloop"),
        compresses=True,
    )


def _flask_sock(worker: str, kind: str, *arguments: str) -> Peer:
    return Peer(
        name=f"flask-sock-{worker}",
        label=f"Flask-Sock, gunicorn, {worker}",
        kind=kind,
        command=_gunicorn("with_flask_sock:app", f"--worker-class={worker}", *arguments),
        packages=(
            *("Flask-Sock", "simple-websocket", "wsproto", "Flask", "gunicorn"),
            *(("gevent",) if kind == "gevent" else ()),
        ),
        compresses=True,
        most=MOST_THREADS if kind == "threads" else None,
    )


#: Those that the bars compare stand near each other, since they take turns in this order.
PEERS = (
    CPeer(
        name="c",
        label="C: epoll, recv, send",
        kind="ceiling",
        command=_script("bare_c"),
        packages=(),
    ),
    Peer(
        name="picows",
        label="picows",
        kind="ceiling",
        command=_script("with_picows"),
        packages=("picows", "uvloop"),
    ),
    _ours("uvloop", "ours, asyncio + uvloop", uvloop=True),
    NodePeer(
        name="ws",
        label="Node's ws",
        kind="other",
        command=lambda port, cores: ["node", str(SERVERS / "with_ws.js")],
        packages=("ws",),
        compresses=True,
    ),
    Peer(
        name="socketify",
        label="socketify (uWebSockets)",
        kind="other",
        command=_script("with_socketify"),
        packages=("socketify",),
        compresses=True,
    ),
    Peer(
        name="granian",
        label="RSGI, granian",
        kind="uvloop",
        command=_module(
            "granian",
            *("--interface=rsgi", "--host=127.0.0.1", "--port={port}", "--loop=uvloop"),
            *("--log-level=warning", "--ws", "benchmarks.servers.with_granian:app"),
        ),
        packages=("granian", "uvloop"),
    ),
    Peer(
        name="sanic",
        label="Sanic",
        kind="uvloop",
        command=_script("with_sanic"),
        packages=("sanic", "websockets", "uvloop"),
    ),
    _uvicorn("websockets-sansio", "websockets"),
    _uvicorn("websockets", "websockets"),
    _uvicorn("wsproto", "wsproto"),
    Peer(
        name="aiohttp-uvloop",
        label="aiohttp, uvloop",
        kind="uvloop",
        command=_script("with_aiohttp"),
        packages=("aiohttp", "uvloop"),
        environment={"BENCHMARK_UVLOOP": "1"},
        compresses=True,
    ),
    Peer(
        name="aiohttp",
        label="aiohttp",
        kind="asyncio",
        command=_script("with_aiohttp"),
        packages=("aiohttp",),
        compresses=True,
    ),
    _ours("asyncio", "ours, asyncio"),
    Peer(
        name="websockets",
        label="websockets",
        kind="asyncio",
        command=_script("with_websockets"),
        packages=("websockets",),
        compresses=True,
    ),
    Peer(
        name="quart",
        label="Quart, hypercorn",
        kind="asyncio",
        command=_module(
            "hypercorn", "benchmarks.servers.with_quart:app", "--bind=127.0.0.1:{port}"
        ),
        packages=("Quart", "Hypercorn", "wsproto"),
        compresses=True,
    ),
    _ours("gevent", "ours, gevent"),
    _ours("gevent", "ours, gevent, app.run's router", front="http"),
    _flask_sock("gevent", "gevent", "--worker-connections={cores}"),
    _original("gevent"),
    _bare("gevent"),
    Peer(
        name="flask-socketio",
        label="Flask-SocketIO, gunicorn, gevent",
        kind="gevent",
        command=_gunicorn(
            "with_flask_socketio:app",
            f"--worker-class={SOCKETIO_WORKER}",
            "--worker-connections={cores}",
        ),
        packages=(
            *("Flask-SocketIO", "python-socketio", "python-engineio", SOCKETIO_PACKAGE),
            *("Flask", "gunicorn", "gevent"),
        ),
        path="/socket.io/?EIO=4&transport=websocket",
        dialect="socket.io",
    ),
    _ours("threads", "ours, threads"),
    _flask_sock("gthread", "threads", "--threads={cores}"),
    _original("threads"),
    _bare("threads"),
)

BY_NAME = {peer.name: peer for peer in PEERS}
