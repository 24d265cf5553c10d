"""Waiting with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def within(seconds: float, awaitable: Awaitable[T]) -> T:
    """Wait for something to be done, for so long; asyncio.TimeoutError then.

    That of asyncio takes no notice, before Python 3.12, of being cancelled at the moment when what
    it waits for is done. Whoever tries again for ever would then never end.
    """
    task = asyncio.ensure_future(awaitable)
    try:
        await asyncio.wait({task}, timeout=seconds)
    except BaseException:
        await _end(task)
        raise
    if task.done():
        return task.result()
    await _end(task)
    raise asyncio.TimeoutError


async def _end(task: asyncio.Future[T]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
