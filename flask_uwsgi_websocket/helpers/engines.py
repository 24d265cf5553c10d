"""The engines that handlers run on, and what is to be known of each without loading it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class EngineFacts:
    """Facts about an engine, which none of its modules need be loaded for.

    :param websocket: the name of its class for Flask apps.
    :param handler: that of its class for uWASP; an empty string where there is none.
    :param flags: those of uWSGI that start it, as people are told.
    :param cores: the option of uWSGI whose number is that of its cores.
    :param run_options: what ``run()`` adds where the caller names no engine.
    :param has_loop: whether uWSGI has an event loop of its name, in which requests are greenlets.
    :param asynchronous: whether handlers are coroutine functions.
    :param current_request: uWSGI's function for the running request (core/loop.c, the plugins).
    """

    websocket: str
    handler: str
    flags: str
    cores: str
    current_request: str
    run_options: Mapping[str, Any] = field(default_factory=dict)
    has_loop: bool = False
    asynchronous: bool = False


ENGINES = {
    "threads": EngineFacts(
        websocket="WebSocket",
        handler="ThreadHandler",
        flags="--threads N, or --processes N",
        cores="threads",
        current_request="threaded_current_wsgi_req",
    ),
    "gevent": EngineFacts(
        websocket="GeventWebSocket",
        handler="GeventHandler",
        flags="--gevent N",
        cores="gevent",
        current_request="uwsgi_gevent_current_wsgi_req",
        run_options={"gevent": 100},
        has_loop=True,
    ),
    "asyncio": EngineFacts(
        websocket="AsyncioWebSocket",
        handler="AsyncioHandler",
        flags="--asyncio N --greenlet",
        cores="asyncio",
        current_request="uwsgi_greenlet_current_wsgi_req",
        run_options={"asyncio": 100, "greenlet": True},
        has_loop=True,
        asynchronous=True,
    ),
    "suspend": EngineFacts(
        websocket="AsyncWebSocket",
        handler="",
        flags="--async N --greenlet",
        cores="async",
        current_request="uwsgi_greenlet_current_wsgi_req",
        run_options={"async": 100, "greenlet": True},
    ),
}

#: The names of those that have an event loop of uWSGI's.
LOOPS = tuple(name for name, facts in ENGINES.items() if facts.has_loop)

#: uWSGI's options that set the number of cores, one for each engine.
CORES = tuple(facts.cores for facts in ENGINES.values())

#: The class for each engine, for Flask apps and for uWASP.
WEBSOCKETS = {name: facts.websocket for name, facts in ENGINES.items()}
HANDLERS = {name: facts.handler for name, facts in ENGINES.items() if facts.handler}
