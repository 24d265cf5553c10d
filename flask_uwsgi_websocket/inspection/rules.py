"""What in uWSGI's options hurts WebSockets, and what to do about it.

One set of rules, for ``flask websocket doctor``, for the start of the log, and for the answer to a
handshake that cannot work. A rule is a function that takes the options and what is known around
them, and yields what it found; :data:`RULES` has them in the order in which they are told. A rule
that finds what is not there costs trust: in doubt it keeps quiet, which
:class:`~.uwsgi_options.Options` makes easy, and each has a test with options that are right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from .binary import INSTALL
from .options import (
    FASTCGI_SOCKETS,
    LOADERS,
    MASTERED,
    ROUTERS,
    SOCKETS,
    TLS_SOCKETS,
    Options,
)

#: The lowest version of uWSGI that this was tried with: Debian 12's.
LOWEST_UWSGI = (2, 0, 21)

#: uWSGI's buffers when the options do not say (4,096 on every machine that it is built for: the
#: router's is a page).
PAGE = 4096

#: From this size of its buffer on, uWSGI's router loses uploads: it sends on the head of a request,
#: and what it read of the body with it, in a buffer of at most UMAX16 (plugins/http/http.c).
LOSSY_ROUTER_BUFFER = 65535

#: The router's buffer that carries every upload, with room for any head beside it, and with our
#: TCP_NODELAY large messages as fast as any size: thousands of 64 KiB a second instead of 11.
ROUTER_BUFFER = 32768

#: Up to this version Python's threads need --enable-threads (sanitize_args in core/init.c).
THREADS_ASKED_FOR = (2, 0, 26)

#: Fewer connections at a time than this are used up by the first visitors.
FEW = 8

#: Fewer descriptors than this are few for engines whose cores do not limit the connections.
FEW_DESCRIPTORS = 4096

#: Descriptors of a process that are none of connections: libraries, logs, pipes, databases.
OTHER_DESCRIPTORS = 64
#: The same of the router: listeners, pipes, its log.
ROUTERS_OWN = 16

#: Options that give the workers a socket on which WebSockets work.
USABLE_SOCKETS = (*SOCKETS, "shared-socket", "undeferred-shared-socket", "zerg")

#: Options that make the router serve workers of other instances.
ELSEWHERE = (
    "http-to",
    "http-subscription-server",
    "http-use-cache",
    "http-use-pattern",
    "http-use-base",
    "http-use-code-string",
    "http-zerg",
)

#: Options that take care of their own of a connection whose request has ended, and of a worker that
#: has none: under them a WebSocket holds its request, and so its core, until it is closed.
HOLDING = ("cheaper", "idle", "http11-socket", "puwsgi-socket")
KEEPING_PROTOCOLS = ("http11", "puwsgi")

#: Options that replace a worker while it runs.
RECYCLING = ("max-requests", "max-worker-lifetime", "reload-on-rss", "reload-on-as")

#: uWSGI's flags for each of our engines.
FLAGS = {
    "threads": "--threads N, or --processes N",
    "gevent": "--gevent N",
    "asyncio": "--asyncio N --greenlet",
    "suspend": "--async N --greenlet",
}
CLASSES = {
    "threads": "WebSocket",
    "gevent": "GeventWebSocket",
    "asyncio": "AsyncioWebSocket",
    "suspend": "AsyncWebSocket",
}


class Severity(Enum):
    """How much a finding hurts."""

    #: WebSockets do not work, or everybody is thrown out.
    ERROR = "error"
    #: They work, until something ordinary happens.
    WARNING = "warning"
    #: Worth knowing; it may be what was wanted.
    HINT = "hint"


@dataclass(frozen=True)
class Finding:
    """Something in the options, what it does to WebSockets, and what to do about it.

    :param rule: the rule's name.
    :param found: the options, as uWSGI spells them.
    :param why: what WebSockets suffer.
    :param remedy: an instruction.
    :param blocks: whether no WebSocket can work; handshakes are then answered with 501.
    :param logged: whether the start of the log tells it; hints are not told there.
    """

    rule: str
    severity: Severity
    found: str
    why: str
    remedy: str
    blocks: bool = False
    logged: bool = True

    def __str__(self) -> str:
        return f"{self.found}: {self.why}; {self.remedy}"


@dataclass(frozen=True)
class Surroundings:
    """What is known beside the options; None is what is not.

    :param engine: the engine that the app's class needs, a key of :data:`CLASSES`.
    :param timeout: the extension's ``timeout`` in seconds.
    :param ping_interval: ``UWSGI_WEBSOCKET_PING_INTERVAL``.
    :param descriptors: how many a process may open (``RLIMIT_NOFILE``).
    :param version: uWSGI's.
    :param features: names of the options that the binary has.
    :param vassal: whether an emperor starts and stops it.
    :param classes: what the class for each engine is called.
    """

    engine: str | None = None
    timeout: float = 5
    ping_interval: float = 25
    descriptors: int | None = None
    version: tuple[int, ...] | None = None
    features: frozenset[str] | None = None
    vassal: bool = False
    classes: Mapping[str, str] = field(default_factory=lambda: CLASSES)


Rule = Callable[[Options, Surroundings], Iterator[Finding]]
RULES: list[Rule] = []


def rule(function: Rule) -> Rule:
    """Add a rule."""
    RULES.append(function)
    return function


def judge(options: Options, around: Surroundings | None = None) -> list[Finding]:
    """Return what the rules find, worst first."""
    around = around or Surroundings()
    rules = RULES if serves(options) else [version, *ROUTER_RULES]
    findings = [finding for each in rules for finding in each(options, around)]
    return sorted(findings, key=lambda finding: list(Severity).index(finding.severity))


def unsupported_reason(options: Options) -> Finding | None:
    """Return why no WebSocket can work with these options; None if one can."""
    return next((finding for finding in judge(options) if finding.blocks), None)


# What the options come to


def version_of(text: str) -> tuple[int, ...]:
    """Return uWSGI's version as numbers."""
    return tuple(map(int, re.findall(r"\d+", text)[:4]))


