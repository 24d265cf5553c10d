"""Make what the peers need that pip does not install: ``python -m benchmarks.setup``.

Flask-uWSGI-WebSocket 0.6.1 does not run on what came after Python 3.8 and Flask 2.0, and not beside
its successor. It gets an environment of its own in ``benchmarks/.peers/``; packages for Node come
there too.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.bars import PEERS
from benchmarks.peer import NODE, NodePeer
from benchmarks.peers import ORIGINAL

REQUIREMENTS = (
    *("Flask-uWSGI-WebSocket==0.6.1", "Flask==2.0.3", "Werkzeug==2.0.3"),
    *("gevent==24.2.1", "uWSGI==2.0.31"),
)


def find_python() -> str | None:
    """A Python 3.8, on the PATH or from pyenv."""
    found = shutil.which("python3.8")
    candidates = [found] if found else []
    candidates += map(str, sorted(Path.home().glob(".pyenv/versions/3.8.*/bin/python")))
    for candidate in candidates:
        version = subprocess.run([candidate, "--version"], capture_output=True, text=True).stdout
        if version.startswith("Python 3.8."):  # not what a shim says of a missing one
            return candidate
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", help="a Python 3.8; else python3.8, or one of pyenv's")
    options = parser.parse_args()
    return max(set_up_node(), set_up_original(options.python or find_python()))


def set_up_node() -> int:
    if shutil.which("npm") is None:
        print("There is no npm here: Node's servers are left out.", file=sys.stderr)
        return 1
    packages = {
        package
        for peer in PEERS.values()
        if isinstance(peer, NodePeer)
        for package in peer.packages
    }
    NODE.mkdir(parents=True, exist_ok=True)
    npm = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(NODE)]
    return subprocess.run([*npm, *sorted(packages)]).returncode


def set_up_original(python: str | None) -> int:
    if python is None:
        print(
            "There is no Python 3.8 here (name one with --python): uWSGI's bare API stands in for "
            "the original library.",
            file=sys.stderr,
        )
        return 1
    shutil.rmtree(ORIGINAL, ignore_errors=True)
    try:
        subprocess.run([python, "-m", "venv", str(ORIGINAL)], check=True)
        pip = [str(ORIGINAL / "bin" / "python"), "-m", "pip", "install"]
        # uWSGI takes gevent's plugin in without gevent being there; wheel lets pip keep the build.
        subprocess.run([*pip, "wheel", "setuptools"], check=True)
        subprocess.run([*pip, *REQUIREMENTS], check=True)
    except subprocess.CalledProcessError as error:
        shutil.rmtree(ORIGINAL, ignore_errors=True)
        print(f"{error}\nuWSGI's bare API stands in for the original library.", file=sys.stderr)
        return 1
    print(f"{ORIGINAL} is ready.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
