"""Waiting with a deadline, which neither swallows a cancellation nor leaves anything behind."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from flask_uwsgi_websocket.engines.async_call import finish_within
from flask_uwsgi_websocket.exceptions import BackplaneUnavailable
from flask_uwsgi_websocket.helpers import waiting
from flask_uwsgi_websocket.helpers.waiting import within
from flask_uwsgi_websocket.rooms.futures import bounded

#: Seconds that nobody waits for.
LONG = 60.0


@pytest.fixture(autouse=True, params=[(3, 10), sys.version_info], ids=["3.10", "here"])
def version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the oldest Python has to do it, and as this one does."""
    monkeypatch.setattr(waiting, "sys", SimpleNamespace(version_info=request.param))


async def wait(future: asyncio.Future[Any]) -> Any:
    return await future


@pytest.mark.parametrize(
    "wait_for",
    [
        lambda future: within(LONG, future),
        lambda future: within(None, wait(future)),
        lambda future: finish_within(LONG, wait(future)),
    ],
    ids=["future", "coroutine", "call"],
)
def test_a_cancellation_counts_at_the_moment_of_success_too(
    wait_for: Callable[[asyncio.Future[Any]], Awaitable[Any]],
) -> None:
    async def check() -> None:
        future = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(wait_for(future))
        for _ in range(5):
            await asyncio.sleep(0)
        future.set_result("done")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(check())


def test_what_takes_too_long_has_ended_when_the_caller_hears_of_it() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.sleep(LONG)
        finally:
            await asyncio.sleep(0)
            ended.append(1)

    async def check() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await within(0.01, work())
        assert ended == [1]
        with pytest.raises(TimeoutError):
            await finish_within(0.01, work())
        with pytest.raises(BackplaneUnavailable, match="in time"):
            await bounded(Future(), 0.01)

    asyncio.run(check())


def test_results_and_errors_pass() -> None:
    async def fail() -> None:
        raise LookupError("this")

    async def check() -> None:
        assert await within(LONG, asyncio.sleep(0, "done")) == "done"
        with pytest.raises(LookupError, match="this"):
            await within(LONG, fail())

    asyncio.run(check())
