"""The modules in C, as sources."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "flask_uwsgi_websocket"


@pytest.mark.slow
@pytest.mark.parametrize("source", sorted(PACKAGE.glob("*/*.c")), ids=lambda source: source.stem)
@pytest.mark.parametrize("level", ["-O0", "-O3"])
def test_the_compiler_has_nothing_to_say(source: Path, level: str, tmp_path: Path) -> None:
    # Unused parameters are in the signatures that Python's C API asks for.
    strict = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-Wno-cast-function-type"]
    command = [
        *("cc", "-std=c11", level, *strict, "-fPIC", "-shared"),
        *("-D_GNU_SOURCE", "-isystem", sysconfig.get_path("include")),
        *("-o", str(tmp_path / "module.so"), str(source)),
    ]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
