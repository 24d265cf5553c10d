"""uWSGI binaries: where one is, and what it was built with. Internal.

Nothing here imports Flask or the package's engines: the installer uses it too.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..exceptions import EngineError, UWSGINotFound
from .options import EXPANDED

#: The remedy that most errors about a binary name.
INSTALL = "python -m flask_uwsgi_websocket install-uwsgi"

#: The remedy for one that lacks an engine.
BUILD_ONE = f"build one with every engine: {INSTALL} --force"

#: The remedy for one that lacks SSL.
ADD_SSL = f"install OpenSSL's headers (Debian: apt-get install libssl-dev), then {INSTALL} --force"

#: What a uWSGI that runs each of our engines has beside threads.
PLUGINS = ("gevent", "asyncio", "greenlet")

#: The environment variable that names the binary to use.
BINARY_VARIABLE = "FLASK_UWSGI_BINARY"

#: Options that a uWSGI without SSL lacks.
SSL = ("https", "https2", "https-socket", "http-to-https")

#: Why there is none.
NO_WINDOWS = "uWSGI does not run on Windows: use the Windows Subsystem for Linux"

_BUILD = f"build one for this Python with every engine: {INSTALL}"

# The probes below answer within milliseconds; a wrapper script may be slower.
_PROBE_SECONDS = 30.0

_OPTION = re.compile(r"^\s+(?:-(\S)\|)?--(\S+)", re.MULTILINE)


@dataclass(frozen=True)
class UWSGIBinary:
    """A uWSGI binary and what it can do.

    :param path: the executable.
    :param options: the names of its command line options, one-letter names among them.
    :param python: the Python version it embeds, such as ``"3.11.7"``.
    :param plugins: plugins to load by name, since this binary does not embed them.
    :param version: uWSGI's, such as ``"2.0.31"``.
    """

    path: str
    options: frozenset[str]
    python: str
    plugins: tuple[str, ...] = ()
    version: str = ""

    def __str__(self) -> str:
        parts = [f"uWSGI {self.version}"] if self.version else []
        parts += [f"Python {self.python}", *(name for name in PLUGINS if name in self.options)]
        parts.append("SSL" if "https" in self.options else "no SSL, so no --https")
        return f"{self.path} ({', '.join(parts)})"

    def knows(self, option: str) -> bool:
        """Return whether uWSGI accepts this; like ``getopt_long`` it takes prefixes of names."""
        return option in self.options or (
            len(option) > 1 and any(name.startswith(option) for name in self.options)
        )


def is_plain(text: str) -> bool:
    """Return whether uWSGI takes an option's value as it is; for Python it must be ASCII."""
    return text.isascii() and text.isprintable() and not is_expanded(text)


def is_expanded(text: str) -> bool:
    """Return whether uWSGI would put something else in the place of a part of this."""
    return EXPANDED.search(text) is not None


def interpreter(binary: str) -> tuple[list[str], dict[str, str]]:
    """Return the arguments and variables that have uWSGI be this Python, in its virtualenv."""
    folder, name = os.path.split(sys.executable)
    if not (is_plain(sys.executable) and is_plain(sys.prefix)):
        # Python itself looks for a bare name on PATH.
        path = os.pathsep.join(filter(None, (folder, os.environ.get("PATH"))))
        return ["--py-programname", name], {"PATH": path}
    if sys.prefix != sys.base_prefix:
        return ["--virtualenv", os.path.abspath(sys.prefix)], {}
    if os.path.dirname(binary) != folder:
        # A binary from elsewhere would look for Python's library beside itself.
        return ["--py-programname", sys.executable], {}
    return [], {}


def find_uwsgi(uwsgi_binary: str | os.PathLike[str] | None = None) -> str:
    """Find the uWSGI binary to run.

    The first of these that is given or exists: the argument, the environment variable
    ``FLASK_UWSGI_BINARY``, ``uwsgi`` beside the Python interpreter (a virtualenv's own ``bin``),
    ``uwsgi`` where pip puts its scripts, ``uwsgi`` on ``PATH``.

    :param uwsgi_binary: a path, or the name of a command on ``PATH``.
    :returns: the path of an executable file.
    :raises UWSGINotFound: there is none; the message says how to get one.
    """
    for source, name in (
        ("", uwsgi_binary),
        (f"; {BINARY_VARIABLE} in the environment names it", os.environ.get(BINARY_VARIABLE)),
    ):
        if name:
            found = shutil.which(os.path.expanduser(name))
            if found is None:
                raise UWSGINotFound(
                    f"{os.fspath(name)!r} is neither an executable file nor a command on "
                    f"PATH{source}"
                )
            return found
    found = installed_uwsgi() or shutil.which("uwsgi")
    if found is None:
        raise UWSGINotFound(_not_found())
    return found


