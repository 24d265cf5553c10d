"""The port to the uWSGI process that we run in."""

from .instance import (
    after_fork,
    has_metric,
    inside,
    is_dismissed,
    is_only_worker,
    most_workers,
    running_engine,
    running_workers,
    set_metric,
    shared_area,
    websocket_api,
    worker_id,
)
from .request import answer, take
from .requirements import check_that_gevent_can_patch, require_engine, require_main_interpreter
from .start import engine, set_up
