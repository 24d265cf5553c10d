"""Run an app on uWSGI from its own script, also one without :class:`.WebSocket`."""

from .launch.run import exec_uwsgi, run_uwsgi

__all__ = ["exec_uwsgi", "run_uwsgi"]
