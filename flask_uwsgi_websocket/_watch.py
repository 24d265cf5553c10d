"""Keeps debug mode alive through an error in the code. Internal; uWSGI runs this file by its path.

uWSGI's reloader watches the modules that are imported. After an edit that does not import, none
of the app's is, so nothing would notice the edit that mends it. This names the app's files to it
beforehand. It imports nothing of the package, which would import Flask before the app does.
"""

from __future__ import annotations

import json
import os
import sys
from types import ModuleType

#: The app's files as a JSON list, set by the process that became uWSGI.
WATCH_VARIABLE = "FLASK_UWSGI_WATCH"


def watch(files: list[str]) -> None:
    """Have uWSGI's reloader watch these files."""
    for file in files:
        module = ModuleType(f"flask_uwsgi_websocket watches {file}")
        module.__file__ = file
        sys.modules[module.__name__] = module


def keep_asyncio_alive() -> None:
    """Without the app nobody sets the loop for which uWSGI's asyncio engine asks."""
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

    uwsgi.post_fork_hook = have_a_loop  # type: ignore[attr-defined]


if sys.modules.get("uwsgi"):
    watch(json.loads(os.environ.get(WATCH_VARIABLE, "[]")))
    keep_asyncio_alive()
