"""``app.run()``: replace this process by uWSGI serving the app.

Arguments are uWSGI's options, see :mod:`.keywords` for how they are given and :mod:`.defaults` for
those that are added.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from ..helpers.log import logger
from ..inspection.binaries import UWSGIBinary, find_uwsgi, inspect_uwsgi, interpreter
from ..inspection.effects import cores
from ..inspection.options import LOADERS, spellings
from . import keywords, replay, watch
from .defaults import DEFAULT_HOST, DEFAULT_PORT, complete, take_over_reloading
from .keywords import PLUGIN_LOADERS, Options
from .locate import Target, locate, project_files

#: What a process should be able to open at least: under gevent and asyncio the descriptors of a
#: worker, not its cores, limit how many WebSockets it holds.
DESCRIPTORS = 16384

# Files that are watched before they are imported: an environment variable holds 128 KiB.
_WATCHED = 500

_OURS = ("FLASK_UWSGI_DEBUG", watch.WATCH_VARIABLE, watch.INTERVAL_VARIABLE)

# Options that load the app; with one of them uWSGI needs no target from us.
_LOADERS = spellings(*LOADERS)

# Options that tell uWSGI which Python it is to be.
_PYTHONS = {"home", "virtualenv", "venv", "pyhome", "H", "py-programname", "py-program-name"}


def run_uwsgi(
    app: Any,
    debug: bool = False,
    host: str | None = DEFAULT_HOST,
    port: int | str | None = DEFAULT_PORT,
    uwsgi_binary: str | os.PathLike[str] | None = None,
    **kwargs: Any,
) -> None:
    """Replace this process by uWSGI serving the app.

    Where the script is already inside uWSGI, or imported by a ``flask`` command, this only says
    so and returns.

    :param app: the Flask app, or a string ``module:variable``. ``launch/locate.py`` tells how
        uWSGI finds an app object.
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
    where = ""
    if "uwsgi" in sys.modules:  # This module exists in uWSGI's processes only.
        where = "here, since uWSGI is already running this module"
    elif os.environ.get("FLASK_RUN_FROM_CLI") == "true":
        where = "under the flask command"
    if where:
        logger.warning("app.run() does nothing %s: put it under if __name__ == '__main__'", where)
    else:
        exec_uwsgi(locate(app), debug, host, port, uwsgi_binary, kwargs)


def exec_uwsgi(
    target: Target,
    debug: bool,
    host: str | None,
    port: int | str | None,
    uwsgi_binary: str | os.PathLike[str] | None,
    uwsgi_options: Mapping[str, Any],
) -> None:
    """Check the options against the binary, or raise EngineError; print the command, become it."""
    options = complete(uwsgi_options, debug, host, port)
    keywords.check(options)
    wanted = [name for name in options if name not in PLUGIN_LOADERS]
    binary = inspect_uwsgi(find_uwsgi(uwsgi_binary), wanted, keywords.plugin_arguments(options))
    keywords.check_binary(binary, wanted)
    interval = take_over_reloading(options) if debug else None
    command = build_command(binary, target, options)
    environment = {**target.environment, **_interpreter(binary, options)[1]}
    if debug:
        environment["FLASK_UWSGI_DEBUG"] = "true"
    _set_environment(environment, debug, interval)
    _raise_descriptor_limit(options)
    assignments = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    _print(" ".join(["Running:", *assignments, shlex.join(command)]))
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(command[0], command)


def build_command(binary: UWSGIBinary, target: Target, options: Options) -> list[str]:
    """Return the argument list for uWSGI, the binary first."""
    for text in target.arguments:
        keywords.check_taken_literally(text, "what uWSGI is to load")
    command = [binary.path, *keywords.plugin_arguments(options)]
    if binary.plugins:
        command += ["--plugins", ",".join(binary.plugins)]
    for name, value in options.items():
        if name not in PLUGIN_LOADERS:
            command += keywords.arguments(name, value)
    command += _interpreter(binary, options)[0]
    # The last --pythonpath becomes the first entry.
    for folder in reversed(target.python_path):
        command += ["--pythonpath", _glob(folder)]
    if not options.keys() & _LOADERS:
        command += target.arguments
    return command


def _interpreter(binary: UWSGIBinary, options: Options) -> tuple[list[str], dict[str, str]]:
    """Tell uWSGI which Python it is to be, by arguments and variables, unless the caller does."""
    return ([], {}) if options.keys() & _PYTHONS else interpreter(binary.path)


def _glob(folder: str) -> str:
    """Return the pattern that matches this folder alone, and in which uWSGI expands nothing."""
    return re.sub(r"[*?[\\]|(?<=[$@%])\(", r"\\\g<0>", folder)


def _set_environment(shown: Mapping[str, str], debug: bool, interval: int | None) -> None:
    """Set the variables for uWSGI, and for :mod:`.watch` in it; none may be left from before."""
    watched = {}
    if debug:
        watched[watch.WATCH_VARIABLE] = json.dumps(project_files()[:_WATCHED])
    if interval is not None:
        watched[watch.INTERVAL_VARIABLE] = str(interval)
    for name in (*_OURS, "FLASK_RUN_FROM_CLI"):
        os.environ.pop(name, None)
    os.environ.update({**shown, **watched})


def _print(line: str) -> None:
    """Print what may have characters in it that the terminal's encoding has not."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding))


def _raise_descriptor_limit(options: Options) -> None:
    """Let this process open a descriptor for each connection that it may get, where it may.

    A connection takes one or two in its worker (our duplicate, and uWSGI's while it has a core) and
    two in the router, for all workers together.
    """
    import resource  # Not on Windows, where find_uwsgi has refused.

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = max(256 + 2 * cores(keywords.for_rules(options)), DESCRIPTORS)
    if hard != resource.RLIM_INFINITY:
        need = min(need, hard)
    if soft != resource.RLIM_INFINITY and soft < need:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))
