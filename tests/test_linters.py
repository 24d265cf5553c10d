"""What others read and run of this repository, as the linters of its languages see it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.checkout import git
from tests.deployments.machine import program
from tests.server import ROOT

WORKFLOWS = ROOT / ".github/workflows"


def lint(linter: str, *arguments: str | Path) -> None:
    command = [program(linter), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_dockerfile() -> None:
    lint("hadolint", ROOT / "docs/deploy/docker/Dockerfile")


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("compose-spec", [ROOT / "docs/deploy/docker/compose.yaml"]),
        ("github-workflows", sorted(WORKFLOWS.glob("*.yml"))),
        ("dependabot", [ROOT / ".github/dependabot.yml"]),
    ],
)
def test_yaml(schema: str, files: list[Path]) -> None:
    lint("check-jsonschema", "--builtin-schema", f"vendor.{schema}", *files)


def test_scripts() -> None:
    scripts = git("ls-files", "*.sh", ".ci/run").split()
    assert "tests/run.sh" in scripts
    lint("shellcheck", "--external-sources", "--severity=warning", *scripts)
