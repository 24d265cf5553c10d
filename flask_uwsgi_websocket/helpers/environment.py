"""Switches in the environment, and of Flask."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask


def is_on(variable: str, default: bool = False) -> bool:
    """Tell whether an environment variable says yes, read as Flask reads ``FLASK_DEBUG``.

    :param default: for one that is not set, or empty.
    """
    value = os.environ.get(variable)
    return value.lower() not in ("0", "false", "no") if value else default


def propagates(app: Flask) -> bool:
    """Tell whether an app's exceptions go on to its caller, by Flask's own key."""
    propagate = app.config["PROPAGATE_EXCEPTIONS"]
    return bool(app.testing or app.debug if propagate is None else propagate)
