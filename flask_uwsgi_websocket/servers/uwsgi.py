"""The port to the uWSGI process that we run in; the only importer of its ``uwsgi`` module."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from _socket import socket as Socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache, partial
from socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_TCP,
    SO_ACCEPTCONN,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_NODELAY,
)
from typing import TYPE_CHECKING, Any

from ..engines.base import Engine
from ..engines.threads import ThreadsEngine
from ..exceptions import ConnectionClosed, EngineError, UWSGINotFound
from ..helpers.log import logger
from ..helpers.threads import threads_are_greenlets
from ..inspection.effects import CLASSES, FLAGS, engine_of, has_router, version_of
from ..inspection.effects import detaches as detaches_under
from ..inspection.findings import Severity, Surroundings
from ..inspection.options import Options
from ..inspection.rules import judge
from ..inspection.rules import unsupported_reason as unsupported_reason_in
from ..inspection.worker_rules import RECYCLING, late_patch
from ..process.early_threads import check_before_patch, warn_of_lost
from ..process.fork import own, reset_signals
from ..process.server_process import ServerProcess
from ..process.signals import RELOAD_SIGNAL
from .router import RouterRoom

if TYPE_CHECKING:
    from types import FrameType

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

try:
    import uwsgi
except ImportError:
    uwsgi = None

_C: Any = ctypes.CDLL(None) if uwsgi is not None else None  # the C library's functions
# uWSGI's exit codes (uwsgi.h) that tell the master what a worker wants.
_END_CODE, _RELOAD_CODE = 30, 17
#: Earlier ones, told to finish, end the threads of requests by pthread_cancel, and never come back.
_FINISHES = (2, 0, 27)
# uWSGI's defaults (core/init.c).
_MERCY = 60
_MIN_LIFETIME = 10
_EPOLL_CTL_DEL = 2  # sys/epoll.h

Headers = list[tuple[str, str]]


def inside() -> bool:
    """Whether this process is uWSGI."""
    return uwsgi is not None


def in_worker() -> bool:
    """Tell whether this process is a worker of uWSGI, or will be."""
    return bool(uwsgi.worker_id())


def in_first_worker() -> bool:
    return bool(uwsgi.worker_id() == 1)


def master_id() -> int:
    """Return the process id of uWSGI's master; of what started the workers where there is none."""
    return uwsgi.masterpid() or os.getpgrp()


def option(name: str) -> Any:
    """A command-line option as uWSGI gives it (bytes, True or a list), or None."""
    return uwsgi.opt.get(name)


def running_engine() -> str:
    """Return which of our engines uWSGI's flags have started; ``""`` where none of ours fits."""
    return engine_of(options(), _running_loop())


def _running_loop() -> str:
    """Return the name of uWSGI's loop, empty for its own."""
    return uwsgi.loop.decode() if uwsgi.loop else ""


def require_engine(engine: str, classes: Mapping[str, str] = CLASSES) -> None:
    """Check that uWSGI runs the engine that a class was made for.

    :param classes: the class for each engine, for the message.
    :raises UWSGINotFound: outside of uWSGI.
    :raises EngineError: when uWSGI runs another one.
    """
    wanted = classes[engine]
    if uwsgi is None:
        raise UWSGINotFound(
            f"{wanted} accepts WebSockets inside uWSGI only: start the app with uwsgi --http :8080 "
            f"--http-websockets {FLAGS[engine]} --wsgi app:app; a Flask app, with app.run()"
        )
    running = running_engine()
    if running != engine:
        other = f", where {classes[running]} works" if running in classes else ""
        raise EngineError(
            f"{wanted} needs uWSGI to be started with {FLAGS[engine]}; "
            f"it was started with {_started_with()}{other}"
        )


def _started_with() -> str:
    flags = []
    for name in ("loop", "gevent", "asyncio", "async", "greenlet", "ugreen", "threads"):
        value = option(name)
        if isinstance(value, bytes):
            flags.append(f"--{name} {value.decode()}")
        elif value:
            flags.append(f"--{name}")
    return " ".join(flags) or "no engine's flags, that is with processes"


@cache
def detaches(engine: str) -> bool:
    """Whether a WebSocket's request ends with the handshake, and gives its core back.

    Threads cannot: a core is the thread that runs the handler.
    """
    if uwsgi is None:
        return False
    return running_engine() == engine and detaches_under(options())


@cache
def options() -> Options:
    """Return uWSGI's options, in one form whatever way they were given."""
    return Options.of_process(uwsgi.opt, _first_value)


