"""``app.run()``: replace this process by uWSGI serving the app.

Arguments are uWSGI's options: ``True`` is a bare flag, ``False`` and ``None`` leave one out (also
one of the defaults below), a list or tuple repeats it, underscores become dashes, and a trailing
underscore goes (``async_=100`` for a name that Python reserves). A flag, which takes no value, may
also be given as in uWSGI's files: ``master=1``, ``vacuum='false'``.

Defaults, each replaced by giving the option:

=========================  ========================================================================
``http``                   ``host:port``. When another front is given (``https``, ``http_socket``,
                           ``socket``, ...) and ``host`` and ``port`` are left at their defaults,
                           only that one is served; name a host or port to have both.
``http_websockets``        uWSGI's HTTP router passes WebSockets on.
``http_buffer_size``       32768: the router's own 4,096 bytes bring messages above that size
                           down to some ten a second. Never 65535 or more, with which it loses
                           uploads.
``master``                 restarts workers that die, stops and reloads them cleanly.
``enable_threads``         our heartbeats run in a thread.
``threads``                32 when neither an engine (``gevent``, ``asyncio``, ``async``) nor
                           ``threads`` is given: each open WebSocket holds one, and with uWSGI's
                           single one a second browser tab would wait for the first to close.
``greenlet``               with ``asyncio`` and ``async``, which need it.
``die_on_term``            SIGTERM stops uWSGI, as ``kill``, systemd and Docker expect; without it
                           uWSGI reloads.
``need_app``               an app that does not load stops uWSGI instead of answering each request
                           with an error; not in debug mode, which waits for you to mend it.
``lazy``                   in debug mode: the worker loads the app, so that new code takes another
                           worker, and not another uWSGI; meanwhile the router waits.
``python_autoreload``      1 in debug mode: seconds between two looks for changed code, which with
                           ``lazy`` are our own; and ``worker_reload_mercy`` 5 seconds: an open
                           WebSocket must not hold the reload for uWSGI's minute.
``virtualenv``             the one that this interpreter runs in.
=========================  ========================================================================
"""

from __future__ import annotations

import contextlib
import difflib
import json
import logging
import os
import re
import shlex
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence, Set
from importlib.util import find_spec
from typing import Any

from ..exceptions import AsyncioNotAvailable, EngineError, GeventNotInstalled
from ..inspection.binary import (
    INSTALL,
    UWSGIBinary,
    check_python,
    find_uwsgi,
    inspect_uwsgi,
    interpreter,
    is_expanded,
    is_plain,
    takes_value,
)
from ..inspection.options import (
    FASTCGI_SOCKETS,
    FILES,
    LOADERS,
    OPTIONAL,
    ROUTERS,
    SOCKETS,
    TLS_SOCKETS,
    spellings,
)
from ..inspection.socket_rules import ROUTER_BUFFER
from . import replay, watch
from .locate import Target, locate, project_files

__all__ = ["find_uwsgi", "run_uwsgi"]

_log = logging.getLogger("flask_uwsgi_websocket")

#: What a process should be able to open at least: under gevent and asyncio the descriptors of a
#: worker, not its cores, limit how many WebSockets it holds.
DESCRIPTORS = 16384

DEFAULT_HOST = "localhost"
DEFAULT_PORT = 5000

_THREADS = 32

# Files that are watched before they are imported: an environment variable holds 128 KiB.
_WATCHED = 500

# Seconds that a reload waits for handlers which do not end; uWSGI's 60 are long for a developer.
_DEBUG_MERCY = 5

# Options that open the HTTP router on an address.
_ROUTERS = spellings(*ROUTERS, "http-to-https")

# Options that open a listening socket of the workers.
_SOCKETS = spellings(*SOCKETS, *TLS_SOCKETS, *FASTCGI_SOCKETS, "raw-socket")

# Options that load the app; with one of them uWSGI needs no target from us.
_LOADERS = spellings(*LOADERS)

# Files that bring options which we do not read. A uWSGI that was built with a library for JSON has
# a short option for it.
_CONFIGURATIONS = spellings(*FILES, "emperor") | {"j"}

_ENGINES = frozenset({"gevent", "asyncio", "async", "ugreen"})

# What uWSGI's files say for a flag (core/uwsgi.c, uwsgi_opt_true).
_SWITCHES = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}

_WORKERS = spellings("processes")

# uWSGI's reloader.
_RELOADERS = spellings("py-autoreload")

