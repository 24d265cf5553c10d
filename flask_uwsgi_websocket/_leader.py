"""Which worker of an instance does what only one of them may do.

It is the one that has bound a name in Linux's abstract namespace of UNIX sockets. The kernel frees
the name when the process ends, however it ends, and tells all who wait for that by closing their
connections to it. There is no file, which a chroot may lack and somebody may tidy away.
"""

from __future__ import annotations

import _thread
import os
import socket
import sys
from _socket import socket as Socket  # not the class that gevent's monkey patch replaces
from contextlib import suppress
from pathlib import Path
from typing import Any

from .engines.fork import own


class Leader:
    """Being the leader among the processes of an instance.

    :param parent: the process id of what started them all.
    """

    def __init__(self, parent: int) -> None:
        self._name = f"\0flask-uwsgi-websocket {os.getuid()} {parent} {_started_at(parent)}"
        self._socket: Socket | None = None
        self._electing = _unpatched_lock()  # several extensions may ask
        own(self)

    def wait(self) -> None:
        """Block until this process is the leader, which it then is for as long as it lives."""
        with self._electing:
            while self._socket is None:
                self._stand()

    def _stand(self) -> None:
        sock = Socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(self._name)
            sock.listen(1024)  # all others wait in there
            self._socket = sock
        except OSError:
            sock.close()
            self._wait_for_end_of_leader()

    def _wait_for_end_of_leader(self) -> None:
        sock = Socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with suppress(OSError):
            sock.connect(self._name)
            sock.recv(1)
        sock.close()
        os.sched_yield()  # it may have bound the name, and not listen yet

    def leave_to_parent(self) -> None:
        """Close the socket in a child, which may live longer."""
        if self._socket is not None:
            self._socket.close()


def leader_of(parent: int) -> Leader | None:
    """Give this process' candidacy; None where there are no names to bind, as on macOS."""
    return Leader(parent) if sys.platform == "linux" else None


def _unpatched_lock() -> Any:
    """Make a lock for threads, which gevent's are not."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None:
        return _thread.allocate_lock()
    return monkey.get_original("_thread", "allocate_lock")()


def _started_at(pid: int) -> str:
    """Tell one process from a later one of the same number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
