"""Waiting with a deadline, in coroutines."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def within(seconds: float | None, awaitable: Awaitable[T]) -> T:
    """Wait for something to be done, for so long; asyncio.TimeoutError then.

    :param seconds: None: for ever.
    """
    # Not asyncio.wait_for: before Python 3.12 it takes no notice of being cancelled at the moment
    # when what it waits for is done. Whoever tries again for ever would then never end.
    if sys.version_info >= (3, 11):
        async with asyncio.timeout(seconds):
            return await awaitable
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