_PYTHON_HOMES = frozenset({"home", "virtualenv", "venv", "pyhome", "H"})
_PYTHON_NAMES = frozenset({"py-programname", "py-program-name"})

_PLUGIN_LOADERS = spellings("plugins", "plugins-dir")

Options = dict[str, Any]


def run_uwsgi(
    app: Any,
    debug: bool = False,
    host: str | None = DEFAULT_HOST,
    port: int | str | None = DEFAULT_PORT,
    uwsgi_binary: str | os.PathLike[str] | None = None,
    **kwargs: Any,
) -> None:
    """Replace this process by uWSGI serving the app; see the module's text for the options.

    Where the script is already inside uWSGI, or imported by a ``flask`` command, this only says
    so and returns.

    :param app: the Flask app, or a string ``module:variable``. See :mod:`.locate` for how uWSGI
        finds an app object.
    :param debug: reload when the code changes, and Flask's debug mode with its debugger in the
        browser; one worker, since the debugger keeps its tracebacks in memory.
    :param host: the address to listen on.
    :param port: the port to listen on.
    :param uwsgi_binary: the uWSGI to run, see :func:`find_uwsgi`.
    :param kwargs: uWSGI options.
    :raises UWSGINotFound: there is no uWSGI.
    :raises EngineError: that uWSGI lacks something, or the options contradict each other; the
        message says what to do.
    """
    if replay.running():
        replay.reached(app)
    if "uwsgi" in sys.modules:  # This module exists in uWSGI's processes only.
        _log.warning(
            "app.run() does nothing here, since uWSGI is already running this module: "
            "put it under if __name__ == '__main__'"
        )
        return
    if os.environ.get("FLASK_RUN_FROM_CLI") == "true":
        _log.warning(
            "app.run() does nothing under the flask command: put it under if __name__ == '__main__'"
        )
        return
    exec_uwsgi(locate(app), debug, host, port, uwsgi_binary, kwargs)


def exec_uwsgi(
    target: Target,
    debug: bool,
    host: str | None,
    port: int | str | None,
    uwsgi_binary: str | os.PathLike[str] | None,
    uwsgi_options: Mapping[str, Any],
) -> None:
    """Check the options against the uWSGI binary, print the command and become it.

    :raises EngineError: as :func:`run_uwsgi`.
    """
    options = complete(uwsgi_options, debug, host, port)
    check(options)
    path = find_uwsgi(uwsgi_binary)
    wanted = [name for name in options if name not in _PLUGIN_LOADERS]
    binary = inspect_uwsgi(path, wanted, _plugin_arguments(options))
    check_binary(binary, wanted)
    options = settle_flags(binary, options, {_spelling(name) for name in uwsgi_options})
    interval = take_over_reloading(options) if debug else None
    command = build_command(binary, target, options)

    environment = {**target.environment, **_interpreter(binary, options)[1]}
    os.environ.pop("FLASK_UWSGI_DEBUG", None)
    os.environ.pop(watch.WATCH_VARIABLE, None)
    if debug:
        environment["FLASK_UWSGI_DEBUG"] = "true"
        os.environ[watch.WATCH_VARIABLE] = json.dumps(project_files()[:_WATCHED])
    os.environ.pop(watch.INTERVAL_VARIABLE, None)
    if interval is not None:
        os.environ[watch.INTERVAL_VARIABLE] = str(interval)
    os.environ.update(environment)
    os.environ.pop("FLASK_RUN_FROM_CLI", None)
    _raise_descriptor_limit(options)
    assignments = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    _print(" ".join(["Running:", *assignments, shlex.join(command)]))
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(command[0], command)


