"""Where it isn't Linux: the package imports, and serves developers, without what only Linux has."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

MACOS = """
import os, select
for module, names in ((select, ("epoll",)), (os, ("eventfd", "eventfd_write", "eventfd_read"))):
    for name in [*names, *(n for n in dir(module) if n.startswith(("EPOLL", "EFD_")))]:
        if hasattr(module, name): delattr(module, name)
"""
WINDOWS = (
    MACOS
    + """
import ctypes, selectors, signal, socket, sys
selectors.DefaultSelector = selectors.SelectSelector
import asyncio  # which on Windows is another one, and needs none of these
for module, names in (
    (select, ("poll",)),
    (signal, ("SIGHUP", "pthread_sigmask", "sigwait")),
    (socket, ("MSG_DONTWAIT", "MSG_NOSIGNAL")),
):
    for name in names: delattr(module, name)
def refuse(name): raise TypeError("bad argument type for built-in operation")
ctypes.CDLL = refuse
for name in ("resource", "fcntl", "uwsgi", "flask_uwsgi_websocket.connection._socket_speedups"):
    sys.modules[name] = None
"""
)
APP = """
from flask import Flask
from flask_uwsgi_websocket import WebSocket, AsyncioWebSocket
from flask_uwsgi_websocket.connection import sending
sending.HAS_SENDMSG = sending.HAS_SENDMSG and bool(sending.SEND_FLAGS)
app = Flask("x"); app.testing = True
threads, loop = WebSocket(app, timeout=1), AsyncioWebSocket(app, timeout=1)

@threads.route("/threads")
def of_threads(ws):
    for msg in ws: ws.send(msg)

@threads.route("/flood")
def flood(ws):
    for number in range(64): ws.send(b"x" * 65536)
    ws.receive()

@loop.route("/loop")
async def of_loop(ws):
    async for msg in ws: await ws.send(msg)

client = threads.test_client()
for path in ("/threads", "/loop"):
    with client.connect(path) as conn:
        for message in ("hi", "x" * 1_000_000, b"bytes"):
            conn.send(message)
            assert conn.receive() == message
        try: conn.receive(timeout=0.05)
        except TimeoutError: pass
        else: raise AssertionError
with client.connect("/flood") as conn:
    import time; time.sleep(0.2)
    assert sum(len(conn.receive()) for _ in range(64)) == 64 * 65536
assert conn.close_code == 1000
print("served")
"""


@pytest.mark.slow
@pytest.mark.parametrize("platform", [MACOS, WINDOWS], ids=["macOS", "Windows"])
def test_serving(platform: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(platform + APP)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("served\n", "")
