"""Rules over what uWSGI's options make of a worker: its engine, and its end."""

from __future__ import annotations

from collections.abc import Iterator

from ..helpers.engines import ENGINES, LOOPS
from .binaries import BUILD_ONE, PLUGINS
from .effects import HOLDING, cores, detaches, engine_of, keeps_connections, workers
from .findings import Finding, Rule, Surroundings, error, hint, warning
from .options import MASTERED, Options

#: The lowest version of uWSGI that this was tried with: Debian 12's.
LOWEST_UWSGI = (2, 0, 21)

#: Up to this version Python's threads need --enable-threads (sanitize_args in core/init.c).
THREADS_ASKED_FOR = (2, 0, 26)

#: Earlier versions end the process at once where max-requests and the like are reached.
ENDS_GRACEFULLY = (2, 0, 25)

#: Fewer connections at a time than this are used up by the first visitors.
FEW = 8

#: Options that replace a worker while it runs.
RECYCLING = ("max-requests", "max-worker-lifetime", "reload-on-rss", "reload-on-as")


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


# The engine


@Rule
def version(options: Options, around: Surroundings) -> Iterator[Finding]:
    if around.version is not None and around.version < LOWEST_UWSGI:
        yield warning(
            f"uWSGI {_dotted(around.version)}",
            "it is older than the lowest version that this was tried with",
            f"install {_dotted(LOWEST_UWSGI)} or newer",
        )


@Rule
def kept_connections(options: Options, around: Surroundings) -> Iterator[Finding]:
    why = {
        "gevent": "uWSGI's gevent worker aborts after each connection",
        "asyncio": "uWSGI hangs at the second request of a connection",
    }
    engine, keeping = engine_of(options), keeps_connections(options)
    if engine in why and keeping:
        yield error(
            f"--{keeping} with --{engine}",
            f"{why[engine]}, which takes all WebSockets of the worker along",
            "use --http-socket, or --socket behind nginx",
        )


@Rule
def greenlet(options: Options, around: Surroundings) -> Iterator[Finding]:
    for name in ("asyncio", "async"):
        if (options.number(name, 1) or 0) > 1 and options.lacks("greenlet"):
            yield error(
                f"--{name} without --greenlet",
                "handlers cannot wait, and handshakes are answered with 500",
                "add --greenlet",
            )


@Rule
def two_engines(options: Options, around: Surroundings) -> Iterator[Finding]:
    names = options.given(*LOOPS)
    if names and (options.number("threads") or 0) > 1:
        names.append(f"threads={options.text('threads')}")
    if len(names) > 1:
        yield error(
            f"{' and '.join(names)} cannot be combined",
            "uWSGI counts its cores by one of them and serves by the other, and loses requests",
            "leave out one of them, and use --processes for more than one CPU",
        )


@Rule
def enable_threads(options: Options, around: Surroundings) -> Iterator[Finding]:
    if (
        around.version is not None
        and around.version <= THREADS_ASKED_FOR
        and options.lacks("enable-threads", "py-autoreload", "py-tracebacker", *LOOPS)
        and (options.number("threads", 1) or 2) < 2
    ):
        yield warning(
            f"no --enable-threads with uWSGI {_dotted(around.version)}",
            "Python's threads stand still between requests, and with them the pings",
            "add --enable-threads",
        )


@Rule
def wrong_class(options: Options, around: Surroundings) -> Iterator[Finding]:
    running, wanted = engine_of(options), around.engine
    if wanted is not None and running and running != wanted:
        other = f", or use {around.classes[running]}" if running in around.classes else ""
        yield error(
            f"the app uses {around.classes[wanted]}, and uWSGI is started with other options "
            "than its",
            "every handshake is answered with 500",
            f"start uWSGI with {ENGINES[wanted].flags}{other}",
        )


@Rule
def missing_engine(options: Options, around: Surroundings) -> Iterator[Finding]:
    for name in options.given(*PLUGINS):
        if around.features is not None and name not in around.features:
            yield error(
                f"--{name}", "this uWSGI was built without it, and does not start", BUILD_ONE
            )


@Rule
def late_patch(options: Options, around: Surroundings) -> Iterator[Finding]:
    # uWSGI's reloader has started a thread by then, which the patch does not bear.
    if (
        engine_of(options) == "gevent"
        and options.has("lazy-apps", "lazy")
        and options.has("py-autoreload")
        and options.lacks("gevent-early-monkey-patch")
    ):
        yield error(
            "--lazy-apps and --python-autoreload",
            "it is too late for GeventWebSocket to call gevent's patch_all()",
            "add --gevent-early-monkey-patch to uWSGI's options, or leave out --lazy-apps",
            logged=False,  # an EngineError says so
        )


@Rule
def mounts(options: Options, around: Surroundings) -> Iterator[Finding]:
    apps = len(options.values("mount")) + options.has("module", "wsgi-file")
    engine = engine_of(options)
    if apps > 1 and engine and options.lacks("single-interpreter"):
        find = error if engine in LOOPS else warning
        yield find(
            "several apps (--mount) without --single-interpreter",
            "uWSGI's loop serves one interpreter only: requests to the second app are answered "
            "with 404, or kill the worker"
            if engine in LOOPS
            else "only the first app hears of a stop: WebSockets of the others hold up reloads "
            "until --worker-reload-mercy is over, and their functions of on_worker_start never run",
            "add --single-interpreter",
        )


