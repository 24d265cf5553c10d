"""Access to the workers of an app, for a process that serves nobody."""

from __future__ import annotations

import atexit
import os
import time
from _thread import RLock
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from weakref import WeakSet

from ..engines.async_thread import process_loop
from ..exceptions import BackplaneUnavailable
from ..process.fork import own
from ..process.server_process import parent_of
from .backplane import BackplaneOptions
from .exchange import Exchange, worker_name
from .local.instances import Instance, find_instances
from .loop_calls import start, wait_for
from .record import Record

#: Seconds after which the instance is looked for again: it may have been started anew.
_LOOK_AGAIN = 1.0
#: Seconds that the end of a process waits for.
_EXIT_TIME = 3.0
#: Bytes of a record besides its message.
_HEAD = 1 << 16


class Access:
    """An exchange, made when it is needed: anew in a child, and for another instance.

    From any thread.

    :param url: of the backplane; None, or ``local://``: that of the only instance on this machine.
    :param prefix: None: that of the only app there.
    :param receive: see :class:`.Exchange`; is called on the loop's thread.
    :raises ValueError: for a URL that is wrong, or one without a prefix.
    """

    def __init__(
        self,
        url: str | None,
        prefix: str | None,
        timeout: float,
        max_size: int = 1 << 20,
        receive: Callable[[Record], object] = lambda record: None,
    ) -> None:
        if url == "local://":
            url = None
        if url is not None and prefix is None:
            raise ValueError(
                "name the app, for others may use the same server: prefix=app.name, or what "
                "UWSGI_WEBSOCKET_PREFIX is there"
            )
        self.url, self.prefix, self.timeout, self.max_size = url, prefix, timeout, max_size
        self._receive = receive
        self._lock = RLock()
        self._pid = 0
        self._is_used = False
        self._place: tuple[str, str] | None = None
        self._looks_again = 0.0
        self._exchange = None if url is None else self._connect(url, prefix or "")
        own(self)

    def exchange(self) -> Exchange | None:
        """Return the exchange of this process; None where no instance runs.

        :raises BackplaneUnavailable: where several do.
        """
        with self._lock:
            if self._pid != os.getpid():
                self._forget()
            if self.url is None:
                self._look()
            elif self._exchange is None:
                self._exchange = self._connect(self.url, self.prefix or "")
            if not self._is_used and self._exchange is not None:
                self._is_used = True
                _flush_at_exit(self)
            return self._exchange

    def start_closing(self) -> Future[None] | None:
        """Begin to close: what was sent goes out first. What is sent from now on connects anew.

        :return: is done when it is closed; None when there was nothing to close.
        """
        with self._lock:
            if self._pid != os.getpid():
                self._forget()
            exchange, self._exchange = self._exchange, None
            is_used, self._is_used, self._looks_again = self._is_used, False, 0.0
        return self._stop(exchange) if exchange is not None and is_used else None

    def close(self) -> None:
        """Close, and wait for that."""
        closing = self.start_closing()
        if closing is not None:
            with suppress(TimeoutError):
                wait_for(closing, 2 * self.timeout)

    def leave_to_parent(self) -> None:
        """Begin anew, in a child process."""
        self._lock = RLock()
        self._forget()

    def _forget(self) -> None:
        if self._exchange is not None and self._pid != os.getpid():
            self._exchange.leave_to_parent()
        self._exchange, self._is_used, self._looks_again = None, False, 0.0
        self._pid = os.getpid()

    def _look(self) -> None:
        """Find the instance, when that is due."""
        if time.monotonic() < self._looks_again:
            return
        self._looks_again = 0.0
        place = only_instance(find_instances(), self.prefix)
        if place != self._place and self._exchange is not None:
            self._stop(self._exchange)
            self._exchange = None
        self._place = place
        if place is not None and self._exchange is None:
            self._exchange = self._connect(*place)
        self._looks_again = time.monotonic() + _LOOK_AGAIN

    def _connect(self, url: str, prefix: str) -> Exchange:
        self._pid = os.getpid()
        size = self.max_size + _HEAD
        options = BackplaneOptions(prefix, worker_name(), timeout=self.timeout, max_size=size)
        return Exchange(url, options, process_loop, self._receive)

    @staticmethod
    def _stop(exchange: Exchange) -> Future[None]:
        stopping = start(exchange.stop())
        _stopping.add(stopping)
        stopping.add_done_callback(_stopping.discard)
        return stopping


def only_instance(instances: list[Instance], prefix: str | None) -> tuple[str, str] | None:
    """Choose the instance that is meant, and the app in it: its URL and prefix.

    Of several it is the one that this process belongs to, as mules and spoolers do.

    :raises BackplaneUnavailable: when that leaves several; it lists them.
    """
    places = [
        (instance, app)
        for instance in instances
        for app in instance.workers
        if prefix is None or app == prefix
    ]
    if len(places) > 1:
        ancestors = _ancestors()
        places = [place for place in places if place[0].parent in ancestors] or places
    if len(places) > 1:
        found = "\n  ".join(dict.fromkeys(str(instance) for instance, _ in places))
        raise BackplaneUnavailable(
            f"there are several apps with rooms; name URL and prefix:\n  {found}"
        )
    return (places[0][0].url, places[0][1]) if places else None


def _ancestors() -> set[int]:
    """Return the ids of this process, its parent, and so on."""
    found: set[int] = set()
    pid = os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        pid = parent_of(pid)
    return found | {os.getppid()}


#: What is to be waited for when the interpreter exits.
_in_use: WeakSet[Access] = WeakSet()
_stopping: set[Future[None]] = set()
_hooked_in = 0


def _flush_at_exit(access: Access) -> None:
    """Send what still waits when the interpreter exits, before the loop's thread ends."""
    global _hooked_in
    process_loop()  # first, since atexit calls the last one first
    if _hooked_in != os.getpid():
        _hooked_in = os.getpid()
        _in_use.clear()
        _stopping.clear()
        atexit.register(_close_all, os.getpid())
    _in_use.add(access)


def _close_all(pid: int) -> None:
    if pid != os.getpid():
        return
    for access in tuple(_in_use):
        access.start_closing()
    for stopping in tuple(_stopping):
        with suppress(Exception):
            wait_for(stopping, _EXIT_TIME)
