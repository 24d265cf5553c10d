"""Replaces the worker of debug mode when the code has changed. Internal; uWSGI runs this file by
its path, in the worker (``--lazy``) and before it loads the app.

uWSGI's own reloader looks at nothing in a worker whose app does not load, so that it would miss the
edit which mends it, and it runs in a thread that gevent's patch does not bear.

This imports nothing of the package, which would import Flask. An app may patch in its first line,
and the locks that Werkzeug and Jinja have taken from :mod:`threading` before stay unpatched.

With ``--lazy`` the master, told to reload, replaces its workers: WebSockets get their Close, and
uWSGI's router goes on, for which HTTP waits.
"""

from __future__ import annotations

import _thread
import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

#: The app's files as a JSON list, set by the process that became uWSGI.
WATCH_VARIABLE = "FLASK_UWSGI_WATCH"

#: Seconds between two looks at them; not set where uWSGI's reloader does it.
INTERVAL_VARIABLE = "FLASK_UWSGI_WATCH_INTERVAL"

# An attribute of uWSGI's module: the package imports this file once more, under another name.
_BEGUN = "flask_uwsgi_websocket_watches"


class Watch:
    """A thread that looks at the files of the app, and at all that were imported."""

    def __init__(self, files: list[str], interval: float, master: int) -> None:
        self._files = files
        self._interval = interval
        self._master = master
        self._modified: dict[str, int] = {}
        self._beginning = _action_of_reload()

    def start(self) -> None:
        """Begin, in a thread of the system's of which the ``threading`` module knows nothing: so
        gevent may patch that later, or have patched it."""
        self._has_changed()  # from before the app is loaded
        _original(_thread, "start_new_thread")(self._run, ())

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for others
        sleep = _original(time, "sleep")
        while not self._has_changed():
            sleep(self._interval)
        # A worker that still loads has the master's handler, which would do the master's work.
        while _action_of_reload() == self._beginning:
            sleep(0.1)
        os.kill(self._master, signal.SIGHUP)

    def _has_changed(self) -> bool:
        for file in (*self._files, *_imported()):
            try:
                modified = os.stat(file).st_mtime_ns
            except OSError:  # is being written anew
                continue
            if self._modified.setdefault(file, modified) != modified:
                print(f"{file} has changed: replacing the worker", file=sys.stderr, flush=True)
                return True
        return False


def _imported() -> Iterator[str]:
    for module in tuple(sys.modules.values()):
        file = getattr(module, "__dict__", {}).get("__file__")
        if isinstance(file, str):
            yield file


def _original(module: ModuleType, name: str) -> Any:
    """Return a function as it was before gevent's patch."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey.get_original(module.__name__, name) if monkey else getattr(module, name)


def _action_of_reload() -> bytes:
    """Return what this process does on the signal to reload, as the C library has it."""
    # As in process/signals.py, which cannot be imported here.
    action = ctypes.create_string_buffer(1024)  # more than any system's struct sigaction
    ctypes.CDLL(None).sigaction(int(signal.SIGHUP), None, action)
    return action.raw


def name_to_uwsgi(files: list[str]) -> None:
    """Have uWSGI's reloader watch these files, where that does it, without ``--lazy``."""
    for file in files:
        module = ModuleType(f"flask_uwsgi_websocket watches {file}")
        module.__file__ = file
        sys.modules[module.__name__] = module


def keep_asyncio_alive() -> None:
    """Set the loop for which uWSGI's asyncio engine asks, as nobody does without the app."""
    uwsgi = sys.modules["uwsgi"]
    if not uwsgi.opt.get("asyncio"):
        return
    import asyncio
    import warnings

    def have_a_loop() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                asyncio.get_event_loop()
            except RuntimeError:
                asyncio.set_event_loop(asyncio.new_event_loop())

    if uwsgi.worker_id():
        have_a_loop()
    else:
        uwsgi.post_fork_hook = have_a_loop  # type: ignore[attr-defined]


def begin() -> None:
    """Watch, in a uWSGI in debug mode, whoever imports this file first."""
    uwsgi: Any = sys.modules.get("uwsgi")
    if not uwsgi or WATCH_VARIABLE not in os.environ or hasattr(uwsgi, _BEGUN):
        return
    setattr(uwsgi, _BEGUN, True)
    files = json.loads(os.environ[WATCH_VARIABLE])
    interval = os.environ.get(INTERVAL_VARIABLE)
    if interval is None:
        name_to_uwsgi(files)
    elif uwsgi.worker_id() == 1:
        Watch(files, float(interval), uwsgi.masterpid()).start()
    keep_asyncio_alive()


begin()