def _print(line: str) -> None:
    """Print what may have characters in it that the terminal's encoding has not."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding))


def complete(
    uwsgi_options: Mapping[str, Any],
    debug: bool = False,
    host: str | None = DEFAULT_HOST,
    port: int | str | None = DEFAULT_PORT,
) -> Options:
    """The options in uWSGI's spelling, with our defaults where the caller says nothing.

    :returns: names to values that are neither ``None`` nor ``False``.
    """
    given = {_spelling(name): value for name, value in uwsgi_options.items()}
    if debug:
        given = {n: v for n, v in given.items() if n not in _WORKERS and "cheaper" not in n}
    options: Options = {}
    host, port = host or DEFAULT_HOST, port or DEFAULT_PORT
    address = (host, str(port)) != (DEFAULT_HOST, str(DEFAULT_PORT))
    if address or not given.keys() & (_ROUTERS | _SOCKETS):
        options["http"] = _address(host, port)
        if address and given.get("http"):
            options["http"] = [options["http"], *_values(given.pop("http"))]
    if any((options | given).get(name) for name in _ROUTERS):
        options |= {"http-websockets": True, "http-buffer-size": ROUTER_BUFFER}
    options |= {"master": True, "enable-threads": True, "die-on-term": True}
    options["need-app"] = not debug
    if debug:
        options |= {"lazy": True, "python-autoreload": 1, "worker-reload-mercy": _DEBUG_MERCY}
        # By its file, so that it does not import Flask before the app does, if uWSGI can.
        options["import"] = watch.__file__ if is_plain(watch.__file__) else watch.__name__
    if leaves_open(given, _ENGINES | {"threads"}):
        options["threads"] = _THREADS
    if (given.get("asyncio") or given.get("async")) and not given.get("ugreen"):
        options["greenlet"] = True
    if options.get("import") and given.get("import"):
        options["import"] = [options["import"], *_values(given.pop("import"))]
    options |= given
    return {
        name: value for name, value in options.items() if value is not None and value is not False
    }


def take_over_reloading(options: Options) -> int | None:
    """Take uWSGI's reloader out of the options where :mod:`.watch` does better, with ``lazy``.

    :returns: seconds between two looks; ``None`` where it is left to uWSGI, or not wanted.
    """
    if "lazy" not in options:
        return None
    # In the order in which they were given, of which the last one counts.
    intervals = [options.pop(name) for name in tuple(options) if name in _RELOADERS]
    return max(_number(intervals[-1]), 1) if intervals else None


def leaves_open(uwsgi_options: Iterable[str], names: Iterable[str]) -> bool:
    """Whether the options are none of ``names``, and no file that may have them in it."""
    return not {_spelling(name) for name in uwsgi_options} & {*names, *_CONFIGURATIONS}


def check(options: Options) -> None:
    """Refuse options that contradict each other, or need a package that is not installed.

    :raises EngineError: with the remedy.
    """
    threads = _number(options.get("threads"))
    for engine in ("gevent", "asyncio"):
        if engine not in options:
            continue
        cores = options[engine]
        if cores is True or _number(cores) < 2:
            raise EngineError(
                f"{engine} takes the number of connections that a worker serves at once, "
                f"2 or more: {engine}=100 instead of {engine}={cores!r}"
            )
        if threads > 1:
            raise EngineError(
                f"{engine} and threads={threads} cannot be combined: a worker serves its "
                f"connections by one or the other; leave out one of them, and use processes=N "
                f"for more than one CPU"
            )
    if "gevent" in options and "asyncio" in options:
        raise EngineError("gevent and asyncio cannot be combined: leave out one of them")
    if "gevent" in options and find_spec("gevent") is None:
        raise GeventNotInstalled(f"gevent is not installed: pip install gevent, then {INSTALL}")
    if "greenlet" in options and find_spec("greenlet") is None:
        raise AsyncioNotAvailable(
            f"greenlet is not installed: pip install greenlet, then {INSTALL}"
        )


def check_binary(binary: UWSGIBinary, wanted: Iterable[str]) -> None:
    """Refuse options that the binary does not have.

    :raises EngineError: with the remedy.
    """
    check_python(binary)
    for option in wanted:
        if binary.knows(option):
            continue
        if option in ("gevent", "asyncio", "greenlet"):
            raise EngineError(
                f"{binary.path} was built without {option}: build one with every engine: "
                f"{INSTALL} --force"
            )
        if option in ("https", "https2", "https-socket", "http-to-https"):
            raise EngineError(
                f"{binary.path} was built without SSL and has no {option}: install OpenSSL's "
                f"headers (Debian: apt-get install libssl-dev), then {INSTALL} --force"
            )
        similar = difflib.get_close_matches(option, binary.options, n=1, cutoff=0.7)
        raise EngineError(
            f"{binary.path} has no option --{option}"
            + (f": did you mean {similar[0].replace('-', '_')}?" if similar else "")
            + f" (all its options: {shlex.quote(binary.path)} --help)"
        )


def settle_flags(binary: UWSGIBinary, options: Options, given: Set[str]) -> Options:
    """Return the options with flags that were given a value made bare, or left out.

    uWSGI itself would take the value for the name of a configuration file.

    :param given: the names that the caller has given values, right or wrong.
    :raises EngineError: for a value that means neither.
    """
    settled = dict(options)
    plugin_arguments = _plugin_arguments(options)
    for name in (options.keys() & given) - _PLUGIN_LOADERS:
        value = options[name]
        if value is True or takes_value(binary, name, plugin_arguments):
            continue
        settled[name] = _SWITCHES.get(str(value).lower())
        if settled[name] is None:
            raise EngineError(
                f"--{name} takes no value: {name.replace('-', '_')}=True instead of {value!r}, or "
                f"False to leave it out"
            )
    return settled


def build_command(binary: UWSGIBinary, target: Target, options: Options) -> list[str]:
    """The argument list for uWSGI, the binary first."""
    for text in target.arguments:
        _check_taken_literally(text, "what uWSGI is to load")
    command = [binary.path, *_plugin_arguments(options)]
    if binary.plugins:
        command += ["--plugins", ",".join(binary.plugins)]
    for name, value in options.items():
        if name not in _PLUGIN_LOADERS:
            command += _arguments(name, value)
    command += _interpreter(binary, options)[0]
    # The last --pythonpath becomes the first entry.
    for folder in reversed(target.python_path):
        command += ["--pythonpath", _glob(folder)]
    if not options.keys() & _LOADERS:
        command += target.arguments
    return command


def _spelling(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def _values(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else (value,)


def _arguments(name: str, value: Any) -> list[str]:
    """One option as arguments, as often as it has values."""
    flag = f"-{name}" if len(name) == 1 else f"--{name}"
    arguments: list[str] = []
    for each in _values(value):
        if each is True:
            arguments.append(flag)
        elif each is not None and each is not False:
            text = str(each)
            arguments += [f"{flag}={text}"] if name in OPTIONAL else [flag, text]
    return arguments


def _plugin_arguments(options: Options) -> list[str]:
    """What loads plugins stands before the options that the plugins bring, folders first."""
    return [
        argument
        for name in sorted(options.keys() & _PLUGIN_LOADERS, key=lambda n: not n.endswith("-dir"))
        for argument in _arguments(name, options[name])
    ]


def _interpreter(binary: UWSGIBinary, options: Options) -> tuple[list[str], dict[str, str]]:
    """Tell uWSGI which Python it is to be, by arguments and variables, unless the caller does."""
    named = options.keys() & (_PYTHON_HOMES | _PYTHON_NAMES)
    return ([], {}) if named else interpreter(binary.path)


def _glob(folder: str) -> str:
    """Return the pattern that matches this folder alone, and in which uWSGI expands nothing."""
    return re.sub(r"[*?[\\]|(?<=[$@%])\(", r"\\\g<0>", folder)


def _check_taken_literally(text: str, what: str) -> None:
    """Refuse what uWSGI would expand.

    :raises EngineError: with the remedy.
    """
    if is_expanded(text):
        raise EngineError(
            f"{what} is {text!r}, in which uWSGI would expand $(...), @(...) or %(...): give it a "
            f"name without them"
        )


def _address(host: str, port: int | str) -> str:
    _check_taken_literally(f"{host}:{port}", "the address to listen on")
    _check_address(host, port)
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def _check_address(host: str, port: int | str) -> None:
    """Refuse what uWSGI would take for another address, without a word.

    :raises EngineError: which says what is accepted.
    """
    if not str(port).isdecimal() or int(port) > 65535:
        raise EngineError(f"port is {port!r}: it must be a whole number, 65535 at most")
    try:
        if host not in (DEFAULT_HOST, "*"):
            socket.getaddrinfo(host.strip("[]"), None)
    except (OSError, UnicodeError) as error:
        raise EngineError(f"host is {host!r}, which leads to no address: {error}") from error


def _number(value: Any) -> int:
    """An option's number; 0 for what is none, about which uWSGI will complain."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0


def _raise_descriptor_limit(options: Options) -> None:
    """Let this process open a descriptor for each connection that it may get, where it may.

    A connection takes one or two in its worker (our duplicate, and uWSGI's while it has a core) and
    two in the router, for all workers together.
    """
    import resource  # Not on Windows, where find_uwsgi has refused.

    cores = max(_number(options.get(name)) for name in ("gevent", "asyncio", "async", "threads"))
    workers = max(1, *(_number(options.get(name)) for name in _WORKERS))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = max(256 + 2 * cores * workers, DESCRIPTORS)
    if hard != resource.RLIM_INFINITY:
        need = min(need, hard)
    if soft != resource.RLIM_INFINITY and soft < need:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))