def _first_value(option: str) -> bytes | None:
    """Return the first value of an option: with Python 3, ``uwsgi.opt`` has the last one alone.

    Those between the two nothing tells, nor does a uWSGI that is a shared library tell the first.
    """
    if not hasattr(_C, "uwsgi_get_exported_opt"):
        return None
    look_up = _C.uwsgi_get_exported_opt  # core/config.c
    look_up.restype, look_up.argtypes = ctypes.c_char_p, (ctypes.c_char_p,)
    value: bytes | None = look_up(option.encode())
    return value


def require_main_interpreter() -> None:
    """Check that uWSGI has not loaded the app into an interpreter that its loop cannot serve.

    A worker whose loop serves a request there dies, at the first one (asyncio), or the loop's
    modules cannot be imported (gevent).

    :raises EngineError: with the remedy.
    """
    loop = _running_loop() if uwsgi is not None else ""
    if loop not in ("gevent", "asyncio"):
        return
    state = ctypes.pythonapi.PyInterpreterState_Get
    state.restype = ctypes.c_void_p
    number = ctypes.pythonapi.PyInterpreterState_GetID
    number.restype, number.argtypes = ctypes.c_int64, (ctypes.c_void_p,)
    if number(state()):  # the main one is 0
        raise EngineError(
            "uWSGI loads each app (--mount) into an interpreter of its own, and its "
            f"{loop} loop serves those in the first one only: add --single-interpreter"
        )


def set_up(
    engine: Engine,
    timeout: float,
    ping_interval: float,
    classes: Mapping[str, str] = CLASSES,
) -> None:
    """Prepare this uWSGI for serving WebSockets with an engine, if it is the one that runs.

    :param timeout: the extension's.
    :param ping_interval: seconds between pings.
    :param classes: the class for each engine, for messages.
    """
    warn_of_options(
        Surroundings(
            engine=engine.name,
            timeout=timeout,
            ping_interval=ping_interval,
            descriptors=_descriptor_limit(),
            version=version_of(uwsgi.version.decode()),
            classes=classes,
        )
    )
    disable_nagle_on_listeners()
    if router_room() is not None:  # made before the fork, where the app is loaded then
        after_fork(partial(engine.process.count_websockets, 0))
    own(_PROCESS)
    after_fork(_warn_of_lost_threads)
    if running_engine() == engine.name:
        after_fork(engine.prepare)


@cache  # once for all extensions
def _warn_of_lost_threads() -> None:
    # gevent's threads are greenlets, which a fork keeps.
    if in_first_worker() and not threads_are_greenlets():
        warn_of_lost()


#: What the log has said already: several extensions and apps share the process.
_said: set[str] = set()


def warn_of_options(around: Surroundings) -> None:
    """Say at the start of the log which of uWSGI's options will hurt, once for all workers."""
    if uwsgi.worker_id() > 1:
        return  # --lazy-apps: the first worker says it
    for finding in judge(options(), around):
        if finding.logged and finding.severity is not Severity.HINT and str(finding) not in _said:
            _said.add(str(finding))
            logger.warning("%s", finding)


def _descriptor_limit() -> int | None:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


@cache
def unsupported_reason() -> str | None:
    """Return why WebSockets cannot work as uWSGI was started, and the remedy; None if they can."""
    finding = unsupported_reason_in(options())
    return str(finding) if finding else None


def lack(environ: WSGIEnvironment) -> str | None:
    """Why there is no room for a WebSocket, and the remedy; None if there is.

    Whatever else needs descriptors keeps an eighth of them, HTTP requests above all: uWSGI spins
    when it cannot accept.
    """
    if _is_full():
        return (
            "this worker has no descriptors left for them (an eighth is kept for HTTP). Raise "
            "ulimit -n, systemd's LimitNOFILE=, or --processes"
        )
    room = router_room()
    if room is not None and "UWSGI_ROUTER" in environ and room.is_full():
        return (
            "uWSGI's router holds two descriptors for each and has none left for more (an eighth "
            "is kept for HTTP). Raise ulimit -n or systemd's LimitNOFILE="
        )
    return None


@cache
def router_room() -> RouterRoom | None:
    """Return the room in the HTTP router of this uWSGI; None where it has none."""
    if not has_router(options()):
        return None
    return RouterRoom(uwsgi.numproc, shared=not uwsgi.worker_id())


def _is_full() -> bool:
    # Cores limit the number of WebSockets that hold one.
    if not detaches(running_engine()):
        return False
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        probe = take()
    except OSError:
        return True
    descriptor = probe.fileno()  # the lowest number that is free (POSIX, 2.6): so many are in use
    probe.close()
    return most != resource.RLIM_INFINITY and descriptor >= most - most // 8