def serves(options: Options) -> bool:
    """Return whether the instance serves an app, and is not only an emperor or a router."""
    return options.has(*LOADERS) or options.lacks("emperor", *ELSEWHERE)


def engine_of(options: Options, running_loop: str | None = None) -> str:
    """Return which of our engines the options start; ``""`` for none of them, or in doubt.

    :param running_loop: the name of uWSGI's loop, empty for its own, where it runs.
    """
    loop = _loop_of(options) if running_loop is None else running_loop
    if loop == "gevent":
        return "gevent"
    if loop == "asyncio":
        return "asyncio" if options.has("greenlet") else ""
    if (options.number("async", 1) or 0) > 1:
        # Not --ugreen: it switches C stacks under Python, which keeps Flask's context in the
        # thread and (from 3.11 on) the frames too. Requests that overlap hang.
        return "suspend" if options.has("greenlet") else ""
    certain = running_loop is not None or options.lacks("gevent", "asyncio", "async", "loop")
    return "threads" if certain else ""


def _loop_of(options: Options) -> str:
    given = (name for name in ("gevent", "asyncio") if options.has(name))
    return next(given, options.text("loop"))


def keeps_connections(options: Options) -> bool:
    """Return whether uWSGI keeps connections after their requests."""
    protocol = options.text("protocol")
    return options.has("http11-socket", "puwsgi-socket") or protocol in KEEPING_PROTOCOLS


def detaches(options: Options) -> bool:
    """Return whether a WebSocket's request ends with its handshake, and gives its core back."""
    return (
        engine_of(options) in ("gevent", "asyncio")
        and options.lacks(*HOLDING)
        and not keeps_connections(options)
    )


