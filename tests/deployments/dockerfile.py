"""A Dockerfile, as far as one can do what it says without Docker: in an environment of Python's."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from functools import cached_property
from pathlib import Path

#: What makes the container's user.
NOT_HERE = {"useradd"}


class Image:
    """What a Dockerfile makes, in the folder that it is in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment_folder = folder.parent / "environment"
        text = (folder / "Dockerfile").read_text().replace("\\\n", "")
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        self.instructions = [tuple(line.split(None, 1)) for line in lines]

    def all(self, name: str) -> list[str]:
        return [rest for instruction, rest in self.instructions if instruction == name]

    def build(self) -> None:
        """Copy nothing, since all is here; run what it runs."""
        [image] = self.all("FROM")
        assert re.fullmatch(r"python:3\.\d+-slim", image)
        # A container of Python's has nothing else installed, either.
        command = [sys.executable, "-m", "virtualenv", "--quiet", str(self.environment_folder)]
        subprocess.run(command, check=True, timeout=60)
        for run in self.all("RUN"):
            if shlex.split(run)[0] not in NOT_HERE:
                subprocess.run(
                    ["sh", "-c", run], cwd=self.folder, env=self.env, check=True, timeout=200
                )

    @cached_property
    def env(self) -> dict[str, str]:
        named = dict(item.split("=", 1) for line in self.all("ENV") for item in shlex.split(line))
        ours = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        path = f"{self.environment_folder}/bin:/usr/bin:/bin"
        return {"HOME": str(self.folder.parent), "PATH": path, **ours, **named}

    def command(self, instruction: str) -> list[str]:
        """What CMD, or HEALTHCHECK, runs: a list, since a shell would keep signals to itself."""
        [rest] = self.all(instruction)
        program, *arguments = json.loads(rest[rest.index("[") :])
        return [f"{self.environment_folder}/bin/{program}", *arguments]
