"""Directories in which the workers of an app find each other, and nobody else gets anything.

Each is opened in one that is open already, without following a symbolic link, and is looked at by
its descriptor: what another user has put in its place, or puts there a moment later, is not taken
for ours. The sockets in it are bound and connected to through its descriptor too.

Everybody who uses a directory holds a shared lock on it. Whoever gets the exclusive one may remove
it: nobody is there, also where process ids tell nothing, as between containers. And
systemd-tmpfiles leaves alone what is locked.
"""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from urllib.parse import quote, unquote

from ...exceptions import BackplaneUnavailable
from ...helpers.threads import unpatched

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

REMEDY = (
    "name a place that only this user has: in XDG_RUNTIME_DIR, or for rooms alone as "
    'UWSGI_WEBSOCKET_BACKPLANE = "local:///some/path"'
)

#: In the name of the mark that a worker, not a mere publisher, is behind a socket.
WORKER = ".worker"
#: In front of the numbers of the files whose bytes are locked: see session/seats.py.
SEATS = "seats."
#: What is kept: one file, and those that belong to it.
STORE = "rooms.db"
#: In the names of what workers count; behind the number of each.
FIGURES = ".stats"
#: What we put there: a socket, hidden until it listens, is named by its process and at random.
#: Where a directory has been named, all else in it is somebody's.
_SOCKET = re.compile(rf"\.?[0-9]+\.[0-9a-f]{{8}}({re.escape(WORKER)})?")
_STORE = re.compile(rf"{re.escape(STORE)}(|-wal|-shm|-journal|\.lock|\.over|\.json|\.json\.[0-9]+)")
_SEATS = re.compile(rf"{re.escape(SEATS)}[0-9a-f]+")
_FIGURES = re.compile(rf"\.?[0-9]{{1,10}}{re.escape(FIGURES)}")
#: Says that all who use what is kept are about to end.
_OVER = f"{STORE}.over"

_DIRECTORY = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
#: For what need not be readable.
_PARENT = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0)
#: Milliseconds, and as many attempts, for a directory that is removed as we come.
_PATIENCE = 100


