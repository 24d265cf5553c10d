"""The loop for asynchronous work of a process whose engine has none: asyncio in a native thread.

It goes on while a handler computes and while a hub is blocked, and it does so whether gevent has
patched the standard library or not: with gevent's selector or threads it would wait for the hub of
a thread in which none runs.
"""

from __future__ import annotations

import _socket
import asyncio
import atexit
import ctypes
import os
import threading
from _thread import RLock
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any

from ..helpers.threads import is_patched, unpatched
from ..process.fork import own
from ..process.signals import stop_signals_blocked

#: Seconds that Tasks have for their ``finally`` blocks, when the process exits.
END_TIME = 0.2


class NativeLoop(asyncio.SelectorEventLoop):
    """asyncio's loop, on what the standard library had before gevent's patch."""

    def __init__(self) -> None:
        self.selector = _make_selector()
        super().__init__(self.selector)

    def _make_self_pipe(self) -> None:
        """Do as asyncio does, with sockets that belong to no hub."""
        if not hasattr(_socket, "socketpair"):  # Windows
            super()._make_self_pipe()  # type: ignore[misc]
            return
        self._ssock, self._csock = _socket.socketpair()
        self._ssock.setblocking(False)
        self._csock.setblocking(False)
        self._internal_fds += 1  # type: ignore[attr-defined]
        self._add_reader(self._ssock.fileno(), self._read_from_self)  # type: ignore[attr-defined]

    def run_in_executor(  # type: ignore[override]  # typeshed's gives an Awaitable in some versions
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Call a function in the executor, or without one in a native thread of its own.

        Python waits for the threads of its own executor before it exits, and under gevent's patch
        they are greenlets.
        """
        if executor is not None:
            return super().run_in_executor(executor, func, *args)
        future: asyncio.Future[Any] = self.create_future()

        def run() -> None:
            try:
                settle = partial(future.set_result, func(*args))
            except BaseException as error:
                settle = partial(future.set_exception, error)
            with suppress(RuntimeError):  # the loop is closed
                self.call_soon_threadsafe(_unless_done, future, settle)

        _start_thread(run)
        return future

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        resolve = partial(unpatched("socket", "getaddrinfo"), **options)
        return await self.run_in_executor(None, resolve, host, port)

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> Any:
        resolve = unpatched("socket", "getnameinfo")
        return await self.run_in_executor(None, resolve, sockaddr, flags)


def _unless_done(future: asyncio.Future[Any], settle: Callable[[], object]) -> None:
    if not future.done():  # cancelled
        settle()


def _make_selector() -> Any:
    # gevent also takes kqueue away from the class that uses it, but not poll, nor epoll.
    for name in ("EpollSelector", "PollSelector"):
        with suppress(AttributeError):
            return unpatched("selectors", name)()
    with suppress(AttributeError):
        return _poll_selector()
    return unpatched("selectors", "SelectSelector")()


def _poll_selector() -> Any:
    """Make what eventlet has removed from the standard library."""
    poll, read, write = (unpatched("select", name) for name in ("poll", "POLLIN", "POLLOUT"))
    members = {"_selector_cls": poll, "_EVENT_READ": read, "_EVENT_WRITE": write}
    return type("PollSelector", (unpatched("selectors", "_PollLikeSelector"),), members)()


def _start_thread(run: Callable[[], object]) -> None:
    """Run a function in a native thread that nobody waits for, and that no stop signal reaches."""
    with stop_signals_blocked():
        if is_patched():
            unpatched("_thread", "start_new_thread")(run, ())
        else:  # known by its name: it may have the number of a request's thread that has ended
            threading.Thread(target=run, name="websocket-async", daemon=True).start()


class _Threads:
    """The loops of this process and of those that it was forked from."""

    def __init__(self) -> None:
        self._loops: dict[int, NativeLoop] = {}  # by process: uWSGI's fork keeps the parent's
        self._starting = RLock()
        own(self)

    def loop(self) -> NativeLoop:
        """Return the loop of this process; start it for whoever asks first."""
        pid = os.getpid()
        loop = self._loops.get(pid)
        if loop is None:
            with self._starting:
                loop = self._loops.get(pid)
                if loop is None:
                    # In no context: the loop keeps that which it is made in, for ever.
                    loop = Context().run(NativeLoop)
                    _start_thread(partial(_run, loop))
                    atexit.register(self._end)
                    self._loops[pid] = loop
        return loop

    def _end(self) -> None:
        """Cancel all Tasks: those that Python finds while it exits, it would complain of."""
        loop = self._loops.get(os.getpid())
        if loop is None:  # a child
            return
        ended = unpatched("_thread", "allocate_lock")()
        ended.acquire()

        def cancel() -> None:
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            waiting = asyncio.gather(*tasks, return_exceptions=True)
            waiting.add_done_callback(lambda _: ended.release())

        loop.call_soon_threadsafe(cancel)
        ended.acquire(timeout=END_TIME)

    def leave_to_parent(self) -> None:
        """Give up the descriptors that the parent's loop watches, in a child; see fork.py."""
        self._starting = RLock()
        loops = tuple(self._loops.values())
        self._loops.clear()
        # Something takes the place of each: their objects, which close them some day, keep their
        # numbers.
        nothing = os.open(os.devnull, os.O_RDWR)
        for loop in loops:
            # Never collected, not even when the child exits: the `finally` blocks of the parent's
            # Tasks would run in it as well.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object([loop, asyncio.all_tasks(loop)]))
            for fd in (*loop.selector.get_map(), loop.selector.fileno()):
                os.dup2(nothing, fd, inheritable=False)
        os.close(nothing)


_threads = _Threads()


def process_loop() -> asyncio.AbstractEventLoop:
    """Return the loop in this process' native thread, which is started at the first call."""
    return _threads.loop()


def _run(loop: NativeLoop) -> None:
    while not loop.is_closed():
        with suppress(SystemExit, KeyboardInterrupt):  # of one Task: the others go on
            loop.run_forever()
