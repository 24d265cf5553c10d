"""The package for npm: what is in it, and that Node imports it. It is packed by `npm pack`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

from flask_uwsgi_websocket import __version__
from tests.js_clients import program
from tests.server import ROOT

PACKAGE = json.loads((ROOT / "npm/package.json").read_text())


def in_npms_spelling(version: str) -> str:
    """1.0.0rc1 is 1.0.0-rc.1 there, 1.0.0.dev0 is 1.0.0-dev.0."""
    return re.sub(r"\.?([a-z]+)(\d+)$", r"-\1.\2", version)


def test_it_has_the_version_of_the_package() -> None:
    assert in_npms_spelling("1.2.3") == "1.2.3"
    assert in_npms_spelling("1.2.3rc1") == "1.2.3-rc.1"
    assert PACKAGE["version"] == in_npms_spelling(__version__)


def test_node_imports_what_is_packed(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "npm", tmp_path / "npm")
    for name in ("flask_uwsgi_websocket/static", "LICENSE"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(ROOT / name)
    subprocess.run(PACKAGE["scripts"]["prepack"], shell=True, check=True, cwd=tmp_path / "npm")
    assert {*PACKAGE["files"], "LICENSE"} <= {path.name for path in (tmp_path / "npm").iterdir()}
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "npm").rename(tmp_path / "node_modules" / PACKAGE["name"])
    script = f"import {{connect}} from '{PACKAGE['name']}'; console.log(typeof connect)"
    command = [program("node", "nodejs"), "--input-type=module", "--eval", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "function\n"
