"""A worker that is told to stop or to reload while it starts.

Until its server has set handlers of signals there, it has those of the process that it was forked
from. uWSGI's master ignores the signals until all workers are forked; later it acts on them, in the
worker as well: there they end the router, signal all other workers, and are lost on this one, which
serves on until uWSGI's mercy is over. So the worker exits at once: it has nobody to tell yet.
A SIGQUIT it lets pass, then and later, where it has a master that acts on it.

In C (``_starting.c``, which setup.py compiles where it can), since uWSGI forks in C. Without it the
signals are lost.
"""

from __future__ import annotations

import os
import sys
from functools import partial

from ..helpers.threads import is_of_module

try:
    from . import _starting
except ImportError:  # no compiler, or Windows
    _starting = None  # type: ignore[assignment]


def exit_workers_that_start(status: int, has_master: bool) -> None:
    """Have each worker that this process forks exit on a signal that stops it, while it starts.

    :param status: what the worker exits with.
    :param has_master: whether a SIGQUIT is for the master to act on.
    """
    if _starting is None:
        return
    _starting.exit_children(status, has_master)
    # What Python forks has Python's handlers, and no other: see fork.py.
    os.register_at_fork(
        before=_exempt_child_of_python,
        after_in_parent=partial(_starting.exempt_children, False),
        after_in_child=partial(_starting.exempt_children, False),
    )


def _exempt_child_of_python() -> None:
    _starting.exempt_children(not is_fork_of_server())


def exit_while_starting(status: int, has_master: bool) -> None:
    """Have this process, a worker that starts, exit on such a signal."""
    if _starting is not None:
        _starting.exit_here(status, has_master)


def leave_children_alone() -> None:
    """Let what this process forks have its handlers of signals: a worker forks no workers."""
    if _starting is not None:
        _starting.end()


def is_fork_of_server() -> bool:
    """Return whether the server forks, in a function that Python calls before a fork.

    uWSGI has it called too, with ``--py-call-uwsgi-fork-hooks``.
    """
    try:
        frame = sys._getframe(2)  # whoever calls os.fork(), or something that does
    except ValueError:
        return True  # nothing of Python's runs
    # Or nothing but the module that called pyuwsgi.run().
    return "pyuwsgi" in sys.modules and is_of_module(frame)


def handler() -> int | None:
    """Return the address of the handler that such a worker has, if it has one."""
    return None if _starting is None else _starting.handler()
