"""Finds out what uWSGI's master is about, in a worker that it has told to end. Not for Windows."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from fcntl import ioctl
from functools import partial
from termios import FIONREAD

from ..helpers.threads import unpatched, wait_until

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
            # No other greenlets: they would end the worker meanwhile.
            wait_until(partial(_is_empty, fifo), READS, sleep=unpatched("time", "sleep"))
            return not _is_empty(fifo)
        except OSError:
            continue
        finally:
            os.close(fifo)
    return False


def _is_empty(fifo: int) -> bool:
    return not int.from_bytes(ioctl(fifo, FIONREAD, bytes(4)), sys.byteorder)
