"""Looks through what stands around a function: decorators, partials, methods, callable objects."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial, partialmethod
from typing import Any


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Tell whether calling this gives a coroutine, its own or that of the function inside it."""
    return any(inspect.iscoroutinefunction(layer) for layer in layers(function))


def is_decorated(function: Callable[..., Any]) -> bool:
    """Tell whether decorators stand around a function that say so, as functools.wraps does."""
    return any(hasattr(layer, "__wrapped__") for layer in layers(function))


def innermost(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give the function that decorators and the like stand around."""
    *_, last = layers(function)
    found: Callable[..., Any] = last
    return found


def name_of(function: Callable[..., Any]) -> str:
    """Name a callable for a message; not each has a ``__name__``."""
    return getattr(innermost(function), "__qualname__", None) or repr(function)


def layers(function: Callable[..., Any]) -> Iterator[Any]:
    """Give a callable, and what it calls in turn, as far as it tells, from outside inwards."""
    seen: list[Any] = []
    layer: Any = function
    while layer is not None and not any(layer is known for known in seen):
        seen.append(layer)
        yield layer
        layer = _inner(layer)


def _inner(function: Any) -> Any:
    """Give what a callable calls; None where it does not tell."""
    if isinstance(function, (partial, partialmethod)):
        return function.func
    if inspect.ismethod(function):
        return function.__func__
    # What partialmethod leaves on a class is a function that carries it; by two names so far.
    for name in ("__partialmethod__", "_partialmethod", "__wrapped__"):
        inner = getattr(function, name, None)
        if inner is not None:
            return inner
    if inspect.isroutine(function) or inspect.isclass(function):
        return None
    # An object: its class' __call__.
    return getattr(type(function), "__call__", None)  # noqa: B004
