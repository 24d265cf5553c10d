"""Look inside callables: decorated functions, partials, methods, callable objects."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial, partialmethod
from typing import Any


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Return whether calling this gives a coroutine, its own or that of the function inside it."""
    return any(inspect.iscoroutinefunction(layer) for layer in layers(function))


def is_decorated(function: Callable[..., Any]) -> bool:
    """Return whether a function is decorated, as far as the decorators set ``__wrapped__``."""
    return any(hasattr(layer, "__wrapped__") for layer in layers(function))


def check_kind(function: Callable[..., Any], asynchronous: bool, whose: str) -> None:
    """Check that a function waits as the handlers of an engine do; TypeError names the remedy."""
    if is_coroutine_function(function) == asynchronous:
        return
    if asynchronous:
        raise TypeError(
            f"{name_of(function)} is a plain function: {whose} are coroutine functions (async "
            "def), which call plain ones with asyncio.to_thread()"
        )
    raise TypeError(
        f"{name_of(function)} is a coroutine function: {whose} are plain functions; use "
        "AsyncioWebSocket for async def"
    )


def innermost(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function inside all decorators and the like."""
    *_, last = layers(function)
    found: Callable[..., Any] = last
    return found


def name_of(function: Callable[..., Any]) -> str:
    """Name a callable for a message; not each has a ``__name__``."""
    return getattr(innermost(function), "__qualname__", None) or repr(function)


def layers(function: Callable[..., Any]) -> Iterator[Any]:
    """Yield a callable and what it calls in turn, from the outside in, as far as that is known."""
    seen: list[Any] = []
    layer: Any = function
    while layer is not None and not any(layer is known for known in seen):
        seen.append(layer)
        yield layer
        layer = _inner(layer)


def _inner(function: Any) -> Any:
    """Return what a callable calls; None where that is not known."""
    if isinstance(function, (partial, partialmethod)):
        return function.func
    if inspect.ismethod(function):
        return function.__func__
    # On a class, partialmethod leaves a function with one of two attributes, by Python's version.
    for name in ("__partialmethod__", "_partialmethod", "__wrapped__"):
        inner = getattr(function, name, None)
        if inner is not None:
            return inner
    if inspect.isroutine(function) or inspect.isclass(function):
        return None
    # An object: its class' __call__.
    return getattr(type(function), "__call__", None)  # noqa: B004
