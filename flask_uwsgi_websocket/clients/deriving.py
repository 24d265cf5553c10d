"""Derive classes of clients, whichever of the two kinds a class is of."""

from __future__ import annotations

from functools import cache
from inspect import iscoroutinefunction
from typing import Any


def derived_class(
    client_class: type[Any], blocking: type[Any], asynchronous: type[Any]
) -> type[Any]:
    """Derive a class of clients from one of two that say what is different; always the same one.

    :param blocking: what goes before a class whose methods block, and ``asynchronous`` before one
        of coroutines.
    """
    different = asynchronous if iscoroutinefunction(client_class.receive) else blocking
    return _derived(different, client_class)  # type: ignore[arg-type]  # they hash


@cache
def _derived(different: type[Any], client_class: type[Any]) -> type[Any]:
    return type(client_class.__name__, (different, client_class), {})