def has_router(options: Options) -> str:
    """Return the first option that makes uWSGI a router; an empty string without one."""
    return next((name for name in ROUTERS if options.has(name)), "")


def workers(options: Options) -> int:
    """Return the number of workers, 0 in doubt."""
    number = options.number("processes", 1)
    return max(number, 1) if number is not None else 0


def cores(options: Options) -> int:
    """Return the number of requests that all workers together serve at a time, 0 in doubt."""
    numbers = [options.number(name, 1) for name in ("threads", "gevent", "asyncio", "async")]
    known = [max(number, 1) for number in numbers if number is not None]
    return max(known) * workers(options) if len(known) == len(numbers) else 0


# Nothing works


@rule
def version(options: Options, around: Surroundings) -> Iterator[Finding]:
    """Versions that nobody tried this with."""
    if around.version is not None and around.version < LOWEST_UWSGI:
        lowest = ".".join(map(str, LOWEST_UWSGI))
        yield Finding(
            "version",
            Severity.WARNING,
            f"uWSGI {'.'.join(map(str, around.version))}",
            "it is older than the lowest version that this was tried with",
            f"install {lowest} or newer",
        )


@rule
def tls_socket(options: Options, around: Surroundings) -> Iterator[Finding]:
    """The worker's own TLS, which encrypts above the descriptor that we use."""
    for name in TLS_SOCKETS:
        if options.has(name):
            yield Finding(
                "tls-socket",
                Severity.ERROR,
                f"WebSockets don't work behind --{name}",
                "uWSGI encrypts above the descriptor",
                "use --https (uWSGI's TLS router) or a proxy that speaks TLS",
                blocks=True,
            )


@rule
def router_without_websockets(options: Options, around: Surroundings) -> Iterator[Finding]:
    """The HTTP router passes a handshake, and nothing after it, unless told."""
    router = has_router(options)
    if not router or not options.lacks("http-websockets", "http-raw-body"):
        return
    only = options.lacks(*USABLE_SOCKETS)
    yield Finding(
        "http-websockets",
        Severity.ERROR if only else Severity.WARNING,
        f"WebSockets don't work behind --{router} without --http-websockets",
        "uWSGI's router would pass the handshake, and nothing after it",
        "add --http-websockets",
        blocks=only and serves(options),
    )


@rule
def fastcgi(options: Options, around: Surroundings) -> Iterator[Finding]:
    """FastCGI has no upgrade."""
    protocol = options.text("protocol")
    names = [name for name in FASTCGI_SOCKETS if options.has(name)]
    if not names and not (protocol.startswith("fastcgi") and options.has("socket")):
        return
    yield Finding(
        "fastcgi",
        Severity.WARNING,
        f"--{names[0]}" if names else f"--protocol {protocol}",
        "FastCGI knows no upgrade, and what follows a handshake is lost",
        "use --socket (nginx: uwsgi_pass) or --http-socket (proxy_pass)",
    )


@rule
def kept_connections(options: Options, around: Surroundings) -> Iterator[Finding]:
    """Protocols that keep connections, which uWSGI's loops for gevent and asyncio break at."""
    engine = engine_of(options)
    if engine not in ("gevent", "asyncio") or not keeps_connections(options):
        return
    names = [name for name in ("http11-socket", "puwsgi-socket") if options.has(name)]
    found = f"--{names[0]}" if names else f"--protocol {options.text('protocol')}"
    why = (
        "uWSGI's gevent worker aborts after each connection"
        if engine == "gevent"
        else "uWSGI hangs at the second request of a connection"
    )
    yield Finding(
        "kept-connections",
        Severity.ERROR,
        f"{found} with --{engine}",
        f"{why}, which takes all WebSockets of the worker along",
        "use --http-socket, or --socket behind nginx",
    )