def take() -> Socket:
    """The connection of the request that is running here.

    :raises OSError: when the process has no descriptor left.
    """
    return Socket(fileno=os.dup(uwsgi.connection_fd()))


#: uWSGI's functions for the request that is running here (core/loop.c and the plugins).
_CURRENT_REQUEST = {
    "threads": "threaded_current_wsgi_req",
    "gevent": "uwsgi_gevent_current_wsgi_req",
    "asyncio": "uwsgi_greenlet_current_wsgi_req",
    "suspend": "uwsgi_greenlet_current_wsgi_req",
}
_READ = "uwsgi_proto_base_read_body"  # proto/base.c
# There mostly is nothing, and a buffer is cleared each time; but uWSGI may have read 64 KiB (its
# --buffer-size is 16 bits).
_READ_SIZE, _READS = 4096, 16


@cache
def _reader() -> Callable[[], bytes] | None:
    """Make what reads on behind the head of the request that is running here.

    First what uWSGI has read together with the head, which no function of its module gives.
    None where this uWSGI does not export what it takes.
    """
    library = ctypes.PyDLL(None)  # that of gevent and of greenlet look into Python's objects
    name = _CURRENT_REQUEST[running_engine()]
    if name == "threaded_current_wsgi_req" and _number("threads", 1) < 2:
        name = "simple_current_wsgi_req"
    if not (hasattr(library, name) and hasattr(library, _READ)):
        return None
    request, read = library[name], library[_READ]
    request.restype = ctypes.c_void_p
    read.restype = ctypes.c_ssize_t
    read.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)

    def read_on() -> bytes:
        buffer = ctypes.create_string_buffer(_READ_SIZE)
        data = b""
        for _ in range(_READS):
            size = read(request(), buffer, _READ_SIZE)
            data += ctypes.string_at(buffer, max(size, 0))
            if size < _READ_SIZE:
                break
        return data

    return read_on


def read_ahead() -> bytes:
    """Read what the client has sent behind its request, without waiting for more."""
    reader = _reader()
    if reader is None or os.get_blocking(uwsgi.connection_fd()):
        return b""
    return reader()


@cache
def _sink() -> tuple[int, int]:
    """Return the two ends of a pipe that nobody reads."""
    out, into = os.pipe()
    os.set_blocking(out, False)
    os.set_blocking(into, False)
    return out, into


def devnull() -> int:
    """Return a descriptor to which the little that uWSGI writes for a request may go.

    Not /dev/null, which a chroot may lack.

    :raises OSError: when the process has no descriptor left.
    """
    out, into = _sink()
    with suppress(BlockingIOError):
        while os.read(out, 65536):  # what it has written since the last call
            pass
    return into


def redirect_request(descriptor: int) -> None:
    """Part the request that is running here from its connection.

    What uWSGI still writes for it, and its close, are about the descriptor then.
    """
    os.dup2(descriptor, uwsgi.connection_fd(), inheritable=False)


def answer(environ: WSGIEnvironment, start_response: StartResponse, headers: Headers) -> None:
    """Answer 101 with these headers, within the request.

    :raises ConnectionClosed: when the client has gone.
    """
    try:
        if not _handshake(environ, headers):
            # RFC 6455 4.2.2, answered by ourselves; the empty write sends the headers.
            start_response("101 Switching Protocols", headers)(b"")
    except OSError as error:
        raise ConnectionClosed(1006, "the client left during the handshake") from error


def _handshake(environ: WSGIEnvironment, headers: Headers) -> bool:
    """Have uWSGI answer, where it can say what must be said."""
    names = {name.lower() for name, _ in headers}
    subprotocol = dict(headers).get("Sec-WebSocket-Protocol", "")
    # It knows no other headers, and echoes all offered subprotocols when we select none.
    if names - {"upgrade", "connection", "sec-websocket-accept", "sec-websocket-protocol"} or (
        environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL") and not subprotocol
    ):
        return False
    try:
        uwsgi.websocket_handshake(
            environ["HTTP_SEC_WEBSOCKET_KEY"], environ.get("HTTP_ORIGIN", ""), subprotocol
        )
    except OSError:  # built without SSL; or the client is gone, which our own answer will tell
        return False
    return True


def shared_area(number: int, position: int) -> bytes:
    """What a shared area holds from ``position`` on.

    https://uwsgi-docs.readthedocs.io/en/latest/SharedArea.html
    """
    return bytes(uwsgi.sharedarea_memoryview(number)[position:])


def _number(name: str, default: int = 0) -> int:
    """Return the value of an option that is a number."""
    return options().number(name, default) or 0


