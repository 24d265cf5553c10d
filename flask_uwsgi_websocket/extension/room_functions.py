"""The functions of an app that are told who came to a room, and who left."""

from __future__ import annotations

from _thread import RLock
from collections import deque
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

from flask import Flask

from ..engines.base import Engine
from ..helpers.functions import name_of
from ..process.fork import own
from ..rooms.presence.presence import Event, Happened
from .background import reported

Function = Callable[..., Any]


class RoomFunctions:
    """The functions of an extension, which run in the order of what happened, one at a time.

    In a thread, greenlet or Task that is there while there is something to do: a thousand who come
    at once do not start as many threads. A worker that stops lets it finish.

    :param timeout: seconds that it has then.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._functions: list[tuple[Happened, str, Function]] = []
        self._lock = RLock()
        self._waiting: deque[tuple[Function, Flask, tuple[Any, ...]]] = deque()
        self._is_running = False
        own(self)

    def add(self, what: Happened, pattern: str, function: Function) -> None:
        """Tell a function what happens in the rooms whose names match a pattern."""
        if not isinstance(pattern, str):
            raise TypeError(
                f"{what.value} needs the pattern of the rooms: @websocket.{what.value}('chat/*')"
            )
        self._functions.append((what, pattern, function))

    def tell(self, app: Flask, engine: Engine, event: Event) -> None:
        """Have all functions called that are to be; from any thread, without waiting."""
        told = (event.room,) if event.member is None else (event.room, event.member)
        calls = [
            (function, app, told)
            for what, pattern, function in self._functions
            if what is event.what and fnmatchcase(event.room, pattern)
        ]
        with self._lock:
            self._waiting.extend(calls)
            starts = bool(calls) and not self._is_running
            self._is_running |= starts
        if starts:
            self._start(engine)

    def _start(self, engine: Engine) -> None:
        def work() -> None:
            while (call := self._take()) is not None:
                function, app, told = call
                with reported(_what(function), app, engine), app.app_context():
                    function(*told)

        async def work_asynchronously() -> None:
            while (call := self._take()) is not None:
                function, app, told = call
                with reported(_what(function), app, engine), app.app_context():
                    await function(*told)

        chosen: Function = work_asynchronously if engine.asynchronous else work
        engine.start_task(chosen, self._timeout, finish=True)

    def _take(self) -> tuple[Function, Flask, tuple[Any, ...]] | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._is_running = False
            return None

    def leave_to_parent(self) -> None:
        """Forget what the parent is to call, in a child process."""
        self._lock = RLock()
        self._waiting.clear()
        self._is_running = False


def _what(function: Function) -> str:
    return f"{name_of(function)}, which is told of rooms"