@rule
def greenlet(options: Options, around: Surroundings) -> Iterator[Finding]:
    """Engines that need greenlet beside them."""
    for name in ("asyncio", "async"):
        if (options.number(name, 1) or 0) > 1 and options.lacks("greenlet"):
            yield Finding(
                "greenlet",
                Severity.ERROR,
                f"--{name} without --greenlet",
                "handlers cannot wait, and handshakes are answered with 500",
                "add --greenlet",
            )


@rule
def two_engines(options: Options, around: Surroundings) -> Iterator[Finding]:
    """Engines that exclude each other."""
    names = [name for name in ("gevent", "asyncio") if options.has(name)]
    names += [name for name in ("threads",) if names and (options.number(name) or 0) > 1]
    if len(names) > 1:
        yield Finding(
            "two-engines",
            Severity.ERROR,
            " with ".join(f"--{name} {options.text(name)}" for name in names),
            "uWSGI counts its cores by one of them and serves by the other, and loses requests",
            "leave out one of them, and use --processes for more than one CPU",
        )


@rule
def enable_threads(options: Options, around: Surroundings) -> Iterator[Finding]:
    """Python's threads, which stood still unless asked for."""
    if (
        around.version is not None
        and around.version <= THREADS_ASKED_FOR
        and options.lacks("enable-threads", "gevent", "asyncio", "py-autoreload", "py-tracebacker")
        and (options.number("threads", 1) or 2) < 2
    ):
        yield Finding(
            "enable-threads",
            Severity.WARNING,
            f"no --enable-threads with uWSGI {'.'.join(map(str, around.version))}",
            "Python's threads stand still between requests, and with them the pings",
            "add --enable-threads",
        )


@rule
def wrong_class(options: Options, around: Surroundings) -> Iterator[Finding]:
    """An extension made for another engine than the options start."""
    running = engine_of(options)
    wanted = around.engine
    if wanted is None or not running or running == wanted:
        return
    yield Finding(
        "wrong-class",
        Severity.ERROR,
        f"the app uses {around.classes[wanted]}, and uWSGI is started with other options than its",
        "every handshake is answered with 500",
        f"start uWSGI with {FLAGS[wanted]}"
        + (f", or use {around.classes[running]}" if running in around.classes else ""),
    )


@rule
def missing_engine(options: Options, around: Surroundings) -> Iterator[Finding]:
    """Engines that this binary was built without."""
    for name in ("gevent", "asyncio", "greenlet"):
        if around.features is not None and options.has(name) and name not in around.features:
            yield Finding(
                "missing-engine",
                Severity.ERROR,
                f"--{name}",
                "this uWSGI was built without it, and does not start",
                f"build one with every engine: {INSTALL} --force",
            )


@rule
def late_patch(options: Options, around: Surroundings) -> Iterator[Finding]:
    """gevent's patch after uWSGI's reloader has started a thread."""
    if (
        engine_of(options) == "gevent"
        and options.has("lazy-apps", "lazy")
        and options.has("py-autoreload")
        and options.lacks("gevent-early-monkey-patch")
    ):
        yield Finding(
            "late-patch",
            Severity.ERROR,
            "--lazy-apps and --python-autoreload",
            "it is too late for GeventWebSocket to call gevent's patch_all()",
            "add --gevent-early-monkey-patch to uWSGI's options, or leave out --lazy-apps",
            logged=False,  # an EngineError says so
        )


@rule
def mounts(options: Options, around: Surroundings) -> Iterator[Finding]:
    """Several apps in a process, each in an interpreter of its own."""
    apps = len(options.values("mount")) + options.has("module", "wsgi-file")
    if apps < 2 or not options.lacks("single-interpreter"):
        return
    if engine_of(options) in ("gevent", "asyncio"):
        yield Finding(
            "mounts",
            Severity.ERROR,
            "several apps (--mount) without --single-interpreter",
            "uWSGI's loop serves one interpreter only: requests to the second app are answered "
            "with 404, or kill the worker",
            "add --single-interpreter",
        )
    elif engine_of(options):
        yield Finding(
            "mounts",
            Severity.WARNING,
            "several apps (--mount) without --single-interpreter",
            "only the first app hears of a stop: WebSockets of the others hold up reloads until "
            "--worker-reload-mercy is over, and their functions of on_worker_start never run",
            "add --single-interpreter",
        )


