"""How many connections a client has open, over all workers of an instance: at most so many.

Each connection of a client has a seat: one of so many bytes of a file, which no other connection
can have, since its worker has a lock on that byte. The kernel gives the lock to one process alone,
and takes it back when the process ends, however that does: so there is nothing to count, nothing to
ask others, and nothing to tidy up after them. The file is empty; its clients are far apart in it,
each at a place that only its name tells.

What a process has itself it has to remember: for the kernel it may lock a byte twice.
"""

from __future__ import annotations

import os
import re
from _thread import RLock
from contextlib import suppress
from errno import EACCES, EAGAIN
from hashlib import blake2b
from ipaddress import IPv6Address, ip_address

from ..engines.base import Engine
from ..exceptions import BackplaneUnavailable
from ..helpers.log import RateLimit, logger
from ..process.fork import own
from ..rooms.local.directory import SEATS, Directory
from ..rooms.local.instances import open_place
from ..servers import uwsgi

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: How many a client may have at most: the places of clients are so far apart.
MOST = 1024
#: The kernel looks through all locks of a file for each: with 100,000 in all that takes 0.1 ms.
FILES = 64


def client_name(user: str | None, address: str | None) -> str | None:
    """Return what a client is known by: as a user, or else by its address; None for neither.

    Whoever has one address in IPv6 has 2**64 of them as a rule: those are one.
    """
    if user is not None:
        return f"user {user}"
    try:
        found = ip_address(_without_port(address or ""))
    except ValueError:  # none, as of a UNIX socket, or what a proxy has made of it
        return f"address {address}" if address else None
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is None:
            return f"network {int(found) >> 64:x}"
        found = found.ipv4_mapped
    return f"address {found}"


#: Of the address with a port that some proxies write into X-Forwarded-For.
_with_port = re.compile(r"\[(?P<six>.+)\](:[0-9]*)?|(?P<four>[0-9.]+):[0-9]*").fullmatch


def _without_port(address: str) -> str:
    """Return an address without its port, which is another one for each connection."""
    found = _with_port(address)
    return address if found is None else found["six"] or found["four"]


class Seat:
    """A seat that a client has taken.

    :param byte: of the file.
    """

    __slots__ = ("_bytes", "_seats")

    def __init__(self, seats: Seats, byte: int) -> None:
        self._seats = seats
        self._bytes = [byte]

    def leave(self) -> None:
        """Let another connection of the client have it; once, or again to no effect.

        Never waits: it may be called under a connection's lock, for which whoever takes a seat may
        wait, in a signal handler or at the end of an object that come in between.
        """
        with suppress(IndexError):
            self._seats.give_up(self._bytes.pop())  # which of several threads one alone can

    __del__ = leave  # whatever became of the request


class Seats:
    """The seats that this process has, and those of other workers that it respects.

    :param prefix: of the app: others have other clients.
    :param engine: where there are other workers.
    """

    def __init__(self, prefix: str, engine: Engine | None) -> None:
        self._prefix = prefix
        self._engine = engine
        self._lock = RLock()  # of those who take seats
        self._taken: set[int] = set()  # the bytes that this process has, or tries to have
        self._directory: Directory | None = None
        self._files: dict[int, int] = {}
        self._is_broken = False  # since when there are no locks but for a try now and then
        self._again = RateLimit()
        own(self)

    def take(self, name: str, most: int) -> Seat | None:
        """Take a seat for a client; None where it has as many as it may.

        :param name: of the client, and of what is limited: routes have seats of their own.
        """
        digest = blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest()
        # A file may have 2**63 bytes, less one.
        place = int.from_bytes(digest, "big") // (4 * MOST) * MOST
        with self._lock:
            # All take the first that is free: nobody gets to where we have yet to look while there
            # is one behind us.
            for byte in range(place, place + most):
                if byte in self._taken:
                    continue
                self._taken.add(byte)
                seat = Seat(self, byte)
                if self._claim(byte):
                    return seat
                seat.leave()
        return None

    def give_up(self, byte: int) -> None:
        """Let others have a byte; never waits, see :meth:`Seat.leave`."""
        fd = self._files.get(_index(byte))
        if fd is not None:
            with suppress(OSError):
                fcntl.lockf(fd, fcntl.LOCK_UN, 1, byte)
        # Last: whoever takes it in this process locks it again.
        self._taken.discard(byte)

    def _claim(self, byte: int) -> bool:
        """Lock a byte; return False where another process has it."""
        if self._engine is None or (self._is_broken and not self._again.passes()):
            return True
        try:
            fcntl.lockf(self._file(byte), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except (BackplaneUnavailable, OSError, ValueError) as error:  # of a prefix that is too long
            if not (isinstance(error, OSError) and error.errno in (EACCES, EAGAIN)):
                self._warn(error)  # a file system without locks, for instance
                return True
            is_free = False
        else:
            is_free = True
        self._is_broken = False
        return is_free

    def _warn(self, error: Exception) -> None:
        if not self._is_broken:
            self._is_broken = True
            self._again.passes()  # which it does not again for a while
        logger.warning("max_connections counts in each worker by itself for now: %s", error)

    def _file(self, byte: int) -> int:
        index = _index(byte)
        fd = self._files.get(index)
        if fd is None:
            if self._directory is None:
                assert self._engine is not None
                self._directory = open_place(None, self._engine.process.instance(), self._prefix)
                self._engine.call_at_end(self._close)
            fd = self._files[index] = self._directory.open(f"{SEATS}{index:x}")
        return fd

    def _close(self) -> None:
        """Leave the directory, at the end of the process; the locks go with the files."""
        with self._lock:
            files, self._files = self._files, {}
            directory, self._directory = self._directory, None
            self._engine = None
        for fd in files.values():
            os.close(fd)
        if directory is not None:
            directory.close(for_good=False)

    def leave_to_parent(self) -> None:
        """Forget all, in a child process, to which no lock is handed down."""
        self._lock = RLock()
        self._taken = set()
        files, self._files = self._files, {}
        directory, self._directory = self._directory, None
        self._engine = None  # whatever it serves, it is no worker
        for fd in files.values():
            os.close(fd)
        if directory is not None:
            directory.leave_to_parent()


def _index(byte: int) -> int:
    """Return which file a byte is in: one for all seats of a client."""
    return byte // MOST % FILES


_by_prefix: dict[tuple[int, str], Seats] = {}
_making = RLock()


def seats_of(prefix: str, engine: Engine) -> Seats:
    """Return those of an app, of which a process must have one: see above."""
    key = os.getpid(), prefix
    seats = _by_prefix.get(key)
    if seats is None:
        with _making:
            is_worker = fcntl is not None and uwsgi.inside() and engine.process.worker_id() > 0
            seats = _by_prefix.setdefault(key, Seats(prefix, engine if is_worker else None))
    return seats
