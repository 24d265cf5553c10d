"""Keeps a child process from its parent's connections, and from going on with its requests.

A child of ``os.fork()``, as ``multiprocessing`` makes them, is a copy of its parent: it has the
parent's connections, its handlers of signals, and the epoll that the parent's loop waits for. What
it did with them would happen to the parent's clients.

uWSGI forks its own processes in C, where nothing of this is called; or with
``--py-call-uwsgi-fork-hooks`` is, and has to leave them what is the parent's.
"""

from __future__ import annotations

import os
import signal
import sys
from _thread import _local
from contextlib import suppress
from typing import Any, Protocol
from weakref import WeakValueDictionary

from ..helpers.log import log_exception
from ..helpers.threads import caller
from .signals import STOP_SIGNALS
from .starting import is_fork_of_server


class Owner(Protocol):
    """Has something of this process alone."""

    def leave_to_parent(self) -> None:
        """Give it up, in a child: without a lock, which nobody there may ever release."""


class _Fork(_local):
    """The fork that the calling thread is at; in a child, the one that made it."""

    parent = 0  # where it is at none of Python's
    #: Who called it.
    caller: list[Any] | None = None
    #: The signals that were blocked.
    mask: set[Any]


#: What ends a process. Workers let SIGQUIT pass: see starting.py.
_ENDING = {*STOP_SIGNALS, getattr(signal, "SIGQUIT", signal.SIGTERM)}  # not on Windows

_owners: WeakValueDictionary[int, Owner] = WeakValueDictionary()  # those that come first go first
_fork = _Fork()
_is_hooked = False


def own(owner: Owner) -> None:
    """Have an owner give up what it has in every child of this process."""
    global _is_hooked
    _owners.setdefault(id(owner), owner)
    if not _is_hooked and hasattr(os, "register_at_fork"):  # not on Windows
        _is_hooked = True
        os.register_at_fork(
            before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
        )


def reset_signals() -> None:
    """Handle the signals that stop a process as Python does, in a child that is being made."""
    with suppress(ValueError):  # a sub-interpreter
        signal.set_wakeup_fd(-1)  # through it, a signal to the child would reach the parent
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for signum in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, signal.SIG_DFL)
        if signal.getsignal(signal.SIGQUIT) is signal.SIG_DFL:  # not the app's
            signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    _fork.mask -= _ENDING


class end_of_children:
    """End a child that was made in here where its parent goes on: what follows is the parent's.

    A class, since each open connection keeps one, and a generator weighs five times as much.
    """

    __slots__ = ("_me",)

    def __enter__(self) -> None:
        self._me = caller()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if _is_child_of(self._me):
            _exit(_status(error) if error is not None else 0)


def _is_child_of(parent: list[Any]) -> bool:
    """Return whether this process was made by that very greenlet and Task: a child has others."""
    return _fork.caller == parent and _fork.parent != os.getpid()


def _status(error: BaseException) -> int:
    """Return the exit status that an exception means."""
    if not isinstance(error, SystemExit):
        log_exception("Exception in a child process that was forked in a request", error=error)
        return 1
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    print(error.code, file=sys.stderr)
    return 1


def _exit(status: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(status & 0xFF)


def _before() -> None:
    if is_fork_of_server():
        return
    _fork.parent, _fork.caller = os.getpid(), caller()
    # Until the child has handlers of its own: those of the parent may tell the parent.
    _fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)


def _after_in_parent() -> None:
    if _fork.parent:
        signal.pthread_sigmask(signal.SIG_SETMASK, _fork.mask)
        _fork.parent, _fork.caller = 0, None


def _after_in_child() -> None:
    if _fork.parent in (0, os.getpid()):
        return  # one of uWSGI's processes, or with --py-call-osafterfork also where none is new
    for owner in tuple(_owners.values()):
        try:
            owner.leave_to_parent()
        except Exception as error:  # of one: the others must leave theirs all the same
            log_exception("a child process may share connections with its parent", error=error)
    signal.pthread_sigmask(signal.SIG_SETMASK, _fork.mask)