# Everybody is thrown out


@rule
def harakiri(options: Options, around: Surroundings) -> Iterator[Finding]:
    """The option that kills a worker for one request."""
    seconds = options.number("harakiri")
    if not seconds or not engine_of(options):
        return
    if detaches(options):
        yield Finding(
            "harakiri",
            Severity.HINT,
            f"--harakiri {seconds}",
            "one view that takes longer kills the worker, and cuts all of its WebSockets",
            "give slow views a worker or a timeout of their own",
        )
    elif engine_of(options) in ("threads", "suspend") or options.has(*HOLDING):
        yield Finding(
            "harakiri",
            Severity.ERROR,
            f"--harakiri {seconds}",
            f"it kills the worker, with all of its connections, {seconds} seconds into any "
            "WebSocket",
            "leave it out for workers that serve WebSockets",
        )


@rule
def recycling(options: Options, around: Surroundings) -> Iterator[Finding]:
    """Options that replace workers while they run."""
    given = [name for name in RECYCLING if options.number(name)]
    if given:
        yield Finding(
            "recycling",
            Severity.HINT,
            ", ".join(f"--{name} {options.number(name)}" for name in given),
            "it restarts the worker, and closes all of its WebSockets with 1012",
            "have clients reconnect after a random delay",
        )


#: Earlier versions end the process at once where the limits below are reached, under asyncio.
ENDS_GRACEFULLY = (2, 0, 25)


@rule
def abrupt_recycling(options: Options, around: Surroundings) -> Iterator[Finding]:
    """Limits at which an old uWSGI exits in the middle of everything, or never comes back."""
    if (around.version or ENDS_GRACEFULLY) >= ENDS_GRACEFULLY:
        return
    engine = engine_of(options)
    if engine == "asyncio":
        consequence = (
            "this version of uWSGI exits at once when a request reaches it: all WebSockets of "
            "the worker are cut (1006), and so are its other requests"
        )
    elif engine == "threads" and (options.number("threads", 1) or 0) > 1:
        consequence = (
            "this version of uWSGI cancels its threads when a request reaches it, and the worker "
            "then hangs, HTTP too, with or without WebSockets"
        )
    else:
        return
    for name in ("max-requests", "reload-on-rss", "reload-on-as"):
        if options.number(name):
            yield Finding(
                "abrupt-recycling",
                Severity.WARNING,
                f"--{name} {options.number(name)} with --{engine}",
                consequence,
                "use --max-worker-lifetime, or uWSGI 2.0.25 or newer",
            )


@rule
def evil(options: Options, around: Surroundings) -> Iterator[Finding]:
    """Limits of memory for which the master kills the worker, which can tell nobody."""
    for name in ("evil-reload-on-rss", "evil-reload-on-as"):
        if options.number(name):
            yield Finding(
                "evil",
                Severity.WARNING,
                f"--{name} {options.number(name)}",
                "uWSGI kills the worker (SIGKILL), and its clients see a cut connection (1006)",
                f"use --{name.removeprefix('evil-')}, which tells them (1012)",
            )


@rule
def mercy(options: Options, around: Surroundings) -> Iterator[Finding]:
    """Less time for a stop than handlers were promised."""
    seconds = options.number("worker-reload-mercy")
    if seconds is not None and seconds < around.timeout:
        yield Finding(
            "mercy",
            Severity.WARNING,
            f"--worker-reload-mercy {seconds}",
            f"uWSGI kills a worker before its handlers have had the {around.timeout:g} seconds of "
            "the extension's timeout to end in",
            f"raise it above {around.timeout:g}, or lower WebSocket(timeout=...)",
        )