class Directory:
    """That of one app's sockets, open and in use.

    :param outer: the directory around it, which other apps share; and its descriptor.
    :param inner: its name in there; and its descriptor.
    :param removes_outer: whether the last one that leaves removes that one too.
    """

    def __init__(self, outer: tuple[str, int], inner: tuple[str, int], removes_outer: bool) -> None:
        self._outer_path, self._outer = outer
        self._name, self._inner = inner
        self._removes_outer = removes_outer
        #: For people.
        self.path = os.path.join(self._outer_path, self._name)
        self.unlink(_OVER)  # it cannot be, since we are here
        through = f"/proc/self/fd/{self._inner}"  # as short as the address of a socket has to be
        self._address = through if os.path.isdir(through) else self.path

    def state(self) -> os.stat_result:
        """Return what the system knows of it; without links it has been removed."""
        return os.fstat(self._inner)

    def is_in_place(self) -> bool:
        """Return whether no other one is where others look for it; it may have been moved away."""
        try:
            return os.path.samestat(os.stat(self.path, follow_symlinks=False), self.state())
        except OSError:  # in a jail, for instance
            return True

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._inner

    def names(self) -> list[str]:
        """Return the sockets in it, and the marks of workers."""
        return [name for name in os.listdir(self._inner) if _SOCKET.fullmatch(name)]

    def has(self, name: str) -> bool:
        """Return whether something is in it, and it where it was."""
        with suppress(OSError):
            os.stat(name, dir_fd=self._inner, follow_symlinks=False)
            return True
        return False

    def address(self, name: str) -> str:
        """Return what to bind or connect a socket to."""
        return f"{self._address}/{name}"

    def put_mark(self, name: str) -> int:
        """Put an empty file into it, and lock that for as long as the descriptor is open."""
        fd = self.open(name)
        with suppress(OSError):  # a file system without locks
            lock_file(fd)
        return fd

    def has_owner(self, name: str) -> bool:
        """Return whether whoever has put a mark lives; where nobody can tell, it does."""
        try:
            fd = self.open(name, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            return is_locked(fd)
        finally:
            os.close(fd)

    def open(self, name: str, flags: int = os.O_CREAT | os.O_RDWR) -> int:
        """Open a file in it; never wait, as for a pipe that has got there."""
        return os.open(name, flags | os.O_NONBLOCK, 0o600, dir_fd=self._inner)

    def identity(self, name: str) -> object:
        """Return what no other file has, while this one is there; None where there is none."""
        try:
            found = os.stat(name, dir_fd=self._inner, follow_symlinks=False)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def size(self, name: str) -> int:
        """Return the bytes of a file in it; 0 where there is none."""
        try:
            return os.stat(name, dir_fd=self._inner, follow_symlinks=False).st_size
        except OSError:
            return 0

    def rename(self, old: str, new: str) -> None:
        """Rename something in it."""
        os.rename(old, new, src_dir_fd=self._inner, dst_dir_fd=self._inner)

    def unlink(self, name: str) -> None:
        """Remove something from it, if it is there."""
        with suppress(OSError):
            os.unlink(name, dir_fd=self._inner)

    def close(self, for_good: bool = True) -> None:
        """Leave it; remove it if nobody else is there.

        :param for_good: whether all who use it end, and nobody comes back for what is kept in it.
            What is in a place that somebody has named stays there anyway.
        """
        with suppress(OSError):
            is_kept = _keeps(self._inner)
            if for_good and is_kept:
                os.close(self.open(_OVER))  # for the last one, which may not know that all end
            is_over = self._removes_outer and self.has(_OVER)
            is_last = lock(self._inner, exclusive=True) and self.is_in_place()
            if is_last and (is_over or not is_kept):
                _clear(self._outer, self._name)
        os.close(self._inner)
        with suppress(OSError):
            is_last = self._removes_outer and lock(self._outer, exclusive=True)
            if is_last and not _has_kept(self._outer):
                remove(self._outer, self._outer_path)
        os.close(self._outer)

    def leave_to_parent(self) -> None:
        """Close it in a child: the lock is the parent's."""
        os.close(self._inner)
        os.close(self._outer)


def path_of(url: str) -> str | None:
    """Return the path that a URL names; None where it names none.

    :raises ValueError: for a relative one.
    """
    path = unquote(url.partition("://")[2])
    if not path:
        return None
    if not path.startswith("/") or "\0" in path:
        raise ValueError(f"{url!r} names no absolute path: write local:///run/app/rooms")
    return os.path.normpath(path)


def name_of_app(prefix: str) -> str:
    """Return the name of an app's directory.

    :raises ValueError: for a prefix that is too long for one.
    """
    name = quote(prefix, safe=" ") or "%"
    if len(name) > 255:
        raise ValueError(f"a prefix has 255 bytes at most, once quoted as in a URL: {prefix!a:.80}")
    return name.replace(".", "%2E") if set(name) == {"."} else name


def prefix_of(name: str) -> str:
    """Return the prefix that a directory is named for."""
    return "" if name == "%" else unquote(name)


def open_directory(
    parent: str, names: Sequence[str], app: str, *, shared: bool = False
) -> Directory:
    """Open that of an app; make all that is missing.

    :param parent: one that is there.
    :param names: of the directories in it, each in the one before.
    :param shared: whether somebody has named it; else it has to be as we have made it.
    :raises BackplaneUnavailable: where that is impossible; says why, and what helps.
    """
    path = os.path.join(parent, *names)
    if not os.path.isdir(parent):
        raise BackplaneUnavailable(f"{parent} is no directory, so {path} cannot be made; {REMEDY}")
    sleep = unpatched("time", "sleep")
    with explained(path):
        for _ in range(_PATIENCE):
            with suppress(FileNotFoundError):
                return _open(parent, names, app, shared)
            sleep(0.001)
    raise BackplaneUnavailable(f"{path} is removed again and again; {REMEDY}")


def require_sockets() -> None:
    """Raise BackplaneUnavailable where the system or this Python has none that have paths."""
    if fcntl is None or not hasattr(socket, "AF_UNIX"):
        raise BackplaneUnavailable(
            "there are no UNIX sockets here: set UWSGI_WEBSOCKET_BACKPLANE to memory:// or redis://"
        )


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Raise BackplaneUnavailable for what the system refuses."""
    try:
        yield
    except NotADirectoryError:
        why = "is a symbolic link or no directory"
        raise BackplaneUnavailable(f"{path} {why}; {REMEDY}") from None
    except BackplaneUnavailable:
        raise
    except OSError as error:
        why = error.strerror or str(error)  # that of a path which is too long has no number
        raise BackplaneUnavailable(f"{path} cannot be used: {why}; {REMEDY}") from None


def _open(parent: str, names: Sequence[str], app: str, shared: bool) -> Directory:
    path = parent
    fd = os.open(parent, _PARENT)
    try:
        for name in names:
            path = os.path.join(path, name)
            fd = _descend(fd, name, path, shared)
        _use(fd)
        inner = enter(fd, app, os.path.join(path, app))
        try:
            _use(inner)
        except BaseException:
            os.close(inner)
            raise
        return Directory((path, fd), (app, inner), not shared)
    except BaseException:
        os.close(fd)
        raise


def _descend(fd: int, name: str, path: str, shared: bool) -> int:
    inner = enter(fd, name, path, 0o022 if shared else 0o077)
    os.close(fd)
    return inner


def enter(parent: int, name: str, path: str, forbidden: int = 0o077, make: bool = True) -> int:
    """Return the descriptor of a directory of ours in another.

    :param forbidden: bits of its mode.
    """
    if make:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
    fd = os.open(name, os.O_RDONLY | _DIRECTORY, dir_fd=parent)
    found = os.fstat(fd)
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid == os.geteuid() and not mode & forbidden:
        return fd
    os.close(fd)
    if found.st_uid != os.geteuid():
        why = f"belongs to uid {found.st_uid}, and this process is of uid {os.geteuid()}"
    else:
        why = f"is open to others: its mode is {mode:04o}, not 0700"
    raise BackplaneUnavailable(f"{path} {why}; {REMEDY}")


def _use(fd: int) -> None:
    """Lock a directory; raise FileNotFoundError where somebody removes it."""
    if not lock(fd) or not os.fstat(fd).st_nlink:
        raise FileNotFoundError


def lock(fd: int, exclusive: bool = False) -> bool:
    """Lock a directory; return whether that went, or nobody can there."""
    try:
        fcntl.flock(fd, fcntl.LOCK_NB | (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH))
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return not exclusive
    return True


def lock_file(fd: int, *, unlock: bool = False) -> bool:
    """Lock a file, or unlock it; return False where another process has locked it.

    :raises OSError: on a file system without locks.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_UN if unlock else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(fd: int) -> bool:
    """Return whether somebody has locked a file; yes where nobody can tell."""
    try:
        # Shared, so that two who look at a time do not take each other for the owner.
        fcntl.flock(fd, fcntl.LOCK_NB | fcntl.LOCK_SH)
    except OSError:
        return True
    return False


def remove(fd: int, path: str) -> None:
    """Remove a directory that nobody uses, with what the dead have left; and the one around it,
    if there is nothing else in it."""
    for app in os.listdir(fd):
        _clear(fd, app)
    above = os.open("..", _PARENT, dir_fd=fd)
    try:
        os.rmdir(os.path.basename(path), dir_fd=above)
        further = os.open("..", _PARENT, dir_fd=above)
        try:
            os.rmdir(os.path.basename(os.path.dirname(path)), dir_fd=further)
        finally:
            os.close(further)
    finally:
        os.close(above)


def _clear(parent: int, app: str) -> None:
    fd = os.open(app, os.O_RDONLY | _DIRECTORY, dir_fd=parent)
    try:
        for name in filter(_is_ours, os.listdir(fd)):
            os.unlink(name, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(app, dir_fd=parent)


def _has_kept(fd: int) -> bool:
    """Return whether something is kept in a directory in this one."""
    for app in os.listdir(fd):
        with suppress(OSError):
            inner = os.open(app, os.O_RDONLY | _DIRECTORY, dir_fd=fd)
            try:
                if _keeps(inner):
                    return True
            finally:
                os.close(inner)
    return False


def _keeps(fd: int) -> bool:
    """Return whether there is in a directory what outlives all workers, until the instance ends."""
    return any(name == STORE or _FIGURES.fullmatch(name) for name in os.listdir(fd))


def _is_ours(name: str) -> bool:
    return any(ours.fullmatch(name) for ours in (_SOCKET, _STORE, _FIGURES, _SEATS))
