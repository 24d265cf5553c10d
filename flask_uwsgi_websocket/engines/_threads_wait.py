"""How a thread waits for a lock, and for a descriptor."""

from __future__ import annotations

import select
import time
from _thread import LockType
from collections.abc import Iterator


def acquire(lock: LockType, timeout: float) -> Iterator[bool]:
    """Try to acquire a lock; for a `for` statement, whose body releases it.

    That takes the one result without a moment in which an exception from another thread may strike,
    which there is between a call of acquire() and a `try`: so let nothing stand between `for`, `if`
    and `try`. A with statement has none either, but no timeout.

    :param timeout: 0 not to wait, -1 to wait for ever.
    """
    return map(lock.acquire, (True,), (timeout,)) if timeout else map(lock.acquire, (False,))


def wait_readable(fd: int, timeout: float | None) -> bool:
    """Wait for one descriptor; False after ``timeout`` seconds."""
    if hasattr(select, "poll"):  # which, unlike select, takes descriptors above 1,023
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(None if timeout is None else timeout * 1000))
    return bool(select.select([fd], [], [], timeout)[0])


def seconds_left(deadline: float | None) -> float:
    """Return the seconds until ``deadline``, as a lock's timeout: -1 is for ever."""
    return -1 if deadline is None else max(deadline - time.monotonic(), 0)
