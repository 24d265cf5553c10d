"""The start of a worker: which engine serves it, and what its log says first."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from importlib import import_module

from ...engines.base import Engine
from ...helpers.engines import WEBSOCKETS
from ...helpers.log import logger
from ...helpers.threads import threads_are_greenlets
from ...inspection.findings import Severity, Surroundings
from ...inspection.rules import judge
from ...process.fork import own
from ...process.starting import (
    exit_while_starting,
    exit_workers_that_start,
    leave_children_alone,
)
from .descriptors import ParentsSockets, descriptor_limit, disable_nagle_on_listeners, router_room
from .instance import (
    after_fork,
    has_master,
    inside,
    options,
    running_engine,
    version,
    worker_id,
    worker_state,
)
from .process import UWSGIProcess
from .requirements import warn_of_lost

#: A worker that ends with it is replaced without a word (uwsgi.h).
_QUIET_CODE = 29

#: What the log has said already: several extensions and apps share the process.
_said: set[str] = set()

_parents_sockets = ParentsSockets()


@cache
def engine(name: str) -> Engine:
    """Return an engine on uWSGI: one for the process, whichever apps and extensions use it."""
    # Imported when needed: what it stands on may not be installed.
    module = import_module(f"...engines.{name}", __package__)
    made: Engine = getattr(module, f"{name.capitalize()}Engine")(UWSGIProcess(name))
    return made


def set_up(
    engine: Engine, timeout: float, ping_interval: float, classes: Mapping[str, str] = WEBSOCKETS
) -> None:
    """Prepare this uWSGI for WebSockets on an engine, if it runs that. Times are in seconds."""
    if worker_id() <= 1:  # with --lazy-apps the first worker says it for all
        _warn_of_options(
            Surroundings(
                engine=engine.name,
                timeout=timeout,
                ping_interval=ping_interval,
                descriptors=descriptor_limit(),
                version=version(),
                classes=classes,
            )
        )
    disable_nagle_on_listeners()
    if router_room() is not None:  # made before the fork, where the app is loaded then
        after_fork(partial(engine.process.count_websockets, 0))
    own(_parents_sockets)
    after_fork(_warn_of_lost_threads)
    if running_engine() == engine.name:
        after_fork(engine.prepare)


def _warn_of_options(around: Surroundings) -> None:
    """Say at the start of the log which of uWSGI's options will hurt, once."""
    for finding in judge(options(), around):
        if finding.logged and finding.severity is not Severity.HINT and str(finding) not in _said:
            _said.add(str(finding))
            logger.warning("%s", finding)


@cache  # once for all extensions
def _warn_of_lost_threads() -> None:
    # gevent's threads are greenlets, which a fork keeps.
    if worker_id() == 1 and not threads_are_greenlets():
        warn_of_lost()


def _loads_first_app() -> bool:
    """Return whether this worker does not serve yet, as with --lazy-apps."""
    return not worker_state()["apps"] and worker_state()["status"] != b"busy"


if inside():  # at once: the time until an extension is made counts
    if worker_id() == 0:
        exit_workers_that_start(_QUIET_CODE, has_master())
        after_fork(leave_children_alone)
    elif _loads_first_app():
        exit_while_starting(_QUIET_CODE, has_master())
