"""What ``flask websocket doctor`` says of what connects the workers of an app."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ..engines.async_thread import process_loop
from ..process.server_process import started_at
from ..rooms.backplane import BackplaneOptions
from ..rooms.exchange import Exchange, worker_name
from ..rooms.loop_calls import start, wait_for

#: Seconds within which a server says what it is, and that a doctor waits in all.
_TIMEOUT, _PATIENCE = 2.0, 10.0


def examine_backplane(app: Any, pid: int | None, say: Callable[[str], None]) -> bool:
    """Say what an operator should know of an app's backplane; return whether it works.

    :param pid: of the uWSGI that is looked at, where one runs.
    """
    url = app.config["UWSGI_WEBSOCKET_BACKPLANE"] or "local://"
    if url.startswith("memory:") or (url == "local://" and pid and not _is_ours(pid)):
        return True  # there is nothing to see, or not from here
    # Where none runs, its directory is made for us, which tells whether it would be for a server.
    parent = pid or os.getpid()
    options = BackplaneOptions(
        prefix=app.config["UWSGI_WEBSOCKET_PREFIX"] or "",
        worker=worker_name(),
        instance=(parent, started_at(parent)),
        timeout=_TIMEOUT,
    )
    exchange = Exchange(url, options, process_loop)
    try:
        told = wait_for(start(exchange.check()), _PATIENCE)
        if exchange.error is not None:
            say(f"error: rooms: {exchange.error}.")
            return False
        for line in told if pid or url != "local://" else ():
            say(f"note: rooms: {line}.")
        return True
    except (OSError, TimeoutError) as error:
        say(f"error: rooms: {error}.")
        return False
    finally:
        wait_for(start(exchange.stop()), _PATIENCE)


def _is_ours(pid: int) -> bool:
    """Return whether a process is of our user, whose directory is another's for others."""
    try:
        return os.stat(f"/proc/{pid}").st_uid == os.geteuid()
    except OSError:
        return False
