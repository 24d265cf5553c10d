"""Publishing to the rooms of an app that has yet to tell which of them are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from flask_uwsgi_websocket.exceptions import BackplaneUnavailable
from flask_uwsgi_websocket.rooms.described import Described
from flask_uwsgi_websocket.rooms.record import Kind, Record

from .server import PATIENCE


class Deaf:
    """An exchange whose backplane never answers, until that is given up."""

    def __init__(self) -> None:
        self.is_busy: Callable[[], bool] = lambda: False
        self.tasks: list[asyncio.Task[None]] = []

    def also_sends(self, will_send: Callable[[], bool]) -> None:
        self.is_busy = will_send

    def run_soon(self, work: Callable[[], Any]) -> None:
        self.tasks.append(asyncio.ensure_future(work()))

    async def call(self, feature: str, do: Callable[[Any], Any]) -> Any:
        await asyncio.Event().wait()


def test_who_waits_is_told_when_nobody_asks_any_more() -> None:
    async def test() -> None:
        exchange: Any = Deaf()
        described = Described(exchange)
        for _ in range(2):  # and one that is used again asks again
            sent = described.send(Record(Kind.MESSAGE, ("room:a",)))
            assert exchange.is_busy()
            await asyncio.sleep(0)
            exchange.tasks.pop().cancel()
            with pytest.raises(BackplaneUnavailable):
                await asyncio.wait_for(asyncio.wrap_future(sent), PATIENCE)
            assert not exchange.is_busy()

    asyncio.run(test())
