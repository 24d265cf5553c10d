"""The port to the uWSGI process that we run in."""

from .instance import (
    after_fork,
    inside,
    options,
    running_engine,
    shared_area,
    websocket_api,
    worker_id,
)
from .request import answer, devnull, read_ahead, redirect_request, take
from .requirements import (
    check_that_gevent_can_patch,
    detaches,
    require_engine,
    require_main_interpreter,
    unsupported_reason,
)
from .room import no_room_reason
from .start import engine, set_up

__all__ = [
    "after_fork",
    "answer",
    "check_that_gevent_can_patch",
    "detaches",
    "devnull",
    "engine",
    "inside",
    "no_room_reason",
    "options",
    "read_ahead",
    "redirect_request",
    "require_engine",
    "require_main_interpreter",
    "running_engine",
    "set_up",
    "shared_area",
    "take",
    "unsupported_reason",
    "websocket_api",
    "worker_id",
]
