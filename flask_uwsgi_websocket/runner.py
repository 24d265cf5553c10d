"""Run an app on uWSGI from its own script, also one without the extension."""

from .inspection.binaries import find_uwsgi
from .launch.run import run_uwsgi

__all__ = ["find_uwsgi", "run_uwsgi"]
