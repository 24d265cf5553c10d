"""Paths through a snapshot: where the figures are that somebody wants to show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

#: What each ``*`` of a path stands for.
Names = tuple[str, ...]


def follow(snapshot: Any, path: str) -> Iterator[tuple[Names, Any]]:
    """Yield what is at a path, such as ``routes/*/messages_*``, with its names there.

    Each ``*`` is any end of a key. Nothing is yielded of what is not there.
    """
    yield from _follow(snapshot, path.split("/"))


def _follow(part: Any, keys: list[str]) -> Iterator[tuple[Names, Any]]:
    if not keys:
        yield (), part
        return
    stem, star, _ = keys[0].partition("*")
    for key, branch in part.items():
        if key == stem or (star and key.startswith(stem)):
            for names, figure in _follow(branch, keys[1:]):
                yield ((key[len(stem) :], *names) if star else names), figure