@Rule
def few_cores(options: Options, around: Surroundings) -> Iterator[Finding]:
    all_cores = cores(options)
    if not all_cores or all_cores >= FEW or detaches(options) or options.has("py-autoreload"):
        return
    if engine_of(options) in LOOPS and options.lacks(*HOLDING):
        return  # kept_connections has told
    yield warning(
        f"{all_cores} connections at a time in all" if all_cores > 1 else "1 connection at a time",
        "each open WebSocket holds one, and the next visitor waits, of a page too",
        "raise --threads N, or use --gevent N or --asyncio N with their classes",
    )


@Rule
def processes(options: Options, around: Surroundings) -> Iterator[Finding]:
    number = workers(options)
    if number > 1 and around.backplane is not None and around.backplane.startswith("memory:"):
        yield warning(
            f"--processes {number} with UWSGI_WEBSOCKET_BACKPLANE {around.backplane}",
            "what is sent to a room, a user or all reaches the clients of one worker",
            "leave UWSGI_WEBSOCKET_BACKPLANE to its default, local://, or use redis://...",
            logged=False,  # whoever sends says so
        )


# Its end, at which everybody is thrown out


@Rule
def harakiri(options: Options, around: Surroundings) -> Iterator[Finding]:
    seconds = options.number("harakiri")
    if not seconds or not engine_of(options):
        return
    if detaches(options):
        yield hint(
            f"--harakiri {seconds}",
            "one view that takes longer kills the worker, and cuts all of its WebSockets",
            "give slow views a worker or a timeout of their own",
        )
    elif engine_of(options) in ("threads", "suspend") or options.has(*HOLDING):
        yield error(
            f"--harakiri {seconds}",
            f"it kills the worker, with all of its connections, {seconds} seconds into any "
            "WebSocket",
            "leave it out for workers that serve WebSockets",
        )


@Rule
def recycling(options: Options, around: Surroundings) -> Iterator[Finding]:
    given = [f"--{name} {options.number(name)}" for name in RECYCLING if options.number(name)]
    if given:
        yield hint(
            ", ".join(given),
            "it restarts the worker, and closes all of its WebSockets with 1012",
            "have clients reconnect after a random delay",
        )


@Rule
def abrupt_recycling(options: Options, around: Surroundings) -> Iterator[Finding]:
    engine = engine_of(options)
    consequences = {
        "asyncio": "exits at once when a request reaches it: all WebSockets of the worker are cut "
        "(1006), and so are its other requests"
    }
    if (options.number("threads", 1) or 0) > 1:
        consequences["threads"] = (
            "cancels its threads when a request reaches it, and the worker then hangs, HTTP too, "
            "with or without WebSockets"
        )
    if engine not in consequences or (around.version or ENDS_GRACEFULLY) >= ENDS_GRACEFULLY:
        return
    for name in ("max-requests", "reload-on-rss", "reload-on-as"):
        if options.number(name):
            yield warning(
                f"--{name} {options.number(name)} with --{engine}",
                f"this version of uWSGI {consequences[engine]}",
                f"use --max-worker-lifetime, or uWSGI {_dotted(ENDS_GRACEFULLY)} or newer",
            )


@Rule
def evil(options: Options, around: Surroundings) -> Iterator[Finding]:
    for name in ("reload-on-rss", "reload-on-as"):
        if options.number(f"evil-{name}"):
            yield warning(
                f"--evil-{name} {options.number(f'evil-{name}')}",
                "uWSGI kills the worker (SIGKILL), and its clients see a cut connection (1006)",
                f"use --{name}, which tells them (1012)",
            )


@Rule
def mercy(options: Options, around: Surroundings) -> Iterator[Finding]:
    seconds = options.number("worker-reload-mercy")
    if seconds is not None and seconds < around.timeout:
        yield warning(
            f"--worker-reload-mercy {seconds}",
            f"uWSGI kills a worker before its handlers have had the {around.timeout:g} seconds of "
            "the extension's timeout to end in",
            f"raise it above {around.timeout:g}, or lower WebSocket(timeout=...)",
        )


@Rule
def master(options: Options, around: Surroundings) -> Iterator[Finding]:
    if options.lacks("master") and not options.names() & MASTERED:
        yield warning(
            "no --master",
            "a worker that dies is not replaced, and nothing reloads gracefully",
            "add --master",
            logged=False,  # uWSGI says so itself
        )


@Rule
def die_on_term(options: Options, around: Surroundings) -> Iterator[Finding]:
    brutal = options.lacks("die-on-term", "hook-master-start") and options.has("master")
    if brutal and not around.vassal:  # whom an emperor tells through a pipe
        yield hint(
            "no --die-on-term",
            "SIGTERM, with which systemd and Docker stop a service, reloads uWSGI brutally "
            "instead, and cuts WebSockets",
            "add --die-on-term, or have the service stopped by SIGINT or SIGQUIT",
        )
