"""Whose clock it is by which a record tells how old it is: no two machines' agree.

All processes of one machine count ``time.monotonic()`` from the same moment, whoever sets its time.
"""

from __future__ import annotations

import os
import zlib
from contextlib import suppress


def _name() -> bytes:
    """Return four bytes that those have in common whose ``time.monotonic()`` is the same."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            found = file.read()
    except OSError:  # nothing tells: it is that of this process and its children alone
        return os.urandom(4)
    with suppress(OSError):  # before Linux 5.6. time_namespaces(7) give a container another clock.
        found += os.readlink("/proc/self/ns/time").encode()
    return zlib.crc32(found).to_bytes(4, "big")


#: The name of our clock.
CLOCK = _name()
