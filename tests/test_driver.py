"""The driver of asyncio handlers, on the loops that run it."""

from __future__ import annotations

import asyncio
import contextvars
import types
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import pytest
import uvloop

from flask_uwsgi_websocket.engines._driver import PARKED, Driver

variable = contextvars.ContextVar("variable", default="of nobody")


class Place:
    """Where a coroutine parks, as a connection without a message."""

    def __init__(self) -> None:
        self.drivers: dict[Any, Driver[Any]] = {}
        self.messages: list[str] = []

    @types.coroutine
    def receive(self) -> Generator[Any, None, str]:
        while not self.messages:
            yield PARKED
        return self.messages.pop(0)

    async def start(self, coroutine: Any) -> tuple[asyncio.Task[Any], Driver[Any]]:
        """A Task that drives the coroutine, which has run until it waits."""
        driver = Driver(coroutine, self.drivers)

        async def drive() -> Any:
            return await driver

        task = asyncio.get_running_loop().create_task(drive())
        await asyncio.sleep(0)
        assert self.drivers == {task: driver}
        return task, driver


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[Place], Awaitable[None]]], None]:
    def run(test: Callable[[Place], Awaitable[None]]) -> None:
        loop = request.param()
        place = Place()
        try:
            loop.run_until_complete(asyncio.wait_for(test(place), 10))
        finally:
            loop.close()
        assert place.drivers == {}

    return run


async def outside(action: Callable[[], object]) -> None:
    """Call it as a loop calls a reader: outside all Tasks, and nothing else in that turn."""
    called = asyncio.get_running_loop().create_future()

    def call() -> None:
        assert asyncio.current_task() is None
        action()
        assert asyncio.current_task() is None
        called.set_result(None)

    asyncio.get_running_loop().call_soon(call)
    await called


def test_it_runs_in_the_place_of_its_task(run) -> None:
    async def test(place: Place) -> None:
        seen = []

        async def handle() -> str:
            variable.set("of the handler")
            while (message := await place.receive()) != "end":
                seen.append((message, asyncio.current_task(), variable.get()))
            return "through"

        task, driver = await place.start(handle())
        for message in ("a", "b"):
            place.messages.append(message)

            def switch(message: str = message) -> None:
                driver.switch()
                assert seen[-1] == (message, task, "of the handler")  # at once

            await outside(switch)
        place.messages.append("end")
        await outside(driver.switch)
        assert await task == "through"
        assert variable.get() == "of nobody"

    run(test)


def test_its_task_takes_over_where_it_waits_for_something_else(run) -> None:
    async def test(place: Place) -> None:
        steps = []

        async def handle() -> None:
            await place.receive()
            await asyncio.sleep(0)
            steps.append("slept")
            await asyncio.gather(asyncio.sleep(0.001), asyncio.sleep(0.001))
            steps.append("gathered")
            steps.append(await place.receive())

        task, driver = await place.start(handle())
        place.messages.append("go")
        await outside(driver.switch)
        await outside(driver.switch)  # nothing is parked now
        while "gathered" not in steps:
            await asyncio.sleep(0)
        place.messages.append("last")
        await outside(driver.switch)
        await task
        assert steps == ["slept", "gathered", "last"]

    run(test)


@pytest.mark.parametrize("way", ["switch", "wake"])
def test_an_exception_reaches_who_awaits(run, way: str) -> None:
    async def test(place: Place) -> None:
        async def handle() -> None:
            await place.receive()
            raise LookupError("of the handler")

        task, driver = await place.start(handle())
        place.messages.append("go")
        await outside(getattr(driver, way))
        with pytest.raises(LookupError, match="of the handler"):
            await task

    run(test)


def test_a_wake_for_nothing_parks_again(run) -> None:
    async def test(place: Place) -> None:
        task, driver = await place.start(place.receive())
        for _ in range(3):
            await outside(driver.wake)
            await outside(driver.switch)
            await asyncio.sleep(0)
        assert not task.done()
        place.messages.append("here")
        await outside(driver.wake)
        assert await task == "here"

    run(test)


def test_cancelled_while_parked(run) -> None:
    async def test(place: Place) -> None:
        async def handle() -> str:
            try:
                await place.receive()
            except asyncio.CancelledError:
                return await place.receive()  # it may go on, as in any Task
            raise AssertionError

        task, driver = await place.start(handle())
        task.cancel()
        await outside(driver.switch)  # too late: the Task is about to run
        await asyncio.sleep(0)
        place.messages.append("after all")
        await outside(driver.switch)
        assert await task == "after all"

    run(test)


def test_a_timeout_while_parked(run) -> None:
    async def test(place: Place) -> None:
        async def handle() -> str:
            task = asyncio.current_task()
            assert task is not None
            timer = asyncio.get_running_loop().call_later(0.001, task.cancel)
            with pytest.raises(asyncio.CancelledError):
                await place.receive()
            timer.cancel()
            return "late"

        task, _ = await place.start(handle())
        assert await task == "late"

    run(test)


async def _wait_for_a_future() -> None:
    await asyncio.get_running_loop().create_future()


async def _wait_a_turn() -> None:
    await asyncio.sleep(0)


async def _return() -> None:
    """What a Task that has cancelled itself does not survive either."""


async def _fail() -> None:
    raise LookupError("of the handler")


@pytest.mark.parametrize(
    ("then", "outcome"),
    [
        (_wait_for_a_future, asyncio.CancelledError),
        (_wait_a_turn, asyncio.CancelledError),
        (_return, asyncio.CancelledError),
        (_fail, LookupError),
    ],
)
def test_it_cancels_its_own_task(
    run, then: Callable[[], Any], outcome: type[BaseException]
) -> None:
    async def test(place: Place) -> None:
        async def handle() -> None:
            await place.receive()
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await then()

        task, driver = await place.start(handle())
        place.messages.append("go")
        await outside(driver.switch)
        with pytest.raises(outcome, match="of the handler" if outcome is LookupError else None):
            await task

    run(test)


def test_what_it_awaits_is_cancelled_with_it(run) -> None:
    async def test(place: Place) -> None:
        cancelled = []

        async def work() -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.append(True)
                raise

        async def handle() -> None:
            await place.receive()
            working = asyncio.get_running_loop().create_task(work())
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_later(0.001, task.cancel)
            await working

        task, driver = await place.start(handle())
        place.messages.append("go")
        await outside(driver.switch)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cancelled

    run(test)


def test_a_nested_task_is_not_driven(run) -> None:
    async def test(place: Place) -> None:
        async def handle() -> bool:
            async def nested() -> bool:
                return asyncio.current_task() in place.drivers

            await place.receive()
            return await asyncio.get_running_loop().create_task(nested())

        task, driver = await place.start(handle())
        place.messages.append("go")
        await outside(driver.switch)
        assert await task is False

    run(test)
