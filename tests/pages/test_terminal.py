"""What pages do from the terminal with an app that runs: one app for all of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.pages import Page
from tests.pages.console import commands
from tests.pages.serving import serving
from tests.server import PATIENCE, eventually, free_port

pytestmark = [pytest.mark.slow, pytest.mark.gevent]

#: By page, what the blocks have in them that are run here.
BLOCKS = {
    "development": ["websocket routes"],
    "engines": ["websocket doctor app.ini"],
    "presence": ["websocket who"],
    "production": ["doctor --emperor"],
    "rooms": ["websocket publish"],
    "troubleshooting": ["doctor app.ini", "websocket routes", "websocket rooms"],
    "watching": ["websocket rooms"],
}

APP = """\
from flask import Flask, request
from flask_uwsgi_websocket import GeventWebSocket

app = Flask('chat')
# Other tests have apps of this name beside this one.
app.config['UWSGI_WEBSOCKET_BACKPLANE'] = 'local://' + app.root_path + '/rooms'
websocket = GeventWebSocket(app)
websocket.room('chat/*', presence=True)

@websocket.identify
def who_is_it():
    return request.args.get('user')

@websocket.route('/echo')
def echo(ws):
    for message in ws:
        ws.send(message)

@websocket.route('/rooms/<path:name>')
def room(ws, name):
    ws.join(name)
    ws.send('you are in')
    ws.receive()
"""
INI = """\
[uwsgi]
master = true
die-on-term = true
http-socket = :8080
gevent = 100
wsgi = chat:app
"""

#: Who is in which room, and as whom.
MEMBERS = [("lobby", "ada"), ("lobby", "bob"), ("lobby", "bob"), ("staff", "ada")]


class Terminal:
    """The terminal of somebody whose app is served on a port."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        path = f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"
        self.env = {**os.environ, "PATH": path, "XDG_RUNTIME_DIR": str(folder)}

    def type(self, line: str) -> str:
        """What a command prints; it must not fail."""
        done = subprocess.run(
            ["bash", "-c", self._here(line)],
            cwd=self.folder,
            env=self.env,
            input="hello\n",
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextmanager
    def typed(self, line: str) -> Iterator[Path]:
        """What a command has printed until now, in a file, while it runs."""
        printed = self.folder / "printed"
        with printed.open("wb") as out:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {line}"], cwd=self.folder, env=self.env, stdout=out
            )
        try:
            yield printed
        finally:
            process.kill()
            process.wait(PATIENCE)

    def _here(self, line: str) -> str:
        """The same for this folder and port, where the page has those of its reader."""
        line = line.replace(" echo /", f" echo ws://127.0.0.1:{self.port}/")
        return line.replace("/etc/uwsgi/vassals", "vassals").replace("/run/app/", "")


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    folder, port = tmp_path_factory.mktemp("chat"), free_port()
    for name in ("chat.py", "hello.py"):
        (folder / name).write_text(APP)
    (folder / "app.ini").write_text(INI)
    (folder / "vassals").mkdir()
    shutil.copy(folder / "app.ini", folder / "vassals/chat.ini")
    flask = f"{sysconfig.get_path('scripts')}/flask"
    # As the page on development has it.
    command = f"{flask} --app chat websocket run --gevent 100 --port {port} --pidfile uwsgi.pid"
    with serving(command.split(), port, folder), ExitStack() as stack:
        for room, user in MEMBERS:
            url = f"ws://127.0.0.1:{port}/rooms/{room}?user={user}"
            client = stack.enter_context(connect(url, proxy=None, open_timeout=PATIENCE))
            assert client.recv(PATIENCE) == "you are in"
        yield Terminal(folder, port)


@pytest.mark.parametrize(("name", "part"), [(n, part) for n in BLOCKS for part in BLOCKS[n]])
def test_commands(terminal: Terminal, name: str, part: str) -> None:
    block = Page(name).code(part)
    printed = ""
    for line in commands(block):
        if " websocket run " in line:  # which the fixture does
            continue
        if " websocket tail " in line:
            with terminal.typed(line) as file:
                publish = line.replace("tail", "publish") + " 'We close at ten'"
                eventually(
                    lambda publish=publish, file=file: (
                        terminal.type(publish) is not None and "We close" in file.read_text()
                    ),
                    f"{line} to print it",
                )
        else:
            printed += terminal.type(line)
    shown = [line for line in block.splitlines() if not line.startswith(("$", " "))]
    assert [line for line in shown if line not in printed] == []