def _limit(name: str, worker: int) -> int:
    """Return a limit that is different for each worker, so that not all of them end at a time."""
    limit = _number(name)
    return limit and limit + (worker - 1) * _number(f"{name}-delta")


def _this_worker() -> tuple[int, dict[str, Any]]:
    """Return the number of this worker, and what uWSGI knows of it."""
    number: int = uwsgi.worker_id()
    return number, uwsgi.workers()[number - 1]


def _memory() -> tuple[int, int]:
    """Bytes of address space and of resident memory, 0 where nothing tells them."""
    try:
        with open("/proc/self/statm", "rb") as file:
            pages = file.read().split()
    except OSError:
        return 0, 0
    size = os.sysconf("SC_PAGE_SIZE")
    return int(pages[0]) * size, int(pages[1]) * size


class UWSGIProcess(ServerProcess):
    """uWSGI, for our engines."""

    gives_signals = True

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._recycles = any(option(name) for name in (*RECYCLING, "cheaper"))

    def suspend(self) -> None:
        uwsgi.suspend()

    def wait_for_descriptors(
        self, readable: tuple[int, ...], writable: tuple[int, ...], seconds: int = 0
    ) -> None:
        # https://uwsgi-docs.readthedocs.io/en/latest/Async.html
        for fd in readable:
            uwsgi.wait_fd_read(fd, seconds)
        for fd in writable:
            uwsgi.wait_fd_write(fd, seconds)
        uwsgi.suspend()

    def cores(self) -> int:
        return int(uwsgi.cores)

    def max_websockets(self) -> int:
        return 0 if detaches(self._engine) else self.cores()

    def cores_flag(self) -> str:
        return FLAGS[self._engine].split()[0]

    def bind_request(self, greenlet: Any) -> None:
        # Where uWSGI's functions look for the request that they are called for.
        greenlet.uwsgi_wsgi_req = sys.modules["greenlet"].getcurrent().uwsgi_wsgi_req

    def unbind_request(self, greenlet: Any) -> None:
        del greenlet.uwsgi_wsgi_req

    def unwatch_request(self, epoll: int) -> None:
        if hasattr(_C, "epoll_ctl"):  # Linux. An error says that it is not there, which is as well.
            _C.epoll_ctl(epoll, _EPOLL_CTL_DEL, uwsgi.connection_fd(), None)

    def listeners(self) -> list[int]:
        return list(uwsgi.sockets)

    def count_websockets(self, count: int) -> None:
        room = router_room()
        if room is not None:
            room.count(uwsgi.worker_id(), count)

    def is_serving(self) -> bool:
        # With --lazy-apps we are imported in the worker, with what may still be to come.
        return bool(uwsgi.workers()[uwsgi.worker_id() - 1]["apps"]) or not options().has(
            "lazy-apps", "lazy"
        )

    def should_recycle(self) -> bool:
        # As core/utils.c and core/master_checks.c have it: uWSGI looks at most of this at the end
        # of a request only, of which WebSockets have none; its asyncio engine then does nothing.
        if not self._recycles:
            return False
        number, worker = _this_worker()
        if worker["status"] == b"cheap":
            return True
        age = time.time() - worker["last_spawn"]
        lifetime = _limit("max-worker-lifetime", number)
        if lifetime and age > lifetime and uwsgi.masterpid():
            return True
        if age < _number("min-worker-lifetime", _MIN_LIFETIME):
            return False
        requests = _limit("max-requests", number)
        return bool(requests and worker["delta_requests"] >= requests) or self._is_too_large(worker)

    def _is_too_large(self, worker: Mapping[str, Any]) -> bool:
        address_space, resident = _memory()
        for name, size, at_last_request in (
            ("reload-on-as", address_space, worker["vsz"]),
            ("reload-on-rss", resident, worker["rss"]),
        ):
            limit = _number(name) << 20
            if limit and max(size, at_last_request) >= limit:
                return True
        return False

    def ends_for_good(self, signum: int) -> bool:
        if not uwsgi.masterpid():
            return True
        from ..process.master import only_waits

        return signum == RELOAD_SIGNAL and only_waits(options().values("master-fifo"))

    def is_busy(self) -> bool:
        return bool(_this_worker()[1]["status"] == b"busy")

    def busy_threads(self) -> set[int]:
        # The names are uWSGI's (plugins/python).
        ours = (t.ident for t in threading.enumerate() if t.name.startswith("uWSGIWorker"))
        frames = sys._current_frames()
        return {ident for ident in ours if ident in frames and not _has_started_us(frames[ident])}

    @property
    def mercy(self) -> float:
        return _number("worker-reload-mercy", _MERCY)

    @property
    def drains(self) -> bool:
        return version_of(uwsgi.version.decode()) >= _FINISHES

    def exit(self, signum: int) -> None:
        os._exit(_RELOAD_CODE if signum == signal.SIGHUP else _END_CODE)

    def at_exit(self, callback: Callable[[], None]) -> None:
        previous = getattr(uwsgi, "atexit", None)
        process = os.getpid()

        def run() -> None:
            if os.getpid() == process:  # not a child that ends
                callback()
            if previous is not None:
                previous()

        uwsgi.atexit = run


