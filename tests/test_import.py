"""Importing the package needs nothing but Flask, and changes nothing."""

from __future__ import annotations

import importlib
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


MISSING = "import sys\nfor name in {names!r}: sys.modules[name] = None\n"

PUBLIC = [
    "AsyncWebSocket",
    "AsyncioNotAvailable",
    "AsyncioWebSocket",
    "AsyncioWebSocketClient",
    "AsyncioWebSocketMiddleware",
    "ConnectionClosed",
    "GeventNotInstalled",
    "GeventWebSocket",
    "GeventWebSocketClient",
    "GeventWebSocketMiddleware",
    "UWSGIWebSocketClient",
    "WebSocket",
    "WebSocketClient",
    "WebSocketError",
    "WebSocketMiddleware",
]


@pytest.mark.slow
def test_public_names_without_uwsgi_gevent_and_greenlet() -> None:
    code = MISSING.format(names=["uwsgi", "gevent", "greenlet"]) + (
        "import flask_uwsgi_websocket as package\n"
        f"print([name for name in {PUBLIC!r} if not hasattr(package, name)])\n"
        "print(sorted(set(package.__all__) - set(dir(package))))"
    )
    assert python(code) == "[]\n[]"


PUBLIC_MODULES = {
    "pytest_plugin": ["room_faults", "websocket_client"],
    "runner": ["find_uwsgi", "run_uwsgi"],
    "testing": [
        "BackplaneConformance",
        "HandshakeRejected",
        "RoomFaults",
        "WebSocketTestClient",
        "WebSocketTestConnection",
    ],
    "uwasp": [
        "AsyncioHandler",
        "ConnectionClosed",
        "GeventHandler",
        "Handler",
        "HandshakeError",
        "Limits",
        "Server",
        "ThreadHandler",
        "WebSocket",
        "WebSocketMiddleware",
    ],
    # Of 0.6.
    "websocket": ["WebSocket", "WebSocketClient", "WebSocketMiddleware"],
}


@pytest.mark.parametrize("name", PUBLIC_MODULES)
def test_public_names_of_modules(name: str) -> None:
    module = importlib.import_module(f"flask_uwsgi_websocket.{name}")
    assert [name for name in PUBLIC_MODULES[name] if not hasattr(module, name)] == []


@pytest.mark.slow
def test_importing_loads_no_engine_and_patches_nothing() -> None:
    code = (
        "import socket, sys, threading, time\n"
        "before = socket.socket, threading.Thread.start, time.sleep, threading.get_ident\n"
        "import flask_uwsgi_websocket\n"
        "after = socket.socket, threading.Thread.start, time.sleep, threading.get_ident\n"
        "print(before == after, [n for n in ('gevent', 'greenlet', 'uwsgi') if n in sys.modules])\n"
        "from gevent import monkey\n"
        "print(any(map(monkey.is_module_patched, ('socket', 'threading', 'time', 'os'))))"
    )
    assert python(code) == "True []\nFalse"


@pytest.mark.slow
def test_the_extension_needs_no_uwsgi_until_it_serves() -> None:
    code = MISSING.format(names=["uwsgi", "gevent", "greenlet"]) + (
        "import flask\n"
        "from flask_uwsgi_websocket import WebSocket\n"
        "app = flask.Flask('x')\n"
        "websocket = WebSocket(app)\n"
        "@websocket.route('/echo')\n"
        "def echo(ws): pass\n"
        "@app.get('/')\n"
        "def index(): return 'works'\n"
        "print(app.test_client().get('/').text)"
    )
    assert python(code) == "works"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extension", "missing", "error"),
    [
        ("GeventWebSocket", "gevent", "GeventNotInstalled"),
        ("AsyncioWebSocket", "greenlet", "AsyncioNotAvailable"),
    ],
)
def test_a_missing_engine_is_named_when_it_is_used(
    extension: str, missing: str, error: str
) -> None:
    code = MISSING.format(names=[missing]) + (
        "import flask\n"
        f"from flask_uwsgi_websocket import {extension}, {error}, WebSocketError\n"
        "try:\n"
        f"    {extension}(flask.Flask('x'))\n"
        f"except {error} as error:\n"
        "    print(isinstance(error, WebSocketError), error)\n"
    )
    answer = python(code)
    assert answer.startswith("True ")
    assert "install" in answer
    assert missing in answer


@pytest.mark.slow
def test_gevent_is_patched_when_the_extension_meets_an_app() -> None:
    code = (
        "import flask\n"
        "from flask_uwsgi_websocket import GeventWebSocket\n"
        "from gevent import monkey\n"
        "app = flask.Flask('x'); app.config['UWSGI_WEBSOCKET_AGGRESSIVE_PATCH'] = {patch}\n"
        "GeventWebSocket(app)\n"
        "print(monkey.is_module_patched('socket'))"
    )
    assert python(code.format(patch=True)) == "True"
    assert python(code.format(patch=False)) == "False"


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python always has a GIL"
)
def test_a_free_threaded_python_gets_its_gil() -> None:
    """What is in C counts on it: docs/installation.rst says so."""
    code = """if True:
        import sys, warnings
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            import flask_uwsgi_websocket
        print(sys._is_gil_enabled(), {warning.category.__name__ for warning in told})
    """
    assert python(code) == "True {'RuntimeWarning'}"
