"""`install-uwsgi`: what it asks of the machine, and one build for real."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from flask_uwsgi_websocket.exceptions import EngineError
from flask_uwsgi_websocket.inspection.binaries import PLUGINS
from flask_uwsgi_websocket.launch import install

ROOT = Path(__file__).parent.parent


def program(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_this_machine_can_build() -> None:
    said: list[str] = []
    install.check_machine(said.append)
    assert all("OpenSSL" in line for line in said)


def test_an_adequate_uwsgi_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "_pip", lambda *_: pytest.fail("pip was run"))
    said: list[str] = []
    binary = install.install_uwsgi(say=said.append)
    assert binary.options.issuperset(PLUGINS)
    assert "is already there; --force builds it anew" in said[-1]


@pytest.mark.slow
def test_force_builds_anyway(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(install, "_pip", lambda words, *_: commands.append(list(words)))
    install.install_uwsgi(force=True, say=lambda line: None)
    assert commands[0][0] == "install"
    assert {"greenlet>=3", "gevent>=23.9"} <= set(commands[0])
    assert {"--no-cache-dir", "--force-reinstall", install._UWSGI} <= set(commands[1])


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["gevent"], "built without asyncio, greenlet"),
        (["gevent", "asyncio", "greenlet"], r"is uWSGI 2\.0\.20, and not uwsgi>=2\.0\.[23]1"),
    ],
)
def test_a_uwsgi_that_has_less_is_not_adequate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: list[str], error: str
) -> None:
    version = ".".join(map(str, sys.version_info[:3]))
    listed = "".join(f"  --{option} x\\n" for option in ["wsgi-file", *options])
    less = program(
        tmp_path / "uwsgi",
        f'case "$*" in *--python-version) echo {version};; --version) echo 2.0.20;; '
        f'*) printf "{listed}";; esac',
    )
    monkeypatch.setattr(install.binaries, "installed_uwsgi", lambda: less)
    assert install.adequate_uwsgi() is None
    with pytest.raises(EngineError, match=error):
        install.verify(lambda line: None)


def test_the_build_environment_finds_greenlets_header() -> None:
    environment = install.build_environment({"CPATH": "/some/where"})
    assert environment["UWSGI_EMBED_PLUGINS"] == "asyncio,greenlet"
    include, other = environment["CPATH"].split(":")
    assert other == "/some/where"
    assert Path(include, "greenlet", "greenlet.h").is_file()


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(EngineError, match=r"no C compiler .no-such-compiler.*apt-get install gcc"):
        install.check_machine()


def test_missing_headers_are_all_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A compiler that works but finds neither Python's nor libcrypt's headers."""
    compiler = program(
        tmp_path / "cc", 'for a; do case "$a" in *.c) exec grep -q stdio "$a";; esac; done'
    )
    monkeypatch.setenv("CC", compiler)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    with pytest.raises(EngineError) as caught:
        install.check_machine()
    text = str(caught.value)
    assert f"this is missing: Python {version}'s headers (Python.h), crypt.h." in text
    assert text.endswith("-dev libcrypt-dev")
    assert "libc6-dev" not in text


def test_headers_are_really_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda *_: str(tmp_path))
    with pytest.raises(EngineError, match=r"Python\.h"):
        install.check_machine()


def test_no_ssl_is_only_told(monkeypatch: pytest.MonkeyPatch) -> None:
    compiles = install.compiles
    monkeypatch.setattr(
        install, "compiles", lambda source, *rest: "ssl" not in source and compiles(source, *rest)
    )
    said: list[str] = []
    install.check_machine(said.append)
    assert "apt-get install libssl-dev" in said[-1]


def test_the_operating_systems_python_wants_a_virtualenv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "_externally_managed", lambda: True)
    with pytest.raises(EngineError, match="python3 -m venv"):
        install.check_machine()


@pytest.mark.slow
def test_a_failed_build_shows_its_last_words() -> None:
    with pytest.raises(EngineError, match=r"failed with status \d(?s:.*)no-such-option"):
        install._pip(["install", "--no-such-option"], {}, lambda line: None)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_build_for_real(tmp_path: Path) -> None:
    """Into a virtualenv that has Flask and nothing else of what is to be built.

    In a folder with a blank, at which uWSGI's build splits the compiler's options.
    """
    place = tmp_path / "a venv"
    venv.create(place, with_pip=True)
    python = str(place / "bin" / "python")
    environment = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONHOME")}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [python, *arguments],
            # Not installed: the package is only imported from here.
            env={**environment, "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=800,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("-m", "pip", "install", "--quiet", "flask")
    said = run("-m", "flask_uwsgi_websocket", "install-uwsgi")
    for words in ("files compiled", "threads answers", "gevent answers", "asyncio answers"):
        assert words in said
    assert str(place / "bin" / "uwsgi") in said
    again = run("-m", "flask_uwsgi_websocket", "install-uwsgi")
    assert "already there" in again
    assert "compiled" not in again
