"""The functions of an app that are told who came to a room, and who left."""

from __future__ import annotations

from _thread import RLock
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

from flask import Flask

from ..engines.base import Engine
from ..helpers.functions import name_of
from ..helpers.log import RateLimit, log_exception, logger
from ..process.fork import own
from ..rooms.presence.presence import Event, Happened
from .background import reported

Function = Callable[..., Any]
#: Calls that wait for another one, above which the log tells.
_MANY = 1000


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
        self._running = ""
        self._warning, self._failure = RateLimit(), RateLimit()
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
        elif len(self._waiting) >= _MANY and self._warning.passes():
            logger.warning(
                "%d calls of functions that are told of rooms wait for %s: what takes long should "
                "start background work",
                len(self._waiting),
                self._running,
            )

    def _start(self, engine: Engine) -> None:
        def work() -> None:
            with self._goes_on(engine):
                while (call := self._take()) is not None:
                    function, app, told = call
                    with reported(_what(function), app, engine), app.app_context():
                        function(*told)

        async def work_asynchronously() -> None:
            with self._goes_on(engine):
                while (call := self._take()) is not None:
                    function, app, told = call
                    with reported(_what(function), app, engine), app.app_context():
                        await function(*told)

        chosen: Function = work_asynchronously if engine.asynchronous else work
        try:
            engine.start_task(chosen, self._timeout, finish=True)
        except Exception as error:  # such as for want of a thread: what happens next tries again
            self._is_running = False
            if self._failure.passes():
                log_exception("functions are not told yet of what happened in rooms", error=error)

    @contextmanager
    def _goes_on(self, engine: Engine) -> Iterator[None]:
        """Have the others called by another task, where a function has ended this one."""
        try:
            yield
        except engine.killed as error:
            worker = engine.running_worker()
            if worker is None or worker.stopping is None:
                if self._failure.passes():
                    log_exception("%s has ended by being cancelled", self._running, error=error)
                self._start(engine)
            raise

    def _take(self) -> tuple[Function, Flask, tuple[Any, ...]] | None:
        with self._lock:
            if self._waiting:
                call = self._waiting.popleft()
                self._running = _what(call[0])
                return call
            self._is_running = False
            return None

    def leave_to_parent(self) -> None:
        """Forget what the parent is to call, in a child process."""
        self._lock = RLock()
        self._waiting.clear()
        self._is_running = False


def _what(function: Function) -> str:
    return f"{name_of(function)}, which is told of rooms"
