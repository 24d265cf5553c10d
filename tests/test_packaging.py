"""What a release consists of: the version, the sdist and the wheel."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

from flask_uwsgi_websocket import __version__
from tests.checkout import copy_checkout, git

ROOT = Path(__file__).resolve().parent.parent
SETUP = (ROOT / "setup.py").read_text()
CHANGES = (ROOT / "CHANGES.rst").read_text()
# They are of use in a checkout only.
NOT_IN_SDIST = (".ci/", ".github/", ".gitignore", ".readthedocs.yaml", "release.sh")
ONLY_IN_SDIST = {"PKG-INFO", "setup.cfg"}
PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
IN_C = {"codec/_speedups", "connection/_socket_speedups", "process/_starting"}


class Built(NamedTuple):
    sdist: Path
    wheel: Path
    setuptools: str


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        [*map(str, command)],
        cwd=environment.pop("cwd", ROOT),
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tracked() -> set[str]:
    return {*git("ls-files").splitlines()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """What is built of a checkout that has nothing but what git knows.

    Without isolation: each of its environments would have pip fetch setuptools once more.
    """
    checkout, out, tools = map(tmp_path_factory.mktemp, ("checkout", "dist", "setuptools"))
    copy_checkout(checkout)
    run(*PIP, "--target", tools, "setuptools>=77")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", out]
    run(*build, cwd=str(checkout), PYTHONPATH=str(tools))
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return Built(sdist, wheel, str(tools))


def test_the_version_is_in_one_place() -> None:
    places = git("grep", "-l", "-F", f'"{__version__}"', "--", ":!tests", ":!docs")
    assert places == "flask_uwsgi_websocket/__init__.py\n"


def test_the_changes_begin_with_this_version() -> None:
    """Which is unreleased as long as it is one of development."""
    released = re.match(r"Changes\n=+\n\nVersion (\S+)\n-+\n(Unreleased|Released )", CHANGES)
    assert released
    version, _, development = __version__.partition(".dev")
    assert (version, "Unreleased" if development else "Released ") == released.groups()


def test_the_pythons_that_are_promised_are_those_that_are_tested() -> None:
    promised = re.findall(r"Python :: 3\.(\d+)", SETUP)
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini")
    tested = re.search(r"py\{(\S+)\}-flask31", tox["tox"]["envlist"])
    assert tested
    assert tested[1] == ",".join(f"3{minor}" for minor in promised)
    wheels = " ".join(f"cp3{minor}-*" for minor in promised)
    settings = (ROOT / "pyproject.toml").read_text()
    assert f'\nbuild = "{wheels}"\n' in settings
    assert f'\npython_version = "3.{promised[0]}"\n' in settings
    assert f'python_requires=">=3.{promised[0]}"' in SETUP


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_sdist_has_all_of_the_checkout(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {entry.name.partition("/")[2] for entry in archive if entry.isfile()}
    assert f"-{__version__}.tar.gz" in built.sdist.name
    ours = {name for name in names if ".egg-info/" not in name} - ONLY_IN_SDIST
    assert ours == {name for name in tracked() if not name.startswith(NOT_IN_SDIST)}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_wheel_has_the_package_alone(built: Built) -> None:
    names = {*zipfile.ZipFile(built.wheel).namelist()}
    metadata = {name for name in names if ".dist-info/" in name}
    compiled = {name for name in names if name.endswith(".so")}
    assert {name.partition("/")[2].partition(".")[0] for name in compiled} == IN_C
    package = {name for name in tracked() if name.startswith("flask_uwsgi_websocket/")}
    assert names - metadata - compiled == {name for name in package if not name.endswith(".c")}
    assert any(name.endswith("/LICENSE") for name in metadata)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_index_would_show_it(built: Built) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", built.sdist, built.wheel)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_sdist_installs_without_a_compiler(built: Built, tmp_path: Path) -> None:
    place = ["--no-cache-dir", "--no-build-isolation", "--target", tmp_path]
    run(*PIP, *place, built.sdist, CC="false", CXX="false", PYTHONPATH=built.setuptools)
    code = (
        "import flask_uwsgi_websocket as package, flask_uwsgi_websocket.codec as codec\n"
        "print(package.__file__, package.__version__)"
    )
    said = run(sys.executable, "-c", code, cwd=str(tmp_path), PYTHONPATH=str(tmp_path))
    assert said == f"{tmp_path}/flask_uwsgi_websocket/__init__.py {__version__}\n"
    assert not [*tmp_path.rglob("*.so")]
