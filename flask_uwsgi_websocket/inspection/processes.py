"""A uWSGI process: the one that a command would start, or one that runs and what it shows."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .sources import ConfigError, is_option


@dataclass(frozen=True)
class Process:
    """A uWSGI that runs, or would.

    :param binary: the executable; None for the one that would be found.
    :param words: its arguments.
    :param environment: what it is started with, where ``UWSGI_*`` variables are options too.
    :param folder: where.
    :param descriptors: how many it may open; None without a limit, or where that is not known.
    :param title: what it calls itself instead of showing its arguments; empty if it shows them.
    :param unit: the file of systemd's that its arguments are from in that case, if they are.
    :param pid: its number; None if it does not run.
    """

    binary: str | None
    words: Sequence[str]
    environment: dict[str, str]
    folder: Path
    descriptors: int | None = None
    title: str = ""
    unit: Path | None = None
    pid: int | None = None

    @property
    def hidden(self) -> str:
        """The reason for which it does not show its options; empty if it does."""
        return self.title and (
            f"process {self.pid} calls itself {self.title!r} (--auto-procname, --procname), which "
            "hides its options"
        )


def look_at(pid: int) -> Process:
    """Look at a process of uWSGI's; ConfigError if there is none, or it is not ours to see."""
    place = Path(f"/proc/{pid}")
    try:
        words = _strings(place / "cmdline")
        environment = _variables(_strings(place / "environ"))
        folders = [os.readlink(place / "cwd"), environment.get("PWD", "")]
        binary = os.readlink(place / "exe")
        descriptors = _descriptor_limit((place / "limits").read_text())
    except OSError as error:
        whose = ": look at it as root, or as its user" if isinstance(error, PermissionError) else ""
        raise ConfigError(f"process {pid}: {error.strerror}{whose}") from error
    # --auto-procname and --procname write their text over the arguments and the environment.
    if not any(word.strip() for word in words[1:]) and not any(map(is_option, environment)):
        hidden = Process(binary, [], {}, Path(folders[0]), descriptors, " ".join(words).strip())
        return _from_unit(hidden, (place / "cgroup").read_text())
    return Process(binary, words[1:], environment, _start_folder(folders, words), descriptors)


def _start_folder(folders: Sequence[str], words: Sequence[str]) -> Path:
    """Return the folder in which uWSGI found its files, before any --chdir."""
    names = [word.rpartition("=")[2].partition(":")[0] for word in words]
    return Path(max(folders, key=lambda folder: _number_of_files(folder, names)))


def _number_of_files(folder: str, names: Sequence[str]) -> int:
    return sum(bool(name) and Path(folder, name).exists() for name in names)


def _strings(path: Path) -> list[str]:
    content = path.read_bytes().removesuffix(b"\0")
    return content.decode(errors="replace").split("\0") if content else []


def _variables(texts: Sequence[str]) -> dict[str, str]:
    return dict(text.split("=", 1) for text in texts if "=" in text)


def _descriptor_limit(limits: str) -> int | None:
    found = re.search(r"^Max open files\s+(\d+)", limits, re.MULTILINE)
    return int(found[1]) if found else None


# A service of systemd's, which knows what a process was started with that does not show it

#: Where units are, the first one counting (systemd.unit(5)).
UNIT_FOLDERS = [
    Path(folder, "systemd/system") for folder in ("/etc", "/run", "/usr/local/lib", "/lib")
]


def _from_unit(process: Process, cgroup: str) -> Process:
    """Fill in what the service that a process belongs to says of it."""
    name = re.search(r"([^/\n]+)\.service$", cgroup, re.MULTILINE)
    template, at, instance = name[1].partition("@") if name else ("", "", "")
    file = f"{template}{at}.service"
    path = next((folder / file for folder in UNIT_FOLDERS if (folder / file).is_file()), None)
    if path is None:
        return process
    settings: dict[str, list[str]] = {}
    try:
        for part in [path, *sorted(path.with_name(f"{file}.d").glob("*.conf"))]:
            _read_unit(part.read_text().replace("%i", instance).replace("%I", instance), settings)
        # "-/usr/bin/uwsgi": what stands before the path says how systemd treats it.
        words = shlex.split(settings.get("ExecStart", [""])[-1].lstrip("-@:+!"))
        variables = shlex.split(" ".join(settings.get("Environment", ())))
    except (OSError, ValueError):
        return process
    if not words or not Path(words[0]).name.startswith("uwsgi"):
        return process
    return replace(
        process,
        words=words[1:],
        environment=_variables(variables),
        folder=Path(settings.get("WorkingDirectory", ["/"])[-1].lstrip("-")),
        unit=path,
    )


def _read_unit(text: str, settings: dict[str, list[str]]) -> None:
    for line in text.replace("\\\n", " ").split("\n"):
        key, equals, value = line.partition("=")
        if equals and not value.strip():
            settings.pop(key.strip(), None)  # an empty one takes back those before
        elif equals:
            settings.setdefault(key.strip(), []).append(value.strip())
