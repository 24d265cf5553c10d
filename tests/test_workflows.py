"""What runs on each push: its files say what exists, and no more than they must."""

from __future__ import annotations

import configparser
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
#: From setup-python, from the container, or from what is installed a step before.
PROGRAMS = {"actionlint", "apt-get", "bash", "git", "pip", "python", "tox", "twine"}

each = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def load(path: Path) -> dict[Any, Any]:
    content = yaml.safe_load(path.read_text())
    assert isinstance(content, dict)
    return content


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in load(path)["jobs"].values() for step in job.get("steps", ())]


def used(path: Path) -> list[str]:
    things = [*load(path)["jobs"].values(), *steps(path)]
    return [thing["uses"] for thing in things if "uses" in thing]


def commands(path: Path) -> list[str]:
    lines = [line for step in steps(path) for line in step.get("run", "").splitlines()]
    return [line for line in lines if not re.match(r"\w+=", line)]


def matrix(job: str) -> dict[str, Any]:
    return load(GITHUB / "workflows/tests.yml")["jobs"][job]["strategy"]["matrix"]


def test_all_are_there() -> None:
    assert [path.stem for path in WORKFLOWS] == ["release", "tests", "wheels"]


@each
def test_actions_are_of_one_major_version_or_of_this_repository(path: Path) -> None:
    for name in used(path):
        if name.startswith("./"):
            assert "workflow_call" in load(ROOT / name)[True]  # "on" is YAML's other word for true
        else:
            assert re.fullmatch(r"[\w-]+/[\w-]+@(release/)?v\d+", name)


@each
def test_commands_name_what_exists(path: Path) -> None:
    for command in commands(path):
        program, *arguments = command.split()
        assert program in PROGRAMS
        for argument in arguments:
            if re.search(r"\.(sh|py|toml)$", argument):
                assert (ROOT / argument).is_file()


@each
def test_nothing_may_write_but_the_upload(path: Path) -> None:
    """And that by no secret: the index trusts the workflow."""
    content = load(path)
    assert content["permissions"] == {"contents": "read"}
    jobs = content["jobs"].items()
    more = {name: job["permissions"] for name, job in jobs if "permissions" in job}
    assert more == ({"publish": {"id-token": "write"}} if path.stem == "release" else {})
    assert "secrets" not in path.read_text()


def test_nothing_is_published_untested() -> None:
    jobs = load(GITHUB / "workflows/release.yml")["jobs"]
    assert {jobs[name]["uses"] for name in jobs["publish"]["needs"]} == {
        "./.github/workflows/tests.yml",
        "./.github/workflows/wheels.yml",
    }
    assert jobs["tests"]["needs"] == jobs["wheels"]["needs"] == "version"


def test_the_suite_runs_on_every_python_that_is_promised() -> None:
    promised = re.findall(r"Python :: (3\.\d+)", (ROOT / "setup.py").read_text())
    assert matrix("suite")["python"] == promised
    assert not {one["python"] for one in matrix("suite")["include"]} & {*promised}


def test_older_flasks_are_those_of_tox() -> None:
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini")
    of_tox = re.search(r"py\{(\S+)\}-flask\{(\S+)\}", tox["tox"]["envlist"])
    assert of_tox
    flask = matrix("flask")
    assert of_tox[1] == ",".join(flask["python"]).replace(".", "")
    assert of_tox[2] == ",".join(flask["flask"])


def test_debian_packages_are_those_of_the_script() -> None:
    """But what a container with Python and a compiler has, or /etc/hosts."""
    needed = re.findall(r"^need (\S+)", (ROOT / "tests/run.sh").read_text(), re.MULTILINE)
    (installed,) = (
        c for c in commands(GITHUB / "workflows/tests.yml") if "apt-get -q -y install" in c
    )
    assert {*installed.split()[4:]} == {*needed} - {"git", "openssl", "libnss-myhostname"}


def test_forms_and_updates_are_yaml() -> None:
    for form in ("bug", "idea"):
        fields = load(GITHUB / f"ISSUE_TEMPLATE/{form}.yml")
        assert {"name", "description", "body"} <= fields.keys()
        ids = [field["id"] for field in fields["body"] if field["type"] != "markdown"]
        assert len({*ids}) == len(ids)
    assert load(GITHUB / "ISSUE_TEMPLATE/config.yml")
    for update in load(GITHUB / "dependabot.yml")["updates"]:
        assert (ROOT / update["directory"].lstrip("/")).is_dir()


@pytest.mark.parametrize(
    ("version", "section", "tag", "complaint"),
    [
        ("1.0.0", "Version 1.0.0\n-\nReleased 2031-05-17.", "v1.0.0", None),
        ("1.1.0rc1", "Version 1.1.0rc1\n-\nReleased 2031-05-17. As", "v1.1.0rc1", None),
        ("1.0.0", "Version 1.0.0\n-\nReleased 2031-05-17.", "v1.0.1", "The tag is v1.0.1"),
        ("1.0.0.dev0", "Version 1.0.0\n-\nUnreleased.", "v1.0.0.dev0", "none of a release"),
        ("1.0.1", "Version 1.0.0\n-\nReleased 2031-05-17.", "v1.0.1", "'Version 1.0.0', not"),
        ("1.0.0", "Version 1.0.0\n-\nUnreleased.", "v1.0.0", "but 'Unreleased.'"),
    ],
)
def test_a_tag_that_is_not_the_versions_is_refused(
    tmp_path: Path, version: str, section: str, tag: str, complaint: str | None
) -> None:
    done = release(tmp_path, version, section, "--tagged", tag)
    assert done.returncode == (1 if complaint else 0)
    assert (complaint or "") in done.stderr


def test_pages_that_install_a_checkout_are_not_released(tmp_path: Path) -> None:
    (tmp_path / "README.rst").write_text("Version 1.0 is not\nreleased yet.\n")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/quickstart.rst").write_text("    $ pip install '.[gevent]'\n")
    (tmp_path / "docs/releasing.rst").write_text("``pip install '.[gevent]'``\n")
    done = release(tmp_path, "1.0.0", "Version 1.0.0\n-\nReleased 2031-05-17.")
    assert done.returncode == 1
    assert done.stdout.count("\n") == 2
    assert "These lines install a checkout, where 1.0.0" in done.stderr


def release(
    folder: Path, version: str, section: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run a copy of release.sh on what it asks first."""
    (folder / "release.sh").write_text((ROOT / "release.sh").read_text())
    (folder / "flask_uwsgi_websocket").mkdir()
    package = folder / "flask_uwsgi_websocket/__init__.py"
    package.write_text(f'"""A package."""\n\n__version__ = "{version}"\n')
    (folder / "CHANGES.rst").write_text(f"Changes\n=======\n\n{section}\n")
    return subprocess.run(
        ["bash", str(folder / "release.sh"), *arguments],
        capture_output=True,
        text=True,
        timeout=30,
    )
