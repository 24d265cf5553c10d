"""A server that takes part: what starts it, what it needs, and its versions."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from flask_uwsgi_websocket.exceptions import EngineError
from flask_uwsgi_websocket.inspection.binaries import find_uwsgi

ROOT = Path(__file__).resolve().parent.parent
SERVERS = ROOT / "benchmarks" / "servers"

#: Where npm puts the servers for Node.
NODE = ROOT / "benchmarks" / ".peers" / "node"


@dataclass(frozen=True)
class Peer:
    """A server.

    :param command: what starts it, given its port and the connections that it must hold.
    :param packages: the distributions whose versions tell what was measured.
    :param compresses: whether it knows permessage-deflate.
    :param path: where it echoes.
    :param most: connections that it is asked to hold, if there is a limit.
    :param sends_to_others: whether what one connection says can go to others.
    :param python: the environment that it runs in, if not ours.
    """

    name: str
    label: str
    kind: str
    command: Callable[[int, int], list[str]]
    packages: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    path: str = "/echo"
    dialect: str = "websocket"
    compresses: bool = False
    most: int | None = None
    sends_to_others: bool = True
    python: Path | None = None

    @property
    def is_ours(self) -> bool:
        return self.name.startswith("ours")

    def variables(self, port: int, cores: int, compression: bool) -> dict[str, str]:
        """Environment variables for the server."""
        variables = {
            "BENCHMARK_PORT": str(port),
            "BENCHMARK_CORES": str(cores),
            "BENCHMARK_COMPRESSION": "1" if compression else "0",
            # This checkout, not one that is installed; the original must not get ours.
            "PYTHONPATH": "" if self.python else str(ROOT),
        }
        return {**variables, **self.environment}

    def directory(self) -> Path:
        return SERVERS if self.python else ROOT

    def missing(self) -> str | None:
        """Why it cannot take part here."""
        if self.python is not None:
            return None if self.python.exists() else "run python -m benchmarks.setup first"
        for package in self.packages:
            try:
                if package == "uWSGI":
                    find_uwsgi()
                else:
                    importlib.metadata.version(package)
            except (EngineError, importlib.metadata.PackageNotFoundError) as error:
                return str(error)
        return None

    def versions(self) -> dict[str, str]:
        if self.python is not None:
            return _versions_in(self.python, self.packages)
        versions = {"Python": platform.python_version()}
        for package in self.packages:
            versions[package] = (
                uwsgi_version(find_uwsgi())
                if package == "uWSGI"
                else importlib.metadata.version(package)
            )
        return versions


@dataclass(frozen=True)
class NodePeer(Peer):
    """A server for Node; its packages are npm's."""

    def variables(self, port: int, cores: int, compression: bool) -> dict[str, str]:
        found = {"NODE_PATH": str(NODE / "node_modules")}
        return super().variables(port, cores, compression) | found

    def _manifest(self, package: str) -> Path:
        return NODE / "node_modules" / package / "package.json"

    def missing(self) -> str | None:
        if shutil.which("node") is None:
            return "there is no node"
        if all(self._manifest(package).exists() for package in self.packages):
            return None
        return "run python -m benchmarks.setup first"

    def versions(self) -> dict[str, str]:
        versions = {
            package: str(json.loads(self._manifest(package).read_text())["version"])
            for package in self.packages
        }
        return {"Node": _version("node"), **versions}


@dataclass(frozen=True)
class CPeer(Peer):
    """A server that compiles itself."""

    def missing(self) -> str | None:
        return None if shutil.which("cc") else "there is no C compiler"

    def versions(self) -> dict[str, str]:
        return {"cc": _version("cc").rpartition(" ")[2]}


@cache
def _version(program: str) -> str:
    output = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
    return output.partition("\n")[0]


@cache
def uwsgi_version(path: str) -> str:
    return subprocess.run([path, "--version"], capture_output=True, text=True).stdout.strip()


@cache
def _versions_in(python: Path, packages: tuple[str, ...]) -> dict[str, str]:
    script = (
        "import platform, sys, importlib.metadata as m\n"
        "print('Python', platform.python_version())\n"
        "for name in sys.argv[1:]: print(name, m.version(name))"
    )
    output = subprocess.run(
        [str(python), "-c", script, *packages], capture_output=True, text=True, check=True
    ).stdout
    return dict(line.split() for line in output.splitlines())
