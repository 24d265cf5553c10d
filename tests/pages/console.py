"""The commands of the pages: what follows `$ ` in their `console` blocks, and how each is checked.

A uWSGI is started as the page has it (`serves`); what a page does with an app that runs is run by
`test_terminal`. All other commands have a comment that says why they are not run. Their words are
checked all the same: that the command, its options, the extra, the file are there.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from importlib.metadata import metadata
from pathlib import Path
from unittest import mock

import click
import flask.cli
from gunicorn.config import Config
from packaging.requirements import Requirement
from websockets.sync.client import connect

from flask_uwsgi_websocket.__main__ import main
from flask_uwsgi_websocket.commands.cli import websocket
from tests.server import PATIENCE, ROOT, eventually, free_port, uwsgi_binary

Words = list[str]

#: What a shell and every UNIX has, where there is nothing to check but that `bash` can read it.
EVERYWHERE = {".", "cat", "cd", "cp", "echo", "export", "kill", "mkdir", "touch", "ulimit"}
SEPARATORS = {"&&", "||", "|", ";", "&"}


def commands(text: str) -> list[str]:
    """The commands of a block, each in one line; what they print is left out."""
    text = re.sub(r"\\\n\s*", "", text)
    lines = [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    return [re.sub(r"\s# .*", "", line) for line in lines]


def simple_commands(line: str) -> Iterator[Words]:
    """The commands that a line of a shell consists of, without variables that are set for one."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.commenters = ""
    lexer.whitespace_split = True
    words: Words = []
    for word in (*lexer, ";"):
        if word not in SEPARATORS:
            words.append(word)
        elif words:
            yield words
            words = []
    if words:
        yield words


def without_variables(words: Words) -> Words:
    while words and re.match(r"\w+=", words[0]):
        words = words[1:]
    return words


def programs(text: str) -> set[str]:
    """The programs that a block's commands run, but for what needs no test."""
    found = {words[0] for words in _all_words(text) if words}
    return found - EVERYWHERE


def check(text: str) -> None:
    """See whether a block's commands can do what they say, as far as is known here.

    :raises AssertionError: there is no such command, option, extra or file.
    """
    subprocess.run(["bash", "-n", "-c", "\n".join(commands(text))], check=True, timeout=PATIENCE)
    for words in _all_words(text):
        if words and words[0] in PROGRAMS:
            PROGRAMS[words[0]](words[1:])


def _all_words(text: str) -> Iterator[Words]:
    for line in commands(text):
        yield from map(without_variables, simple_commands(line))


def _check_group(command: click.Command, words: Words) -> None:
    """Have click read a command's words, as far as to what it would do."""
    while isinstance(command, click.Group) and words:
        name, *words = words
        context = click.Context(command)
        found = command.get_command(context, name)
        assert found, f"no command {name!r}"
        command = found
    # What the shell would put in is a number or a name.
    words = [re.sub(r"\$\(.*\)", "1", word) for word in words]
    with mock.patch.dict(os.environ):  # where `flask run --debug` leaves its word
        command.make_context(command.name, words)


def _flask(words: Words) -> None:
    while words[:1] in (["--app"], ["-A"]):
        words = words[2:]
    if words[:1] == ["websocket"]:
        _check_group(websocket, words[1:])
    else:
        _check_group(flask.cli.cli, words)


def _python(words: Words) -> None:
    if words[:2] == ["-m", "flask_uwsgi_websocket"]:
        _check_group(main, words[2:])
    elif words[:2] in (["-m", "venv"], ["-m", "pip"]):
        return
    elif words[:1] == ["-m"]:
        module = ROOT / words[1].replace(".", "/")
        assert module.is_dir() or module.with_suffix(".py").is_file(), f"no module {words[1]}"
    elif words[:1] == ["-c"]:
        compile(words[1], "-c", "exec")
    else:
        assert (ROOT / words[0]).is_file() or words[0] in NAMED, f"no file {words[0]}"


#: Files that a page has its reader write.
NAMED = {"hello.py", "chat.py", "app.py"}


def _pip(words: Words) -> None:
    assert words[0] == "install", words
    ours = metadata("Flask-uWSGI-WebSocket")
    for word in words[1:]:
        if word.startswith("-") or word == "uwsgi" or not word.strip("."):
            continue
        requirement = Requirement(re.sub(r"^\.", "Flask-uWSGI-WebSocket", word))
        if requirement.name == "Flask-uWSGI-WebSocket":
            assert requirement.extras <= set(ours.get_all("Provides-Extra") or ()), word


def _gunicorn(words: Words) -> None:
    Config().parser().parse_args(words)


def _files(words: Words) -> None:
    """Their first word, or what looks like a path, is a file of the checkout."""
    named = [word for word in words if "/" in word or word.endswith(".sh")]
    for word in named:
        assert (ROOT / word).exists(), f"no file {word}"


def _tox(words: Words) -> None:
    assert words[0] == "-e"


PROGRAMS: dict[str, Callable[[Words], None]] = {
    "bash": _files,
    "flask": _flask,
    "gunicorn": _gunicorn,
    "pip": _pip,
    "pytest": _files,
    "python": _python,
    "python3": _python,
    "tox": _tox,
}


# uWSGI


def uwsgi_commands(text: str) -> Iterator[str]:
    """Those of a block's commands that start a uWSGI, without variables."""
    for words in _all_words(text):
        if words[:1] == ["uwsgi"] and "..." not in words:
            yield shlex.join(words)


def serves(command: str, folder: Path) -> None:
    """Start a uWSGI as a page does, on a port that is free, and have a route of it answer."""
    port = free_port()
    words = shlex.split(
        re.sub(r"(127\.0\.0\.1|0\.0\.0\.0)?:(8080|5000)\b", f"127.0.0.1:{port}", command)
    )
    module, _, variable = words[words.index("--wsgi") + 1].partition(":")
    engine = "Asyncio" if "--asyncio" in words else "Gevent" if "--gevent" in words else ""
    (folder / f"{module}.py").write_text(ECHO.format(engine=engine, variable=variable))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [uwsgi_binary(), *words[1:]],
            cwd=folder,
            env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        eventually(lambda: _echoes(port, process, folder / "log"), command, interval=0.1)
    finally:
        # How it stops is the matter of other tests.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)


def _echoes(port: int, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text(errors="replace")
    try:
        with connect(f"ws://127.0.0.1:{port}/echo", open_timeout=PATIENCE, proxy=None) as socket:
            socket.send("hello")
            return socket.recv(PATIENCE) == "hello"
    except OSError:
        return False


ECHO = """\
from flask import Flask
from flask_uwsgi_websocket import {engine}WebSocket

{variable} = Flask(__name__)
websocket = {engine}WebSocket({variable})

def echo(ws):
    for message in ws:
        ws.send(message)

async def async_echo(ws):
    async for message in ws:
        await ws.send(message)

websocket.add_url_rule('/echo', 'echo', async_echo if '{engine}' == 'Asyncio' else echo)
"""