# Something waits, or is lost


@rule
def lossy_router(options: Options, around: Surroundings) -> Iterator[Finding]:
    """A buffer of the router's that loses uploads."""
    size = options.number("http-buffer-size")
    if has_router(options) and size is not None and size >= LOSSY_ROUTER_BUFFER:
        yield Finding(
            "http-buffer-size",
            Severity.ERROR,
            f"--http-buffer-size {size}",
            "uWSGI's router resets clients whose upload arrives together with its head, from "
            f"{LOSSY_ROUTER_BUFFER} on, and logs nothing",
            f"use {ROUTER_BUFFER}, which carries large WebSocket messages as well",
        )


@rule
def small_router_buffer(options: Options, around: Surroundings) -> Iterator[Finding]:
    """A buffer of the router's that makes messages wait for TCP's timers."""
    size = options.number("http-buffer-size", PAGE)
    if not has_router(options) or size is None or size >= ROUTER_BUFFER // 2:
        return
    yield Finding(
        "http-buffer-size",
        Severity.HINT,
        f"--http-buffer-size {size}"
        if options.has("http-buffer-size")
        else f"--{has_router(options)} without --http-buffer-size",
        f"messages above {size} bytes wait for TCP's timers, at some ten a second",
        f"add --http-buffer-size {ROUTER_BUFFER}",
    )


@rule
def buffer_size(options: Options, around: Surroundings) -> Iterator[Finding]:
    """A buffer that the head of a request does not fit into."""
    size = options.number("buffer-size", PAGE)
    if size is not None and size <= PAGE:
        yield Finding(
            "buffer-size",
            Severity.HINT if size == PAGE else Severity.WARNING,
            f"--buffer-size {size}" if options.has("buffer-size") else "no --buffer-size",
            f"a handshake or request with more than {size} bytes of headers, such as large "
            "cookies, is reset",
            "add --buffer-size 32768",
        )


@rule
def few_cores(options: Options, around: Surroundings) -> Iterator[Finding]:
    """Fewer cores than visitors, where each WebSocket holds one."""
    all_cores = cores(options)
    if not all_cores or all_cores >= FEW or detaches(options) or options.has("py-autoreload"):
        return
    if engine_of(options) in ("gevent", "asyncio") and options.lacks(*HOLDING):
        return  # kept_connections has told
    yield Finding(
        "few-cores",
        Severity.WARNING,
        f"{all_cores} connections at a time in all" if all_cores > 1 else "1 connection at a time",
        "each open WebSocket holds one, and the next visitor waits, of a page too",
        "raise --threads N, or use --gevent N or --asyncio N with their classes",
    )


@rule
def http_timeout(options: Options, around: Surroundings) -> Iterator[Finding]:
    """A router that cuts connections before a ping shows that they live."""
    seconds = options.number("http-timeout", 60)
    if not has_router(options) or not seconds:
        return
    given = (
        f"--http-timeout {seconds}" if options.has("http-timeout") else f"--{has_router(options)}"
    )
    if not around.ping_interval:
        yield Finding(
            "http-timeout",
            Severity.WARNING,
            f"{given} with UWSGI_WEBSOCKET_PING_INTERVAL = 0",
            f"the router cuts WebSockets that are silent for {seconds} seconds",
            "leave the pings on",
        )
    elif seconds <= around.ping_interval:
        yield Finding(
            "http-timeout",
            Severity.WARNING,
            given,
            f"the router cuts WebSockets that are silent for {seconds} seconds, and a ping comes "
            f"every {around.ping_interval:g}",
            f"raise it, or set UWSGI_WEBSOCKET_PING_INTERVAL below {seconds}",
        )


