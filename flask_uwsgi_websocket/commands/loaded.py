"""The app that a command is about, where there is one to load."""

from __future__ import annotations

from contextlib import suppress

import click
from flask import Flask
from flask.cli import NoAppException, ScriptInfo


def loaded_app(context: click.Context) -> Flask | None:
    """Return the app that the command line or the directory names; None where neither does."""
    info = context.find_object(ScriptInfo)
    if info is not None:
        with suppress(NoAppException):
            return info.load_app()
    return None


def prefix_of(app: Flask) -> str:
    """Return what names an app to others, also one without our extension."""
    return app.config.get("UWSGI_WEBSOCKET_PREFIX") or app.name