def _has_started_us(frame: FrameType) -> bool:
    """Tell whether a thread is in the module that called pyuwsgi.run(), and so in no request."""
    return frame.f_back is None and frame.f_code.co_name == "<module>"


class _Process:
    """What a child of a worker has of uWSGI."""

    def leave_to_parent(self) -> None:
        reset_signals()
        if running_engine() == "gevent":
            from ..engines.gevent import end_hub

            end_hub()
        _sink.cache_clear()
        own_end = devnull()
        for descriptor in [*uwsgi.sockets, *_accepted()]:
            # Not closed: uWSGI's loops still know its number.
            os.dup2(own_end, descriptor, inheritable=False)


_PROCESS = _Process()


def _accepted() -> list[int]:
    """Return the connections that uWSGI has accepted, of requests and ours."""
    places = {_place(descriptor) for descriptor in uwsgi.sockets} - {None}
    listeners = set(uwsgi.sockets)
    return [n for n in _descriptors() if n not in listeners and _place(n) in places]


def _place(descriptor: int) -> Any:
    """Return the port or path of a socket, which an accepted one shares with its listener."""
    try:
        sock = Socket(fileno=descriptor)
    except OSError:
        return None
    try:
        name = sock.getsockname()
    except OSError:
        return None
    finally:
        sock.detach()
    return name[1] if isinstance(name, tuple) else name or None


@cache
def engine(name: str) -> Engine:
    """An engine of ours on uWSGI; one for the process, whichever apps and extensions use it."""
    process = UWSGIProcess(name)
    if name == "gevent":
        from ..engines.gevent import GeventEngine

        return GeventEngine(process)
    if name == "asyncio":
        from ..engines.asyncio import AsyncioEngine

        return AsyncioEngine(process)
    if name == "suspend":
        from ..engines.suspend import SuspendEngine

        return SuspendEngine(process)
    return ThreadsEngine(process)


def after_fork(callback: Callable[[], None]) -> None:
    """Call ``callback`` in each worker, before it serves anything."""
    if uwsgi.worker_id():  # --lazy-apps: we are in the worker, and past its hooks
        callback()
        return

    def call() -> None:
        if uwsgi.worker_id():  # not in a mule or a spooler
            callback()

    try:
        # It owns the hook from its import on, which may come after ours.
        from uwsgidecorators import postfork_chain
    except Exception:  # it refuses to be imported without a master
        previous = getattr(uwsgi, "post_fork_hook", None)

        def hook() -> None:
            if previous is not None:
                previous()
            call()

        uwsgi.post_fork_hook = hook
    else:
        postfork_chain.append(call)


def check_that_gevent_can_patch() -> None:
    """Check that no thread is at work which the patch of gevent would disturb.

    uWSGI's reloader is, with ``--lazy-apps``: the patch then breaks the import of the app.

    :raises EngineError: with the remedy.
    """
    if uwsgi is None or options().has("gevent-early-monkey-patch"):
        return
    if uwsgi.worker_id():
        for finding in late_patch(options(), Surroundings()):
            raise EngineError(str(finding))
    check_before_patch()


def disable_nagle_on_listeners() -> None:
    """Set TCP_NODELAY on the sockets that uWSGI listens on: accepted ones inherit it.

    Between uWSGI's http router and its workers, Nagle's algorithm and delayed ACKs otherwise
    hold each message above the router's buffer for 40 ms.
    """
    for number in _descriptors():
        try:
            sock = Socket(fileno=number)
        except OSError:
            continue
        try:
            if (
                sock.family in (AF_INET, AF_INET6)
                and sock.type == SOCK_STREAM
                and sock.getsockopt(SOL_SOCKET, SO_ACCEPTCONN)
            ):
                sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        except OSError:
            pass
        finally:
            sock.detach()


def _descriptors() -> Iterable[int]:
    with suppress(OSError):
        return [int(name) for name in os.listdir("/proc/self/fd")]
    return list(uwsgi.sockets)


def websocket_api() -> Any:
    """uWSGI's own WebSocket functions, for ``UWSGIWebSocketClient``."""
    return uwsgi
