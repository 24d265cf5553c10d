"""Finds out what uWSGI's master is about, in a worker that it has told to end. Not for Windows."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from fcntl import ioctl
from termios import FIONREAD

from ..helpers.threads import unpatched

#: Seconds in which a master that goes on reads its fifo.
READS = 0.25

#: A command that the master does not know, and passes over in silence (core/fifo.c).
_NOTHING = b"\0"


def only_waits(fifos: Iterable[str]) -> bool:
    """Tell whether the master only waits for its workers to end, as after the command ``q``.

    The signal that it sends them is that of a reload; but it reads no further commands.

    :param fifos: ``--master-fifo``, of which it reads one at a time.
    """
    for path in fifos:
        try:
            fifo = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads this one now
            continue
        try:
            os.write(fifo, _NOTHING)
            return not _is_read(fifo)
        except OSError:
            continue
        finally:
            os.close(fifo)
    return False


def _is_read(fifo: int) -> bool:
    """Tell whether somebody soon reads all that is in it."""
    sleep = unpatched("time", "sleep")  # other greenlets would end the worker meanwhile
    deadline = time.monotonic() + READS
    while time.monotonic() < deadline:
        if not int.from_bytes(ioctl(fifo, FIONREAD, bytes(4)), sys.byteorder):
            return True
        sleep(0.001)
    return False
