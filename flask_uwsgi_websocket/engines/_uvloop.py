"""uvloop's loop, as uWSGI needs it: one that goes on watching a descriptor that has an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import uvloop

#: uWSGI's callback for the head of a request (plugins/asyncio/asyncio.c).
_REQUEST = "uwsgi_asyncio_request"


class Loop(uvloop.Loop):
    """A loop on which a client that resets in the middle of its request's head is noticed.

    libuv stops watching a descriptor that has an error, having called its reader once. uWSGI's
    takes what had come before the reset, waits for the rest, and holds its core until
    ``--socket-timeout``: so each time it waits on, it is registered again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._heads: set[int] = set()

    def add_reader(  # type: ignore[override]  # whose types name the arguments of the callback
        self, fd: Any, callback: Callable[..., Any], *args: Any
    ) -> None:
        if getattr(callback, "__name__", "") != _REQUEST:
            super().add_reader(fd, callback, *args)
            return
        heads, register, unregister = self._heads, super().add_reader, super().remove_reader

        def read_on() -> None:
            callback(*args)
            if fd in heads:
                unregister(fd)  # or libuv keeps the watch that it has stopped
                register(fd, read_on)

        heads.add(fd)
        register(fd, read_on)

    def remove_reader(self, fd: Any) -> Any:
        self._heads.discard(fd)
        return super().remove_reader(fd)
