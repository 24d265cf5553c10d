"""Where the directory of an instance is, and which instances there are."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ...exceptions import BackplaneUnavailable
from ...process.server_process import started_at
from .directory import (
    REMEDY,
    WORKER,
    Directory,
    enter,
    explained,
    lock,
    name_of_app,
    open_directory,
    prefix_of,
    remove,
    require_sockets,
)


@dataclass(frozen=True)
class Instance:
    """Workers that have found each other in a directory.

    :param path: of the directory.
    :param parent: the id of the process that started them.
    :param workers: how many of them have each prefix.
    """

    path: str
    parent: int
    workers: dict[str, int]

    @property
    def url(self) -> str:
        """Where to publish to them."""
        return f"local://{quote(self.path)}"

    @property
    def command(self) -> str:
        """What people know its process by."""
        return _command(self.parent)

    def __str__(self) -> str:
        apps = ", ".join(
            f"{number} worker{'s' * (number != 1)} of {prefix!r}"
            for prefix, number in sorted(self.workers.items())
        )
        return f"{self.url} ({self.command}, {apps})"


def find_instances(mark: str = WORKER) -> list[Instance]:
    """Return those of this user that run on this machine, and have rooms.

    :param mark: how the names of files end of which each worker has one;
        :data:`~.directory.FIGURES` for those of instances that count, with rooms or without.
    """
    found = []
    for root in dict.fromkeys(_all_roots()):
        with _opened(root, _base()) as base:
            for name in sorted(os.listdir(base)) if base >= 0 else ():
                instance = _look_into(base, name, os.path.join(root, _base(), name), mark)
                if instance is not None:
                    found.append(instance)
    return found


@contextmanager
def opened_place(instance: tuple[int, int], prefix: str) -> Iterator[int]:
    """Give the descriptor of an app's directory, for whoever only reads in it; below 0 for none."""
    names = _base(), "{}.{}".format(*instance), name_of_app(prefix)
    for root in dict.fromkeys(_all_roots()):
        with _opened(root, *names) as fd:
            if fd >= 0:
                yield fd
                return
    yield -1


def open_place(path: str | None, instance: tuple[int, int] | None, prefix: str) -> Directory:
    """Open the directory of an app.

    :param path: that somebody has named; None: that of the instance.
    :param instance: see :class:`~.backplane.BackplaneOptions`; None: the only one that there is.
    :raises BackplaneUnavailable: see :func:`~.directory.open_directory`.
    """
    require_sockets()
    app = name_of_app(prefix)
    if path is None and instance is None:
        path = _only_one().path
    if path is not None:
        parent, name = os.path.split(path)
        return open_directory(parent, [name], app, shared=True)
    assert instance is not None
    root = _root()
    _sweep(root)
    return open_directory(root, [_base(), "{}.{}".format(*instance)], app)


def _only_one() -> Instance:
    found = find_instances()
    if len(found) == 1:
        return found[0]
    if not found:
        raise BackplaneUnavailable(
            "no uWSGI of this user has rooms, or they are in a place that is not seen from here: "
            'name one in both, as in UWSGI_WEBSOCKET_BACKPLANE = "local:///run/app/rooms"'
        )
    raise BackplaneUnavailable("name one of: " + ", ".join(map(str, found)))


def _base() -> str:
    return f"flask-uwsgi-websocket-{os.geteuid()}"


def _root() -> str:
    """Return the directory for what lives no longer than the machine runs."""
    xdg = os.environ.get("XDG_RUNTIME_DIR", "")
    with suppress(OSError):  # after sudo it may be another user's
        if os.path.isabs(xdg) and os.stat(xdg).st_uid == os.geteuid() and _is_writable(xdg):
            return xdg
    if _is_writable("/run"):
        return "/run"
    return _temporary()


def _temporary() -> str:
    with explained("the directory for temporary files"):
        found = tempfile.gettempdir()
    if found == os.getcwd() and found not in ("/tmp", "/var/tmp"):  # its last resort
        raise BackplaneUnavailable(f"no directory for temporary files can be written to; {REMEDY}")
    return found


def _all_roots() -> Iterator[str]:
    """Yield where other processes of this user may have had to go, whose environment differs."""
    with suppress(BackplaneUnavailable):
        yield _root()
    yield from (f"/run/user/{os.geteuid()}", "/run")
    with suppress(BackplaneUnavailable):
        yield _temporary()
    yield "/tmp"


def _is_writable(path: str) -> bool:
    effective = os.access in os.supports_effective_ids
    return os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK, effective_ids=effective)


def _sweep(root: str) -> None:
    """Remove the directories of instances that have ended without doing so."""
    with _opened(root, _base()) as base:
        for name in os.listdir(base) if base >= 0 else ():
            if not _is_alive(name):
                path = os.path.join(root, _base(), name)
                with suppress(OSError, BackplaneUnavailable):
                    fd = enter(base, name, path, make=False)
                    try:
                        if lock(fd, exclusive=True):
                            remove(fd, path)
                    finally:
                        os.close(fd)


def _look_into(base: int, name: str, path: str, mark: str) -> Instance | None:
    if not _is_alive(name) or not name.partition(".")[0].isdecimal():
        return None
    workers: dict[str, int] = {}
    with suppress(OSError, BackplaneUnavailable):
        fd = enter(base, name, path, make=False)
        try:
            for app in os.listdir(fd):
                with _opened(path, app) as inner:
                    names = os.listdir(inner) if inner >= 0 else []
                count = sum(name.endswith(mark) and name[0] != "." for name in names)
                if count:
                    workers[prefix_of(app)] = count
        finally:
            os.close(fd)
    return Instance(path, int(name.partition(".")[0]), workers) if workers else None


@contextmanager
def _opened(root: str, *names: str) -> Iterator[int]:
    """Give the descriptor of a directory of ours, for a while; below 0 where there is none.

    :param names: of the directories that lead to it, each of which has to be ours.
    """
    fd = -1
    with suppress(OSError, BackplaneUnavailable):
        inner, path = os.open(root, os.O_RDONLY), root
        for name in names:
            outer, path = inner, os.path.join(path, name)
            try:
                inner = enter(outer, name, path, make=False)
            finally:
                os.close(outer)
        fd = inner
    try:
        yield fd
    finally:
        if fd >= 0:
            os.close(fd)


def _is_alive(name: str) -> bool:
    """Return whether the parent of an instance runs, of which a directory has the name."""
    pid, _, started = name.partition(".")
    if not (pid.isdecimal() and started.isdecimal()):
        return True  # it is nothing of ours
    now = started_at(int(pid))
    if now:
        return now == int(started)
    try:
        os.kill(int(pid), 0)  # where nothing tells when it started, the lock has to decide
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return started == "0"


def _command(pid: int) -> str:
    """Return what people know a process by."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return f"{pid}: {b' '.join(words).decode(errors='replace').strip():.60}"
    return str(pid)