def installed_uwsgi() -> str | None:
    """Return the uWSGI that pip put into this Python environment; ``None`` without one."""
    found = (shutil.which("uwsgi", path=str(folder)) for folder in _script_folders())
    return next(filter(None, found), None)


def inspect_uwsgi(
    path: str, wanted: Iterable[str] = (), plugin_arguments: Sequence[str] = ()
) -> UWSGIBinary:
    """Ask a uWSGI binary what it can do.

    A distribution's uWSGI has Python, the HTTP router and the engines in plugins: those that
    the wanted options need are looked for under the names that Debian gives them.

    :param plugin_arguments: the caller's own ``--plugins``, ``--plugins-dir`` and so on.
    :raises EngineError: it does not run, or has no Python.
    """
    options = _options(path, plugin_arguments)
    plugins: list[str] = []
    for option in ("wsgi-file", *wanted):
        for plugin in () if option in options else _plugin_names(option):
            load = ["--plugins", ",".join([*plugins, plugin])]
            more = _options(path, [*plugin_arguments, *load], may_fail=True)
            if option in more:
                plugins.append(plugin)
                options = more
                break
    if "wsgi-file" not in options:
        raise EngineError(
            f"{path} has no Python plugin for Python {python_tag()}: install the plugin and name "
            f"it (plugins='python3'), or {_BUILD}"
        )
    load = ["--plugins", ",".join(plugins)] if plugins else []
    python = _output(path, [*plugin_arguments, *load, "--python-version"]).strip()
    version = _output(path, ["--version"], may_fail=True).strip()
    return UWSGIBinary(path, options, python.rpartition("\n")[2], tuple(plugins), version)


def check_python(binary: UWSGIBinary) -> None:
    """Refuse a binary of another Python, with EngineError: it would not find the app's packages."""
    if binary.python.split(".")[:2] != python_tag().split("."):
        raise EngineError(
            f"{binary.path} embeds Python {binary.python} and cannot run an app of "
            f"Python {python_tag()}: {_BUILD}, or name another binary "
            f"(uwsgi_binary=..., or the environment variable {BINARY_VARIABLE})"
        )


def _script_folders() -> Iterator[Path]:
    if sys.executable:
        yield Path(sys.executable).parent
    yield Path(sysconfig.get_path("scripts"))
    user = sysconfig.get_preferred_scheme("user")
    if sys.prefix == sys.base_prefix:  # A virtualenv does not see what pip put into the home.
        yield Path(sysconfig.get_path("scripts", user))


def _plugin_names(option: str) -> tuple[str, ...]:
    """Return the plugins that may bring an option, as Debian names them."""
    python = "python" + python_tag().replace(".", "")
    if option == "wsgi-file":
        return (python, "python3")
    if option in ("http", "https", "https2", "http-to-https"):
        return ("http",)
    if option in PLUGINS:
        return (f"{option}_{python}", f"{option}_python3", option)
    return ()


def _options(path: str, plugin_arguments: Sequence[str], may_fail: bool = False) -> frozenset[str]:
    text = _output(path, [*plugin_arguments, "--help"], may_fail)
    return frozenset(name for pair in _OPTION.findall(text) for name in pair if name)


def _output(path: str, arguments: Sequence[str], may_fail: bool = False) -> str:
    done = _run(path, arguments)
    if not done.stdout and not may_fail:
        said = done.stderr.strip() or f"exit status {done.returncode}"
        raise EngineError(f"{path} does not run ({said}): {_BUILD}")
    return done.stdout


def _run(path: str, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [path, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROBE_SECONDS,
            env=environment_without_options(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"{path} does not run ({error}): {_BUILD}") from error


def environment_without_options() -> dict[str, str]:
    """Return the environment without UWSGI_*: a probe must not bind what those options name."""
    return {k: v for k, v in os.environ.items() if not k.startswith("UWSGI_")}


def python_tag() -> str:
    """Return the version of this Python as binaries and packages have it in their names."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def _not_found() -> str:
    if sys.platform == "win32":
        return NO_WINDOWS
    return (
        f"there is no uWSGI beside {sys.executable or 'the interpreter'} or on PATH: "
        f"{_BUILD}, or name a binary (uwsgi_binary=..., or the environment variable "
        f"{BINARY_VARIABLE})"
    )
