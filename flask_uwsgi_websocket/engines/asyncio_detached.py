"""A request that outlives itself, under asyncio: its greenlet parks while the loop runs."""

from __future__ import annotations

import asyncio
import contextvars
from typing import cast

import greenlet

from ..connection.detached import Application, Body, end_late, in_context, report_late
from ._driver import PARKED
from .base import Engine


class AsyncioDetachedRequest(greenlet.greenlet):  # type: ignore[misc]  # untyped
    """Runs a request in a greenlet of its own; see detached.py.

    Whenever the loop runs, uWSGI's greenlet for a request is parked by uWSGI or has ended. So
    until the request is detached, its greenlet parks by having uWSGI's greenlet do it.
    """

    __slots__ = (
        "_application",
        "_context",
        "_engine",
        "_leaving",
        "_loop",
        "_loops_greenlet",
        "_uwsgis",
    )

    def __init__(self, engine: Engine, application: Application) -> None:
        uwsgis = greenlet.getcurrent()
        super().__init__(parent=uwsgis)
        self._context = self.gr_context = contextvars.copy_context()  # type: ignore[misc]
        self._engine = engine
        self._application = application
        self._loop = asyncio.get_running_loop()
        self._loops_greenlet = uwsgis.parent
        #: None once the request is detached.
        self._uwsgis: greenlet.greenlet | None = uwsgis
        self._leaving = False  # at the next park

    def run(self) -> Body:
        try:
            body = self._application(self)
            if self._uwsgis is not None:
                return in_context(self._context, body)
            end_late(body)
        except BaseException as error:
            if self._uwsgis is not None:
                raise  # to uWSGI's greenlet, which is the parent
            report_late(error)
        self._engine.worker().detached.pop(self, None)
        return ()

    def answer(self) -> Body:
        """Run the request for uWSGI; return its answer, or nothing once it is detached."""
        came = self.switch()
        while not self.dead and self._uwsgis is not None:
            # What uWSGI's own functions wait for brings the loop's switch here too, with nothing.
            if came is PARKED:
                self._engine.process.suspend()
                if self._uwsgis is None:
                    return ()
            came = self.switch()
        return cast(Body, came) if self.dead else ()

    def park(self) -> None:
        """Let the loop run until :meth:`wake`; in the greenlet of the request itself."""
        uwsgis = self._uwsgis
        if uwsgis is None:
            assert self._loops_greenlet is not None
            self._loops_greenlet.switch()
        elif self._leaving:
            self._leave()
            uwsgis.switch()
        else:
            uwsgis.switch(PARKED)

    def wake(self) -> None:
        """Go on after :meth:`park`; for a callback of the loop."""
        (self if self._uwsgis is None else self._uwsgis).switch()

    def detach(self) -> None:
        if greenlet.getcurrent() is self:
            self._leaving = True
        else:
            self._loop.call_soon_threadsafe(self._leave_parked)

    def _leave(self) -> None:
        self._engine.worker().detached[self] = None
        self._engine.process.unbind_request(self)
        self.parent = self._loops_greenlet  # type: ignore[misc]
        self._uwsgis = None
        # It is suspended in a switch to uWSGI's greenlet, which that keeps though it is dead. So it
        # parks once more.
        self._loop.call_soon(self._park_anew)

    def _park_anew(self) -> None:
        if not self.dead:
            self.switch()

    def _leave_parked(self) -> None:
        uwsgis = self._uwsgis
        if uwsgis is not None and not self.dead:
            self._leave()
            uwsgis.switch()
