"""The apps of docs/moving.rst, before and after: both serve the same conversation.

What can still be had of the other packages runs as its documentation has it.
"""

from __future__ import annotations

import json
import shutil
import sys
import urllib.request
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.pages.serving import UWSGI, serving
from tests.server import PATIENCE, ROOT, eventually, free_port, uwsgi_binary

APPS = ROOT / "examples" / "moving"


def under_uwsgi(module: str, folder: Path, processes: int = 2) -> AbstractContextManager[str]:
    port = free_port()
    copied = Path(shutil.copy(APPS / f"{module}.py", folder))
    # Its only difference to ours, it says, is where it is imported from.
    copied.write_text(
        copied.read_text().replace("from uwasp ", "from flask_uwsgi_websocket.uwasp ")
    )
    command = [uwsgi_binary(), "--http-socket", f"127.0.0.1:{port}", *UWSGI]
    command += ["--processes", str(processes), "--wsgi", f"{module}:app"]
    return serving(command, port, folder)


def under_flask(module: str, folder: Path) -> AbstractContextManager[str]:
    port = free_port()
    shutil.copy(APPS / f"{module}.py", folder)
    command = [sys.executable, "-m", "flask", "--app", module, "run", "--port", str(port)]
    return serving(command, port, folder)


def opened(address: str, name: str) -> ClientConnection:
    url = f"ws://{address}/chat?name={name}"
    return connect(url, open_timeout=PATIENCE, proxy=None)


def converse(address: str) -> None:
    """Two visitors hear what one of them says."""
    with opened(address, "ada") as ada, opened(address, "bob") as bob:
        # The handshake is answered before a handler notes its client.
        def heard() -> bool:
            ada.send("hello")
            try:
                return bool(bob.recv(0.5))
            except TimeoutError:
                return False

        eventually(heard, "Bob to hear")
        assert json.loads(ada.recv(PATIENCE)) == {"name": "ada", "text": "hello"}


AFTER = ["from_0_6", "flask_sock", "flask_sockets", "flask_socketio", "uwasp"]


@pytest.mark.slow
@pytest.mark.parametrize("name", AFTER)
def test_after(name: str, tmp_path: Path) -> None:
    with under_uwsgi(f"{name}_after", tmp_path) as address:
        converse(address)
        if name == "flask_socketio":
            hear_an_announcement(address)


def hear_an_announcement(address: str) -> None:
    request = urllib.request.Request(f"http://{address}/announce", method="POST")
    with opened(address, "ada") as ada:
        # The other worker need not know yet that this one has got its first client.
        def heard() -> bool:
            urllib.request.urlopen(request, timeout=PATIENCE).close()
            try:
                return "We close at ten" in ada.recv(0.5)
            except TimeoutError:
                return False

        eventually(heard, "the announcement")


@pytest.mark.slow
def test_from_0_6_as_it_was(tmp_path: Path) -> None:
    """With one line of configuration the old code serves on."""
    module = "from_0_6_before"
    code = (APPS / f"{module}.py").read_text()
    legacy = code.replace(
        "websocket = Gevent",
        'app.config["UWSGI_WEBSOCKET_LEGACY"] = True\nwebsocket = Gevent',
    )
    assert legacy != code
    (tmp_path / "old.py").write_text(legacy)
    port = free_port()
    command = [uwsgi_binary(), "--http-socket", f"127.0.0.1:{port}", *UWSGI]
    command += ["--wsgi", "old:app"]
    with serving(command, port, tmp_path) as address:
        converse(address)


@pytest.mark.slow
def test_uwasp_as_it_was(tmp_path: Path) -> None:
    with under_uwsgi("uwasp_before", tmp_path, processes=1) as address:
        converse(address)


@pytest.mark.slow
def test_flask_sock_as_it_was(tmp_path: Path) -> None:
    with under_flask("flask_sock_before", tmp_path) as address:
        converse(address)


@pytest.mark.slow
def test_flask_socketio_as_it_was(tmp_path: Path) -> None:
    """Spoken to as its client does: Engine.IO's 40, and events as 42[...]."""
    with under_flask("flask_socketio_before", tmp_path) as address:
        url = f"ws://{address}/socket.io/?EIO=4&transport=websocket&name="
        with (
            connect(url + "ada", proxy=None) as ada,
            connect(url + "bob", proxy=None) as bob,
        ):
            for socket in (ada, bob):
                assert socket.recv(PATIENCE).startswith("0")
                socket.send("40")
                assert socket.recv(PATIENCE).startswith("40")
            ada.send('42["message","hello"]')
            for socket in (ada, bob):
                event = json.loads(socket.recv(PATIENCE)[2:])
                assert event == ["message", {"name": "ada", "text": "hello"}]


@pytest.mark.parametrize("path", sorted(APPS.glob("*.py")), ids=lambda path: path.stem)
def test_each_app_is_on_the_page(path: Path) -> None:
    compile(path.read_text(), str(path), "exec")
    page = (ROOT / "docs/moving.rst").read_text()
    assert f"literalinclude:: ../examples/moving/{path.name}" in page
