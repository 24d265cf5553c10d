"""The port to the uWSGI process that we run in."""

from .instance import after_fork, inside, running_engine, shared_area, websocket_api, worker_id
from .request import answer, take
from .requirements import check_that_gevent_can_patch, require_engine, require_main_interpreter
from .start import engine, set_up

__all__ = [
    "after_fork",
    "answer",
    "check_that_gevent_can_patch",
    "engine",
    "inside",
    "require_engine",
    "require_main_interpreter",
    "running_engine",
    "set_up",
    "shared_area",
    "take",
    "websocket_api",
    "worker_id",
]
