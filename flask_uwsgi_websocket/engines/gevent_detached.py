"""A request that outlives itself, under gevent: it runs in a greenlet of its own from the start."""

from __future__ import annotations

import contextvars
import sys
from typing import Any

import gevent
from gevent.event import AsyncResult

from ..connection.detached import Application, end_late, in_context, report_late
from ..connection.worker import Worker
from .base import Engine


class GeventDetachedRequest(gevent.Greenlet):  # type: ignore[misc]  # untyped
    """Runs a request in a greenlet of its own; see detached.py."""

    __slots__ = ("_application", "_context", "_engine", "_worker", "answer")

    #: What gevent keeps of the stack, for its debugging tools: it would be the same for all.
    spawning_stack_limit = 0

    def __init__(self, engine: Engine, application: Application) -> None:
        super().__init__()
        self._context = self.gr_context = contextvars.copy_context()  # type: ignore[misc]
        #: For uWSGI's greenlet; None once the request is detached.
        self.answer: Any = AsyncResult()
        self._engine = engine
        self._application = application
        self._worker: Worker | None = None  # once the request is detached

    def _run(self) -> None:
        try:
            body = self._application(self)
            if self.answer is not None:
                self.answer.set(in_context(self._context, body))
            else:
                end_late(body)
        except BaseException as error:
            if self.answer is not None:
                self.answer.set_exception(error, sys.exc_info())
            else:
                report_late(error)
        if self._worker is not None:
            self._worker.detached.pop(self, None)

    def detach(self) -> None:
        worker = self._engine.worker()
        worker.run_on_loop(self._leave, worker)

    def _leave(self, worker: Worker) -> None:
        if self.dead:  # it has left a generator behind, which only now comes to the handshake
            return
        self._worker = worker
        worker.detached[self] = None
        self._engine.process.unbind_request(self)
        answer, self.answer = self.answer, None
        answer.set(None)
