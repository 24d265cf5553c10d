"""asyncio: the connections of a worker and the loop that watches them, up to its end."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..connection.base import Callback
from ..connection.worker import INTERRUPT_TIME, Worker
from ..helpers.threads import looks
from ..process.server_process import ServerProcess
from ..process.signals import RELOAD_SIGNAL, STOP_SIGNALS, action_of, set_action
from ._driver import Driver
from .async_call import finish_within
from .base import END_TIME


class AsyncioWorker(Worker):
    """The connections of this process' loop."""

    def __init__(self, process: ServerProcess) -> None:
        super().__init__(process)
        self._leaving: asyncio.Task[None] | None = None
        self._stopped_by: int = RELOAD_SIGNAL
        self._theirs: dict[int, Any] = {}  # what uWSGI does on the signals that stop a worker
        self.loop = asyncio.get_running_loop()
        self.thread = self.get_ident()
        self.drivers: dict[asyncio.Task[Any] | None, Driver[Any]] = {}

    def start(self) -> None:
        super().start()
        # By now uWSGI's C handlers are installed; these replace them.
        for signum in STOP_SIGNALS:
            self._theirs[signum] = action_of(signum)
            self.loop.add_signal_handler(signum, self._stop, signum)

    def _stop(self, signum: int) -> None:
        if signum != RELOAD_SIGNAL:  # during a reload, too
            self._stopped_by = signum
        if self._leaving is None:
            for fd in self.process.listeners():
                self.loop.remove_reader(fd)
            self._leaving = self.loop.create_task(self._leave())

    async def _leave(self) -> None:
        self.close_all(self.code_for(self._stopped_by))
        deadline = time.monotonic() + self.process.mercy
        await _until(lambda: self.idle, self.grace)
        self.interrupt_all()
        await _until(lambda: self.idle, INTERRUPT_TIME)
        # uWSGI itself would end at once, with requests that wait for the loop.
        await _until(self._may_end, deadline - time.monotonic())
        for work in self.at_end:  # uWSGI has no hooks for it in this mode
            with suppress(Exception):
                await finish_within(END_TIME, work())
        set_action(self._stopped_by, self._theirs[self._stopped_by])
        signal.raise_signal(self._stopped_by)

    def _may_end(self) -> bool:
        return self._stopped_by != RELOAD_SIGNAL or not self.process.is_busy()

    def call_soon(self, callback: Callback) -> None:
        loop = self.loop
        (loop.call_soon if self.on_loop() else loop.call_soon_threadsafe)(callback)

    def _call_later(self, delay: float, callback: Callback) -> None:
        self.loop.call_later(delay, callback)

    def _watch(self, fd: int, read: Callback | None, write: Callback | None) -> None:
        loop = self.loop
        if read is not None:
            loop.add_reader(fd, read)
        else:
            loop.remove_reader(fd)
        if write is not None:
            loop.add_writer(fd, write)
        else:
            loop.remove_writer(fd)


async def _until(is_over: Callable[[], object], seconds: float) -> None:
    for pause in looks(is_over, seconds):
        await asyncio.sleep(pause)
