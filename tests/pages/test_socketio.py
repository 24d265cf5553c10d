"""The app of docs/socketio.rst on a real uWSGI: Socket.IO and plain WebSockets in one worker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.pages import Page
from tests.pages.serving import UWSGI, serving
from tests.server import PATIENCE, eventually, free_port, uwsgi_binary

PAGE = Page("socketio")


@pytest.mark.slow
def test_both_hear_each_other(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(PAGE.code("SocketIO(app"))
    port = free_port()
    command = [uwsgi_binary(), "--http-socket", f"127.0.0.1:{port}", *UWSGI, "--wsgi", "app:app"]
    with (
        serving(command, port, tmp_path) as address,
        connect(f"ws://{address}/chat", proxy=None) as plain,
        connect(f"ws://{address}/socket.io/?EIO=4&transport=websocket", proxy=None) as theirs,
    ):
        # Engine.IO's opening, Socket.IO's connect, then events.
        assert theirs.recv(PATIENCE).startswith("0")
        theirs.send("40")
        assert theirs.recv(PATIENCE).startswith("40")
        theirs.send('42["message","from Socket.IO"]')
        assert json.loads(theirs.recv(PATIENCE)[2:]) == ["message", "from Socket.IO"]
        eventually(lambda: plain.recv(PATIENCE) == "from Socket.IO", "the plain client to hear")

        plain.send("from a plain one")
        assert plain.recv(PATIENCE) == "from a plain one"
        assert json.loads(theirs.recv(PATIENCE)[2:]) == ["message", "from a plain one"]