@rule
def socket_permissions(options: Options, around: Surroundings) -> Iterator[Finding]:
    """A UNIX socket that only uWSGI's own user may connect to."""
    users = [options.text(name) for name in ("uid", "gid") if options.has(name)]
    if not users or not options.lacks("chmod-socket", "chown-socket", "umask"):
        return
    paths = [path for name in ("socket", "http-socket") for path in options.values(name)]
    sockets = [path for path in paths if ":" not in path and path[:1] not in ("", "@", "\\")]
    if sockets and not {"www-data", "nginx", "http", "33"} & set(users):
        yield Finding(
            "socket-permissions",
            Severity.WARNING,
            f"--socket {sockets[0]} of {users[0]}, without --chmod-socket",
            "nginx, which runs as another user, may not connect to it (502)",
            "add --chmod-socket=666, or --chmod-socket=660 and a --gid that nginx is in",
        )


@rule
def descriptors(options: Options, around: Surroundings) -> Iterator[Finding]:
    """Fewer descriptors than connections."""
    limit = options.number("max-fd") or around.descriptors
    if not limit or not cores(options):
        return
    router = " and two in the router" if has_router(options) else ""
    remedy = "raise ulimit -n, systemd's LimitNOFILE=, or --max-fd"
    needed = _descriptors_needed(options)
    # An eighth is kept for HTTP.
    if needed > limit - limit // 8:
        yield Finding(
            "descriptors",
            Severity.WARNING,
            f"{limit} descriptors for {cores(options)} connections",
            f"each takes {1 if detaches(options) else 2} in its worker{router}: one process "
            f"may need {needed}, and refuses visitors or spins without",
            remedy,
        )
    elif detaches(options) and limit < FEW_DESCRIPTORS:
        most = (limit - limit // 8) * workers(options)
        if router:
            most = (limit - limit // 8 - ROUTERS_OWN) // 2
        yield Finding(
            "descriptors",
            Severity.HINT,
            f"{limit} descriptors",
            f"each WebSocket takes one in its worker{router}: from some {most} at a time on, "
            "handshakes are answered with 503",
            remedy,
        )


def _descriptors_needed(options: Options) -> int:
    """Return how many the busiest process needs when all cores are busy."""
    everybody = cores(options)
    each = everybody // workers(options)
    if detaches(options):
        return each + OTHER_DESCRIPTORS
    router = 2 * everybody + ROUTERS_OWN if has_router(options) else 0
    return max(2 * each + OTHER_DESCRIPTORS, router)


# Worth knowing


@rule
def no_master(options: Options, around: Surroundings) -> Iterator[Finding]:
    """Workers that nobody replaces."""
    if options.lacks("master") and not options.names() & MASTERED:
        yield Finding(
            "master",
            Severity.WARNING,
            "no --master",
            "a worker that dies is not replaced, and nothing reloads gracefully",
            "add --master",
            logged=False,  # uWSGI says so itself
        )


@rule
def die_on_term(options: Options, around: Surroundings) -> Iterator[Finding]:
    """What SIGTERM means."""
    if around.vassal:
        return  # the emperor tells it through a pipe
    if options.lacks("die-on-term", "hook-master-start") and options.has("master"):
        yield Finding(
            "die-on-term",
            Severity.HINT,
            "no --die-on-term",
            "SIGTERM, with which systemd and Docker stop a service, reloads uWSGI brutally "
            "instead, and cuts WebSockets",
            "add --die-on-term, or have the service stopped by SIGINT or SIGQUIT",
        )


@rule
def several_workers(options: Options, around: Surroundings) -> Iterator[Finding]:
    """Clients in several processes."""
    number = workers(options)
    if number > 1:
        yield Finding(
            "processes",
            Severity.HINT,
            f"--processes {number}",
            "a worker knows its own clients only: what is sent to all reaches those of one worker",
            "use --processes 1, or carry messages between workers (Redis, for instance)",
        )


ROUTER_RULES: list[Rule] = [
    router_without_websockets,
    lossy_router,
    small_router_buffer,
    http_timeout,
]
