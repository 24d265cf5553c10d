"""`flask websocket ...` and `python -m flask_uwsgi_websocket ...`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from flask_uwsgi_websocket import __main__
from flask_uwsgi_websocket.commands import cli
from flask_uwsgi_websocket.exceptions import EngineError
from flask_uwsgi_websocket.launch import install
from tests.test_runner import ODD, Start, find_free_port, odd, start  # noqa: F401 (fixtures)

# What `flask` does, with our group as its entry point would add it.
FLASK = """
import sys
from flask.cli import FlaskGroup
from flask_uwsgi_websocket.commands.cli import websocket
sys.argv[0] = "flask"
group = FlaskGroup()
group.add_command(websocket)
group.main()
"""

SOURCE = """
    import json, os
    from flask import Flask

    def create_app(word="default"):
        app = Flask(__name__)
        @app.route("/")
        def where():
            return json.dumps({"name": __name__, "word": word,
                               "debug": os.environ.get("FLASK_UWSGI_DEBUG")})
        return app
"""


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("", {}),
        ("--gevent 100", {"gevent": "100"}),
        ("--gevent=100 --vacuum", {"gevent": "100", "vacuum": True}),
        ("--vacuum --gevent 100", {"gevent": "100", "vacuum": True}),
        ("--env A=1 --env B=2", {"env": ["A=1", "B=2"]}),
        ("--env=A=1", {"env": "A=1"}),
        ("-M -H /x", {"M": True, "H": "/x"}),
        ("--stdin -", {"stdin": "-"}),
    ],
)
def test_uwsgi_options(words: str, options: dict[str, Any]) -> None:
    assert cli.parse_uwsgi_options(words.split()) == options


@pytest.mark.parametrize("words", ["100", "--gevent 100 200", "-M4"])
def test_words_that_are_no_option(words: str) -> None:
    with pytest.raises(click.UsageError):
        cli.parse_uwsgi_options(words.split())


def flask(
    start: Start,  # noqa: F811
    free_port: int,
    app: Sequence[str],
    *words: str,
    cwd: str = ".",
) -> Any:
    arguments = ["-c", FLASK, *app, "websocket", "run", "-h", "127.0.0.1", "-p", str(free_port)]
    return start(*arguments, *words, cwd=cwd)


@pytest.mark.parametrize(
    ("end", "app", "word"),
    [
        ("app = create_app()", ["--app", "chat"], "default"),
        ("other = create_app('other')", ["--app", "chat:other"], "other"),
        ("", ["--app", "chat"], "default"),
        ("", ["--app", "chat:create_app('argument')"], "argument"),
        ("app = create_app('file')", ["--app", "./chat.py"], "file"),
        ("app = create_app()\napp.run()", ["--app", "chat"], "default"),
    ],
)
def test_run(
    start: Start,  # noqa: F811
    free_port: int,
    tmp_path: Path,
    end: str,
    app: Sequence[str],
    word: str,
) -> None:
    source = textwrap.dedent(SOURCE) + end + "\n"
    if "app.run()" in end:  # A module without the __name__ guard.
        source = source.replace(
            "    return app",
            "    from flask_uwsgi_websocket.launch.run import run_uwsgi\n"
            "    app.run = lambda: run_uwsgi(app)\n"
            "    return app",
        )
    (tmp_path / "chat.py").write_text(source)
    script = flask(start, free_port, app, "--gevent", "10")
    where = script.where()
    assert (where["name"], where["word"], where["debug"]) == ("chat", word, None)
    assert "--gevent 10" in script.log


def test_run_without_naming_the_app(
    start: Start,  # noqa: F811
    free_port: int,
    tmp_path: Path,
) -> None:
    (tmp_path / "app.py").write_text(textwrap.dedent(SOURCE))
    assert flask(start, free_port, []).where()["name"] == "app"


def test_run_takes_the_engine_of_the_extension(
    start: Start,  # noqa: F811
    free_port: int,
    tmp_path: Path,
) -> None:
    end = "app = create_app()\nfrom flask_uwsgi_websocket import AsyncioWebSocket\n"
    end += "AsyncioWebSocket(app)\n"
    (tmp_path / "chat.py").write_text(textwrap.dedent(SOURCE) + end)
    script = flask(start, free_port, ["--app", "chat"], "--processes", "2")
    assert script.where()["name"] == "chat"
    assert "--asyncio 100" in script.log


def test_run_in_a_folder_with_odd_characters(
    start: Start,  # noqa: F811
    free_port: int,
    odd: Path,  # noqa: F811
) -> None:
    (odd / "chat.py").write_text(textwrap.dedent(SOURCE))
    app = ["--app", "chat:create_app('$(HOME)')"]
    assert flask(start, free_port, app, cwd=ODD).where()["word"] == "$(HOME)"


def test_debug_is_flasks(
    start: Start,  # noqa: F811
    free_port: int,
    tmp_path: Path,
) -> None:
    (tmp_path / "chat.py").write_text(textwrap.dedent(SOURCE) + "app = create_app()\n")
    script = flask(start, free_port, ["--app", "chat", "--debug"])
    assert script.where()["debug"] == "true"
    assert "--lazy" in script.log  # by which a worker that reloads gets the new code


@pytest.mark.parametrize(
    ("app", "words", "text"),
    [
        (["--app", "missing"], [], "Could not import 'missing'"),
        (["--app", "chat"], ["--gevent", "5", "--threads", "5"], "cannot be combined"),
        (["--app", "chat"], ["--gevnet", "5"], "did you mean gevent?"),
        (["--app", "chat"], ["stray"], "'stray' belongs to no uWSGI option"),
    ],
)
def test_errors(
    start: Start,  # noqa: F811
    free_port: int,
    tmp_path: Path,
    app: Sequence[str],
    words: Sequence[str],
    text: str,
) -> None:
    (tmp_path / "chat.py").write_text(textwrap.dedent(SOURCE) + "app = create_app()\n")
    script = flask(start, free_port, app, *words)
    assert script.wait() != 0
    assert text in script.log
    assert "Traceback" not in script.log


@pytest.mark.parametrize("group", [cli.websocket, __main__.main])
def test_install_uwsgi(group: click.Group, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    monkeypatch.setattr(install, "install_uwsgi", lambda force, say: calls.append(force))
    assert CliRunner().invoke(group, ["install-uwsgi"]).exit_code == 0
    assert CliRunner().invoke(group, ["install-uwsgi", "--force"]).exit_code == 0
    assert calls == [False, True]


def test_install_uwsgi_tells_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(force: bool, say: object) -> None:
        raise EngineError("no compiler")

    monkeypatch.setattr(install, "install_uwsgi", fail)
    result = CliRunner().invoke(cli.websocket, ["install-uwsgi"])
    assert result.exit_code == 1
    assert "Error: no compiler" in result.output
