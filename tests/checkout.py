"""What git knows of this checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.server import ROOT


def git(*arguments: str) -> str:
    """The output of a command of git, here; a folder that is no repository has none."""
    # A checkout may be somebody else's, as where a container's root runs the tests.
    command = ["git", "-c", "safe.directory=*", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    if "not a git repository" in done.stderr:
        pytest.skip("no checkout: git does not know this folder")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copy_checkout(folder: Path) -> None:
    """Write what git knows, and nothing else, into a folder."""
    git("checkout-index", "--all", f"--prefix={folder}/")
