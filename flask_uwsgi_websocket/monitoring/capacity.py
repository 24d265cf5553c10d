"""How many connections a worker can hold, as far as this machine shows it."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from typing import Any

from ..servers import uwsgi
from ..servers.uwsgi.process import UWSGIProcess
from .stats import GONE


def capacity_of(worker: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a worker of `websocket.stats()` has open and may have; what is unknown is absent.

    `fds` and `max_fds` are descriptors, `max_open` WebSockets where each holds a core.
    """
    if worker["state"] in GONE:
        return {}
    return {**_descriptors(worker["pid"]), **_cores(worker["engine"])}


def _descriptors(pid: int) -> dict[str, int]:
    folder = f"/proc/{pid}/fd"
    try:
        # The kernel reports their number as the size from 6.2 on: no list of many thousands.
        number = os.stat(folder).st_size or len(os.listdir(folder))
        limit = resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
    except (AttributeError, OSError):  # no Linux, or no process of our user's
        return {}
    return {"fds": number} if limit == resource.RLIM_INFINITY else {"fds": number, "max_fds": limit}


def _cores(engine: str) -> dict[str, int]:
    """Return what is the same in all workers of an instance, as seen in this one."""
    most = UWSGIProcess(engine).max_websockets() if uwsgi.inside() else 0
    return {"max_open": most} if most else {}
