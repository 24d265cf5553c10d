"""Background work of an app: tasks beside its requests, and functions that start with a worker."""

from __future__ import annotations

from _thread import RLock
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask

from ..engines.base import Engine
from ..exceptions import EngineError
from ..helpers.engines import ENGINES
from ..helpers.functions import check_kind, name_of
from ..helpers.log import log_exception, logger
from ..helpers.wsgi import WSGIEnvironment
from ..process.leader import leader_of
from ..servers import uwsgi
from ..servers.find import background_engine

Function = Callable[..., Any]


class Background:
    """The background work of one :class:`~.extension.WebSocket` in this process."""

    def __init__(self, websocket: Any) -> None:
        self._websocket = websocket
        self._engine: Engine | None = None  # once this process serves
        self._lock = RLock()
        self._on_start: list[tuple[Function, bool]] = []
        #: Whether there are functions that the first request has to start.
        self.waits_for_request = False

    def add(self, function: Function, once: bool) -> None:
        """Start a function with each worker, or with one of them; at once if that serves."""
        self._check(function)
        if uwsgi.inside():
            try:
                uwsgi.require_engine(self._engine_name)
            except EngineError as error:
                logger.error("%s is not started: %s", name_of(function), error)
                return
        with self._lock:
            self._on_start.append((function, once))
            if self._engine is not None:
                self._begin(self._engine, function, once)
            else:
                self.waits_for_request = not uwsgi.inside()

    def begin_with_workers(self, engine: Engine) -> None:
        """Start the functions in each worker of uWSGI, once that serves."""
        if uwsgi.running_engine() == engine.name:
            uwsgi.after_fork(lambda: engine.when_serving(lambda: self._serve(engine)))

    def start_with_request(self, environ: WSGIEnvironment) -> None:
        """Start the functions elsewhere, where a first request tells who serves."""
        self.waits_for_request = False
        self._serve(background_engine(self._engine_name, environ))

    def start(self, function: Function, *args: Any, **kwargs: Any) -> Any:
        """Run a function beside all requests."""
        self._check(function)
        return self._run(self._running_engine(), function, *args, **kwargs)

    def sleep(self, seconds: float) -> None:
        """Wait as the handlers of this engine do."""
        self._running_engine().sleep(seconds)

    def is_stopping(self) -> bool:
        """Return whether this worker has been told to stop."""
        worker = None if self._engine is None else self._engine.running_worker()
        return worker is not None and worker.stopping is not None

    @property
    def _engine_name(self) -> str:
        name: str = self._websocket.middleware.engine_name
        return name

    def _running_engine(self) -> Engine:
        if self._engine is not None:
            return self._engine
        if uwsgi.inside():
            uwsgi.require_engine(self._engine_name)
            if not uwsgi.worker_id():
                raise RuntimeError(
                    "background work that is started while the app is imported is lost when uWSGI "
                    "forks its workers: start it in a function decorated with "
                    "@websocket.on_worker_start"
                )
        return background_engine(self._engine_name)

    def _serve(self, engine: Engine) -> None:
        with self._lock:
            if self._engine is not None:  # by another app of the same extension
                return
            self._engine = engine
            for function, once in self._on_start:
                self._begin(engine, function, once)

    def _begin(self, engine: Engine, function: Function, once: bool) -> None:
        if not once:
            self._run(engine, function)
            return
        leader = leader_of(engine.process.parent_of_workers())
        if leader is not None:
            engine.call_after(leader.wait, lambda: self._run(engine, function))
        elif engine.process.worker_id() <= 1:
            self._run(engine, function)

    def _run(self, engine: Engine, function: Function, *args: Any, **kwargs: Any) -> Any:
        what, app = f"the background work {name_of(function)}", self._websocket.app

        def work() -> None:
            with reported(what, app, engine):
                function(*args, **kwargs)

        async def work_asynchronously() -> None:
            with reported(what, app, engine):
                await function(*args, **kwargs)

        chosen: Function = work_asynchronously if engine.asynchronous else work
        return engine.start_task(chosen, self._websocket.timeout)

    def _check(self, function: Function) -> None:
        whose = f"background functions of {type(self._websocket).__name__}"
        check_kind(function, ENGINES[self._engine_name].asynchronous, whose)


@contextmanager
def reported(what: str, app: Flask | None, engine: Engine) -> Iterator[None]:
    """Log an exception; sys.exit() ends the work alone, as it ends a thread."""
    try:
        yield
    except engine.killed:
        raise
    except SystemExit:
        pass
    except BaseException as error:
        app_logger = logger if app is None else app.logger
        log_exception("Exception in %s", what, error=error, logger=app_logger)
