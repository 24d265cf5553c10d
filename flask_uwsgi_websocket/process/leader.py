"""The election of the worker that does what only one of an instance may do.

The leader is the one that has bound a name in Linux's abstract namespace of UNIX sockets. The
kernel frees the name when the process ends, however it ends, and tells all who wait for that by
closing their connections to it. There is no file, which a chroot may lack and somebody may tidy
away.

Any user of the machine may bind any such name. So nobody else can know ours beforehand, and nobody
waits in vain for what has bound it all the same.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import socket
import sys
from _socket import socket as Socket  # not the class that gevent's monkey patch replaces
from functools import cache

from ..helpers.log import logger
from ..helpers.threads import unpatched
from .credentials import is_of_our_user
from .fork import own

#: Seconds before the next attempt.
PAUSE = 0.05
#: Attempts in vain, one after another, until somebody else must have the name.
PATIENCE = 40
#: Attempts from one warning of that to the next.
WARN_EVERY = 1200
#: Of <elf.h>.
_AT_RANDOM = 25


class Leader:
    """The candidacy of this process, among those of its instance.

    :param parent: the process id of what started them all, by forks alone.
    """

    def __init__(self, parent: int) -> None:
        self._name = f"\0flask-uwsgi-websocket {parent} {_secret()}"
        #: Of a socket; no object, which Python would complain of at its exit: the kernel closes it.
        self._listener: int | None = None
        self._electing = unpatched("_thread", "allocate_lock")()  # several extensions may ask
        self._in_vain = 0  # attempts
        own(self)

    def wait(self) -> None:
        """Block until this process is the leader, which it then is for as long as it lives."""
        sleep = unpatched("time", "sleep")
        with self._electing:
            while self._listener is None and not self._stand():
                if self._wait_for_end_of_leader():
                    self._in_vain = 0
                else:
                    self._in_vain += 1
                    if self._in_vain % WARN_EVERY == PATIENCE:
                        self._warn()
                sleep(PAUSE)

    def _stand(self) -> bool:
        """Become the leader; return False if there is one."""
        sock = Socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(self._name)
            sock.listen(1024)  # all others wait in there
        except OSError:
            sock.close()
            return False
        self._listener = sock.detach()
        return True

    def _wait_for_end_of_leader(self) -> bool:
        """Block while it lives; return False where there is none of our own."""
        sock = Socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(self._name)
            if not is_of_our_user(sock):
                return False
            sock.recv(1)
        except OSError:  # it has ended meanwhile; or it has bound the name, and does not listen yet
            return False
        finally:
            sock.close()
        return True

    def _warn(self) -> None:
        logger.warning(
            "what is to run in one worker only does not run: another program has bound the name %r "
            "in the abstract namespace of UNIX sockets (see /proc/net/unix), and has to end first",
            "@" + self._name[1:],
        )

    def leave_to_parent(self) -> None:
        """Close the socket in a child, which may live longer."""
        if self._listener is not None and self._listener >= 0:
            os.close(self._listener)
            self._listener = -1  # a child of the child has closed it already


@cache  # once for a process, whichever extensions ask
def leader_of(parent: int) -> Leader | None:
    """Return this process' candidacy; None where there are no names to bind, as on macOS."""
    return Leader(parent) if sys.platform == "linux" else None


def _secret() -> str:
    """Return what only this process and its forks know: random bytes that each exec() gets."""
    getauxval = ctypes.CDLL(None).getauxval
    getauxval.restype, getauxval.argtypes = ctypes.c_ulong, (ctypes.c_ulong,)
    address = getauxval(_AT_RANDOM)
    # Not the bytes themselves: the C library makes its stack canaries of them.
    return hashlib.sha256(ctypes.string_at(address, 16)).hexdigest()[:32] if address else ""
