"""Who is at the other end of a UNIX socket."""

from __future__ import annotations

import os
import socket
import struct
from _socket import socket as Socket  # not the class that gevent's monkey patch replaces

#: Of <sys/socket.h>.
_UCRED = struct.Struct("3i")


def is_of_our_user(sock: Socket) -> bool:
    """Return whether a process of our own user connected there, or listens there.

    Where the kernel does not tell, as on macOS, the mode of the directory has to do.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return bool(_UCRED.unpack(peer)[1] == os.geteuid())
