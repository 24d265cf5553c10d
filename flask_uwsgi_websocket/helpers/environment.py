"""Switches in the environment."""

from __future__ import annotations

import os


def is_on(variable: str, default: bool = False) -> bool:
    """Tell whether an environment variable says yes, read as Flask reads ``FLASK_DEBUG``.

    :param default: for one that is not set, or empty.
    """
    value = os.environ.get(variable)
    return value.lower() not in ("0", "false", "no") if value else default
