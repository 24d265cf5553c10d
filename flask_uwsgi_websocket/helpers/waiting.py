"""Waits of threads that have nothing to be woken by, and of those that gevent must not switch."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

#: Seconds between two looks.
_PAUSE = 0.01


def wait_until(is_over: Callable[[], object], seconds: float = math.inf) -> None:
    """Look again and again whether something is over, for some seconds at most.

    It sleeps between two looks, as gevent does where its patch was applied.
    """
    deadline = time.monotonic() + seconds
    while not is_over() and time.monotonic() < deadline:
        time.sleep(_PAUSE)


def threads_are_greenlets() -> bool:
    """Tell whether gevent has replaced the threads of this process."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def unpatched(module: str, name: str) -> Any:
    """Return a function as it was before gevent's patch: for real threads, or to block all."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None:
        return getattr(import_module(module), name)
    return monkey.get_original(module, name)
