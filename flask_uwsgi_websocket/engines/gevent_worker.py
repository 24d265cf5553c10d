"""gevent: the hub of a worker, which watches the descriptors of its connections."""

from __future__ import annotations

from typing import Any

import gevent
from gevent import get_hub, getcurrent
from gevent._hub_local import get_hub_if_exists, set_hub, set_loop
from gevent.monkey import get_original

from ..connection.base import Callback
from ..connection.worker import INTERRUPT_TIME, Worker
from ..helpers.threads import wait_until
from ..process.server_process import ServerProcess
from ..process.signals import STOP_SIGNALS

_READ, _WRITE = 1, 2


class GeventWorker(Worker):
    """The connections of this process' hub."""

    get_ident = staticmethod(get_original("_thread", "get_ident"))

    def __init__(self, process: ServerProcess) -> None:
        super().__init__(process)
        self.hub = get_hub()
        self.thread = self.get_ident()
        self._readers: dict[int, Any] = {}  # the hub's watchers, by descriptor
        self._writers: dict[int, Any] = {}

    def start(self) -> None:
        super().start()
        if not self.process.gives_signals:
            return
        # Beside uWSGI's own watchers, which stop the worker.
        for signum in STOP_SIGNALS:
            gevent.signal_handler(signum, lambda n=signum: self._stop(self.code_for(n)))
        self.process.at_exit(self._leave)

    def _stop(self, code: int) -> None:
        grace = self.grace
        self.close_all(code)
        for late in (0, INTERRUPT_TIME):  # some swallow the first
            gevent.spawn_later(grace + late, self.interrupt_all)

    def _leave(self) -> None:
        """Tell everybody at the end of uWSGI's loop, while the hub still runs.

        Also after each request once the worker is to be replaced, be that the last one or not:
        after ``--max-worker-lifetime`` uWSGI serves on and never ends.
        """
        if isinstance(getcurrent(), gevent.Greenlet):  # of a request, not of uWSGI
            if self.stopping is None and not self.recycling:
                self.recycle()
            return
        # Without a signal that said more, --max-requests or the like was reached.
        self._stop(1012)
        wait_until(lambda: self.idle, self.grace + INTERRUPT_TIME, gevent.sleep)
        self.run_at_end()

    def call_soon(self, callback: Callback) -> None:
        loop = self.hub.loop
        call = loop.run_callback if self.on_loop() else loop.run_callback_threadsafe
        call(callback)

    def _call_later(self, delay: float, callback: Callback) -> None:
        timer = self.hub.loop.timer(delay, ref=False)

        def fire() -> None:
            timer.close()
            callback()

        timer.start(fire)

    def _watch(self, fd: int, read: Callback | None, write: Callback | None) -> None:
        self._watch_for(_READ, self._readers, fd, read)
        self._watch_for(_WRITE, self._writers, fd, write)

    def _watch_for(
        self, event: int, watchers: dict[int, Any], fd: int, callback: Callback | None
    ) -> None:
        if callback is not None:
            if fd not in watchers:
                watchers[fd] = self.hub.loop.io(fd, event)
            watchers[fd].start(callback)
        elif fd in watchers:
            watcher = watchers.pop(fd)
            watcher.stop()
            watcher.close()


#: What a child process must not run, nor collect: that would raise GreenletExit in all of it.
_left_behind: list[Any] = []


def end_hub() -> None:
    """Leave all other greenlets behind, in a child process: the next one to wait makes a hub.

    They would go on in the child as well, with requests that uWSGI keeps in memory which its
    processes share.
    """
    hub = get_hub_if_exists()
    if hub is not None:
        _left_behind.append(hub)
        set_hub(None)
        set_loop(None)
        hub.loop.destroy()
