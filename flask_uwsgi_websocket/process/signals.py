"""The signals that stop a process whose own handlers for them are in C, as uWSGI's are.

While they are ours Python's C handler takes them. It wakes our thread at once, through the wakeup
descriptor, whatever the main thread is doing. They are not blocked and waited for with
``sigwait()``: programs that a handler starts would inherit the mask, and ``Popen.terminate()``
would not end them.
"""

from __future__ import annotations

import ctypes
import os
import signal
from _thread import get_ident
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..helpers.threads import wait_until
from . import starting

#: Signals that stop a worker, and the close code that tells its clients (RFC 6455 7.4.1, and
#: IANA's registry for 1012): going away for good, or back in a moment.
STOP_SIGNALS = {signal.SIGINT: 1001, signal.SIGTERM: 1012}
if hasattr(signal, "SIGHUP"):  # not on Windows
    STOP_SIGNALS[signal.SIGHUP] = 1012

#: Has a worker end its requests and be replaced.
RELOAD_SIGNAL = getattr(signal, "SIGHUP", signal.SIGTERM)

#: Larger than any system's ``struct sigaction``, which has 152 bytes in glibc.
_ACTION_SIZE = 1024


class StopSignals:
    """Takes the stop signals of this process, and gives them back.

    :param serving: whether the server has set its own handlers. Before that they are those of the
        process that it was forked from, which know nothing of this one: what comes then waits here.
    :raises ValueError: outside of the main thread, or in a sub-interpreter.
    """

    def __init__(self, serving: bool = True) -> None:
        self._main_thread = get_ident()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._ours: dict[int, Any] = {}
        self._theirs: dict[int, Any] = {}
        for signum in STOP_SIGNALS:
            theirs = action_of(signum)
            signal.signal(signum, _ignore)
            self._ours[signum] = action_of(signum)
            if serving:
                set_action(signum, theirs)

    def take(self) -> None:
        """Handle the signals from now on; from any thread, and as often as one likes."""
        for signum, ours in self._ours.items():
            theirs = action_of(signum)
            if _handler(theirs) != _handler(ours):
                self._theirs[signum] = theirs
                set_action(signum, ours)

    def give_back(self) -> None:
        """Let those handlers serve again that did before :meth:`take`; from any thread."""
        while self._theirs:
            set_action(*self._theirs.popitem())

    def hand_back(self, signum: int) -> None:
        """Give the signals back, and send one to the main thread, as the system would have; from
        any thread.

        uWSGI's handlers are not called by name: a shared library does not show them, and those of
        old versions crash in another thread.
        """
        self.give_back()
        signal.pthread_kill(self._main_thread, signum)

    def simulate(self, signum: int) -> None:
        """Act as if the signal had come, also where no thread is left that could be given it."""
        os.write(self._writer, bytes([signum]))

    def wait(self) -> signal.Signals:
        """Block until one comes, and the server has handlers to give it to."""
        while True:
            # Signals for which the app has handlers come here, too.
            signum = os.read(self._reader, 1)[0]
            if signum in self._ours:
                wait_until(self._has_theirs)
                return signal.Signals(signum)

    def _has_theirs(self) -> bool:
        """Return whether the server has set its own handlers by now."""
        return bool(self._theirs) or all(
            _handler(action_of(signum)) != _handler(ours) for signum, ours in self._ours.items()
        )


@contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Leave them to other threads meanwhile, and for ever in a thread that is started in here.

    A thread that blocked them itself would do so too late: uWSGI's own handler of SIGINT, in any
    but its own thread, hangs.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def stop_signals_unblocked() -> Iterator[None]:
    """Let the calling thread have them meanwhile."""
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _ignore(signum: int, frame: Any) -> None:
    """Do nothing, in the main thread: another one handles it."""


def action_of(signum: int) -> Any:
    """Return what this process does on a signal, also where C decides it."""
    action = ctypes.create_string_buffer(_ACTION_SIZE)
    ctypes.CDLL(None).sigaction(int(signum), None, action)
    return action


def _handler(action: Any) -> int | None:
    """Return the address of a handler, which stands first; glibc leaves rubbish behind it."""
    return ctypes.c_void_p.from_buffer(action).value


def is_unheeded(signum: int) -> bool:
    """Return whether nobody has set a handler of a signal that a worker heeds while it serves.

    It is ignored then, as in uWSGI's master, also where C has it so; or ends what starts.
    """
    address = _handler(action_of(signum))  # None by default
    return address is not None and address in (signal.SIG_IGN, starting.handler())


def set_action(signum: int, action: Any) -> None:
    """Do on a signal what :func:`action_of` has found; from any thread."""
    ctypes.CDLL(None).sigaction(int(signum), action, None)
