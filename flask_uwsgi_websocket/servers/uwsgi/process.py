"""A worker of uWSGI, as our engines see it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from ...helpers.engines import ENGINES
from ...helpers.threads import is_of_module, unpatched, wait_until
from ...inspection.worker_rules import RECYCLING
from ...process.server_process import ServerProcess
from ...process.signals import RELOAD_SIGNAL
from .descriptors import router_room
from .instance import C, number, options, uwsgi, version, worker_id, worker_state
from .requirements import detaches

# uWSGI's exit codes (uwsgi.h) that tell the master what a worker wants.
_END_CODE, _RELOAD_CODE = 30, 17
#: Earlier ones, told to finish, end the threads of requests by pthread_cancel, and never come back.
_DRAINS = (2, 0, 27)
# uWSGI's defaults (core/init.c).
_MERCY = 60
_MIN_LIFETIME = 10
_EPOLL_CTL_DEL = 2  # sys/epoll.h

#: Seconds in which a master that goes on reads its fifo.
READS = 0.25

#: A command that the master does not know, and passes over in silence (core/fifo.c).
_NOTHING = b"\0"


class UWSGIProcess(ServerProcess):
    """A worker of uWSGI, with one of our engines."""

    gives_signals = True

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._recycles = options().has(*RECYCLING, "cheaper")

    def suspend(self, readable: int = -1, seconds: int = 0) -> None:
        # https://uwsgi-docs.readthedocs.io/en/latest/Async.html
        if readable >= 0:
            uwsgi.wait_fd_read(readable, seconds)
        uwsgi.suspend()

    def cores(self) -> int:
        return int(uwsgi.cores)

    def max_websockets(self) -> int:
        return 0 if detaches(self._engine) else self.cores()

    def cores_flag(self) -> str:
        return f"--{ENGINES[self._engine].cores}"

    def bind_request(self, greenlet: Any) -> None:
        # Where uWSGI's functions look for the request that they are called for.
        greenlet.uwsgi_wsgi_req = sys.modules["greenlet"].getcurrent().uwsgi_wsgi_req

    def unbind_request(self, greenlet: Any) -> None:
        del greenlet.uwsgi_wsgi_req
        if not vars(greenlet):
            vars(greenlet).clear()  # gives back its table, which an empty dict has too

    def unwatch_request(self, epoll: int) -> None:
        if hasattr(C, "epoll_ctl"):  # Linux. An error says that it is not there, which is as well.
            C.epoll_ctl(epoll, _EPOLL_CTL_DEL, uwsgi.connection_fd(), None)

    def listeners(self) -> list[int]:
        return list(uwsgi.sockets)

    def count_websockets(self, count: int) -> None:
        room = router_room()
        if room is not None:
            room.count(worker_id(), count)

    def worker_id(self) -> int:
        # A child has its parent's number. The master writes down a worker's id once it has forked
        # it (core/master_utils.c), perhaps after our hooks: until then it is 0.
        is_child = worker_state()["pid"] not in (0, os.getpid())
        return 0 if is_child else worker_id()

    def parent_of_workers(self) -> int:
        # Without a master the first worker forks the others; it imports the app before it is one.
        return uwsgi.masterpid() or uwsgi.workers()[0]["pid"] or os.getpid()

    def is_serving(self) -> bool:
        # With --lazy-apps we are imported in the worker, with what may still be to come.
        return bool(worker_state()["apps"]) or not options().has("lazy-apps", "lazy")

    def should_recycle(self) -> bool:
        # As core/utils.c and core/master_checks.c have it: uWSGI looks at most of this at the end
        # of a request only, of which WebSockets have none; its asyncio engine then does nothing.
        if not self._recycles:
            return False
        worker = worker_state()
        if worker["status"] == b"cheap":
            return True
        age = time.time() - worker["last_spawn"]
        lifetime = _limit("max-worker-lifetime")
        if lifetime and age > lifetime and uwsgi.masterpid():
            return True
        if age < number("min-worker-lifetime", _MIN_LIFETIME):
            return False
        requests = _limit("max-requests")
        return bool(requests and worker["delta_requests"] >= requests) or _is_too_large(worker)

    def ends_for_good(self, signum: int) -> bool:
        if not uwsgi.masterpid():
            return True
        return signum == RELOAD_SIGNAL and _only_waits(options().values("master-fifo"))

    def is_interrupted(self) -> bool:
        # It exits in there (core/uwsgi.c), and the kernel blocks a signal while it is handled.
        # Other threads than the main one have them blocked always.
        is_main = threading.get_ident() == threading.main_thread().ident
        return is_main and signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def is_busy(self) -> bool:
        return bool(worker_state()["status"] == b"busy")

    def busy_threads(self) -> set[int]:
        # The names are uWSGI's (plugins/python).
        ours = (t.ident for t in threading.enumerate() if t.name.startswith("uWSGIWorker"))
        frames = sys._current_frames()
        # The one in the module that called pyuwsgi.run() is in no request.
        return {ident for ident in ours if ident in frames and not is_of_module(frames[ident])}

    @property
    def mercy(self) -> float:
        return number("worker-reload-mercy", _MERCY)

    @property
    def drains(self) -> bool:
        return version() >= _DRAINS

    def exit(self, signum: int) -> None:
        os._exit(_RELOAD_CODE if signum == signal.SIGHUP else _END_CODE)

    def _call_at_exit(self, callback: Callable[[], None]) -> None:
        previous = getattr(uwsgi, "atexit", None)

        def run() -> None:
            try:
                callback()
            finally:
                if previous is not None:
                    previous()

        uwsgi.atexit = run


def _limit(name: str) -> int:
    """Return a limit that is different for each worker, so that not all of them end at a time."""
    limit = number(name)
    return limit and limit + (worker_id() - 1) * number(f"{name}-delta")


def _is_too_large(worker: Mapping[str, Any]) -> bool:
    address_space, resident = _memory()
    for name, size, at_last_request in (
        ("reload-on-as", address_space, worker["vsz"]),
        ("reload-on-rss", resident, worker["rss"]),
    ):
        limit = number(name) << 20
        if limit and max(size, at_last_request) >= limit:
            return True
    return False


def _memory() -> tuple[int, int]:
    """Return the bytes of address space and of resident memory; 0 where nothing tells them."""
    try:
        with open("/proc/self/statm", "rb") as file:
            pages = file.read().split()
    except OSError:
        return 0, 0
    size = os.sysconf("SC_PAGE_SIZE")
    return int(pages[0]) * size, int(pages[1]) * size


def _only_waits(fifos: Iterable[str]) -> bool:
    """Return whether the master only waits for its workers to end, as after the command ``q``.

    The signal that it sends them is that of a reload; but it reads no further commands.

    :param fifos: ``--master-fifo``, of which it reads one at a time.
    """
    for path in fifos:
        try:
            fifo = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads this one now
            continue
        try:
            os.write(fifo, _NOTHING)
            # No other greenlets: they would end the worker meanwhile.
            wait_until(partial(_is_empty, fifo), READS, sleep=unpatched("time", "sleep"))
            return not _is_empty(fifo)
        except OSError:
            continue
        finally:
            os.close(fifo)
    return False


def _is_empty(fifo: int) -> bool:
    from fcntl import ioctl  # neither is on Windows
    from termios import FIONREAD

    return not int.from_bytes(ioctl(fifo, FIONREAD, bytes(4)), sys.byteorder)
